"""Executors in a program on asyncio: several kernels at once, output as it comes, a time limit."""

from __future__ import annotations

import asyncio
import time

from sandkernel import LocalExecutor, Output
from sandkernel.exceptions import ExecutionTimeout

COUNTDOWN = """
import time
for number in (3, 2, 1):
    print(number, flush=True)
    time.sleep(0.2)
number
"""


async def work(name: str) -> str:
    async with await LocalExecutor.acreate(timeout=30) as executor:
        result = await executor.arun(f"import time; time.sleep(0.5); {name!r}.upper()")
        return str(result.output)


async def main() -> None:
    began = time.perf_counter()
    names = await asyncio.gather(*(work(name) for name in ("ada", "grace", "emmy")))
    print(
        f"Three kernels at once, booted and closed: {', '.join(names)} ({time.perf_counter() - began:.1f} s)"
    )

    async with await LocalExecutor.acreate() as executor:
        async for event in executor.astream(COUNTDOWN):
            if isinstance(event, Output):
                print(f"  {event.text.strip()}")
        try:
            await executor.arun("while True: pass", timeout=0.5)
        except ExecutionTimeout as error:
            print(error)
        print("Still here:", (await executor.arun("number")).output)


if __name__ == "__main__":
    asyncio.run(main())
