"""Runs code that floods, and reports what came of it and what memory that took: `make floods`."""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sandkernel
from sandkernel import Session
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandkernel import Execution
    from sandkernel.providers.endpoint import Endpoint

MEBIBYTE = 1 << 20
OMISSION = re.compile(r"\n\[… \d+ bytes left out …\]\n")
OUTPUT_BYTES = 4 * MEBIBYTE
RESULT_BYTES = 4 * MEBIBYTE


def of_status(field: str) -> int:
    """A figure of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


@contextmanager
def measured(report: dict[str, Any]) -> Iterator[None]:
    """Note how long it takes, and by how much this process grows meanwhile at most."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = of_status("VmRSS"), time.monotonic()
    yield
    report["seconds"] = round(time.monotonic() - began, 2)
    report["grown"] = of_status("VmHWM") - before


@contextmanager
def latencies_of(session: Session) -> Iterator[list[float]]:
    """Run something small over and over on another session meanwhile."""
    seen: list[float] = []
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            began = time.monotonic()
            session.run("x = 1")
            seen.append(time.monotonic() - began)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def connect(endpoint: Endpoint) -> Session:
    return Session.connect(
        endpoint.url,
        endpoint.token,
        kernel_id=endpoint.kernel_id,
        max_output_bytes=OUTPUT_BYTES,
        max_result_bytes=RESULT_BYTES,
    )


def described(execution: Execution | None) -> dict[str, Any]:
    assert execution is not None
    stdout = execution.stdout
    return {
        "head": stdout[:20],
        "tail": stdout[-20:],
        # Where text is left out, a line says how much.
        "bytes": len(OMISSION.sub("", stdout).encode()) + execution.omitted_output_bytes,
        "omitted": execution.omitted_output_bytes,
        "omitted_results": execution.omitted_results,
        "text": (execution.text or "")[-80:],
        "complete": execution.complete,
    }


def prints(session: Session, scale: float) -> dict[str, Any]:
    lines = int(1_000_000 * scale)
    execution = session.run(f"for i in range({lines}): print(f'{{i:0999d}}')\nprint('end')")
    return {"expected": 1000 * lines + 4, **described(execution)}


def tiny_messages(session: Session, count: int) -> dict[str, Any]:
    code = f"""
kernel = get_ipython().kernel
for i in range({count}):
    content = {{"name": "stdout", "text": f"{{i:06d}}\\n"}}
    kernel.session.send(kernel.iopub_socket, "stream", content, parent=kernel.get_parent())
print("end")"""
    return {"expected": 7 * count + 4, **described(session.run(code))}


def one_line(session: Session, scale: float) -> dict[str, Any]:
    size = int(500 * MEBIBYTE * scale)
    execution = session.run(f"print('head' + 'é' * ({size} // 2 - 4) + 'tail')")
    return {"expected": size // 2 * 2 + 1, **described(execution)}


def result(session: Session, scale: float) -> dict[str, Any]:
    size = int(500 * MEBIBYTE * scale)
    execution = session.run(f"print('before')\nkept = 'x' * {size}\nkept")
    return {"expected": size, "kept_in_kernel": session.run("len(kept)").text, **described(execution)}


def endless(session: Session, scale: float) -> dict[str, Any]:
    try:
        session.run("print('head', end='')\nwhile True: print('x' * 10_000, end='')", timeout=1 + 19 * scale)
    except sandkernel.ExecutionTimeout as error:
        return {"restarted": error.restarted, **described(error.execution)}
    raise AssertionError("code without an end has ended")


FLOODS: tuple[Callable[[Session, Any], dict[str, Any]], ...] = (
    prints,
    tiny_messages,
    one_line,
    result,
    endless,
)


def flood(scale: float, messages: int) -> dict[str, Any]:
    """Run every flood, beside a session that goes on, and report."""
    reports: dict[str, Any] = {}
    with LocalSandbox() as sandbox, LocalSandbox() as other:
        session, neighbour = connect(sandbox.endpoint), connect(other.endpoint)
        with session, neighbour:
            with latencies_of(neighbour) as quiet:
                time.sleep(1)
            for each in FLOODS:
                report: dict[str, Any] = {}
                with measured(report), latencies_of(neighbour) as latencies:
                    report |= (
                        tiny_messages(session, messages) if each is tiny_messages else each(session, scale)
                    )
                    during = len(latencies)
                report["next"] = session.run("6 * 7").text
                report["generation"] = session.generation
                report["neighbour"] = {
                    # Those that were over before the flood was.
                    "executions": during,
                    "median": round(statistics.median(latencies), 4),
                    "worst": round(max(latencies, default=math.inf), 4),
                    "median_when_quiet": round(statistics.median(quiet), 4),
                }
                reports[each.__name__] = report
    return reports


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="1: a gigabyte of prints, a result of 500 MiB"
    )
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many tiny messages")
    given = parser.parse_args()
    print(json.dumps(flood(given.scale, given.messages), indent=1, ensure_ascii=False))
