"""Sandboxes on Modal in a program on asyncio: a warm pool, several agents' code at once, output as it comes.

With `--local` it runs on this machine, on a stand-in for Modal's servers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from typing import Any

from sandkernel import ModalExecutor, Output, SandboxPool


async def work(pool: SandboxPool[ModalExecutor], name: str) -> str:
    began = time.perf_counter()
    async with await pool.aacquire() as executor:
        result = await executor.arun(f"{name!r}.upper()")
        return f"{result.output} after {(time.perf_counter() - began) * 1000:.0f} ms"


async def main() -> None:
    async with SandboxPool(2, lambda: ModalExecutor(timeout=60), maximum=3) as pool:
        for line in await asyncio.gather(*(work(pool, name) for name in ("ada", "grace"))):
            print(line)

    async with await ModalExecutor.acreate(idle_timeout=120) as executor:
        async for event in executor.astream("for n in (3, 2, 1): print(n, flush=True)\nn"):
            if isinstance(event, Output):
                print(event.text.strip())
        # Leave it running, and take it over: from here, or from another process.
        await executor.arun("kept = 42")
        sandbox_id = await asyncio.to_thread(executor.detach)
    async with await ModalExecutor.afrom_id(sandbox_id) as executor:
        print("kept:", (await executor.arun("kept")).output)


@contextlib.contextmanager
def local() -> Any:
    from sandkernel.testing import LocalModal  # noqa: PLC0415 only needed here

    with LocalModal() as cloud, cloud.activate():
        yield
        cloud.assert_no_running_sandboxes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--local", action="store_true")
    with local() if parser.parse_args().local else contextlib.nullcontext():
        asyncio.run(main())
