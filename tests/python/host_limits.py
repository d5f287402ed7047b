"""Measures what a hostile kernel takes of its host: memory, the interpreter's lock, time.

`make floods` runs the attacks of `host_attacks.py`, and writes the peaks into the table of `docs/limits.md`:

    python tests/python/host_limits.py --write docs/limits.md
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolagents import FinalAnswerTool, tool
from smolagents.utils import AgentError

import host_attacks
from floods import measured
from host_attacks import INPUTS, MEBIBYTE
from sandkernel import LocalExecutor, attendants
from sandkernel.exceptions import SandkernelError
from sandkernel.sandbox import host_tools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from host_attacks import Attack, Input

# The time limit of a step, and what its end may take beside: an interrupt, and a restart.
SECONDS = 20.0
GRACE_SECONDS = 30.0
# Beside a budget: the interpreter's own arenas, buffers of sockets, what is shown of it.
ALLOWANCE_BYTES = 64 * MEBIBYTE
MOST_LOCK_SECONDS = 0.1
TICK_SECONDS = 0.005
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass
class Report:
    """What came of an attack.

    Attributes:
        grown: By how many bytes the process grew at most.
        seconds: How long it took.
        lock: For how many seconds at a time the interpreter's lock was held at most.
        error: What the step, or the action after it, raised.
        next: What the next step gave.
    """

    grown: int = 0
    seconds: float = 0.0
    lock: float = 0.0
    error: str | None = None
    next: str = ""


class Ticks:
    """Finds out for how long one thread kept all others from the interpreter.

    A thread that wakes every few milliseconds sees a gap where it could not run. A gap counts for no more
    than this process computed meanwhile: on a machine that is busy otherwise there are others.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic(), time.process_time()
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic(), time.process_time()
            gap = min(now[0] - before[0], now[1] - before[1])
            self.longest = max(self.longest, gap - TICK_SECONDS)
            before = now


@tool
def call(value: Any) -> int:
    """Takes a value.

    Args:
        value: The value.
    """
    del value
    time.sleep(0.05)
    return 1


def forget() -> None:
    """Give back to the system what is not in use any more, for a baseline that says what is."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def run(attack: Attack) -> Report:
    """Make an attack on an executor of its own."""
    report, sizes = Report(), {}
    with LocalExecutor(
        timeout=SECONDS,
        payload_limits=host_attacks.LIMITS,
        tools={"call": "host"},
        session_options={
            "max_output_bytes": host_attacks.OUTPUT_BYTES,
            "max_result_bytes": host_attacks.RESULT_BYTES,
        },
    ) as executor:
        executor.send_tools({"call": call, "final_answer": FinalAnswerTool()})
        executor.files.exists("x")
        executor(host_attacks.PREAMBLE)
        forget()
        with measured(sizes), Ticks() as ticks:
            try:
                executor(attack.code)
                if attack.action:
                    eval(attack.action, {"executor": executor})
            except (SandkernelError, AgentError) as error:
                report.error = f"{type(error).__name__}: {error!s:.200}"
        report.next = executor("6 * 7").output
    report.grown, report.seconds, report.lock = sizes["grown"], sizes["seconds"], round(ticks.longest, 3)
    return report


def measure(names: Sequence[str] = ()) -> Iterator[tuple[Input, str, Report]]:
    """Yield what comes of each attack on the inputs with such names, or on all."""
    attendants.MAX_WAITING_BYTES = host_tools.MAX_ARGUMENT_BYTES = host_attacks.ARGUMENT_BYTES
    for given in INPUTS:
        if not names or any(name in given.name for name in names):
            for name, attack in given.attacks.items():
                yield given, name, run(attack)


def problems(given: Input, report: Report) -> list[str]:
    """Return what is wrong with what came of an attack."""
    found = []
    if report.grown > given.budget_bytes + ALLOWANCE_BYTES:
        found.append(f"took {report.grown >> 20} MiB: {given.budget_bytes >> 20} are its budget")
    if report.lock > MOST_LOCK_SECONDS:
        found.append(f"held the interpreter's lock for {report.lock} s")
    if report.seconds > SECONDS + GRACE_SECONDS:
        found.append(f"took {report.seconds} s")
    if report.next != "42":
        found.append(f"made {report.next!r} of the next step")
    return found


def table(reports: dict[Input, dict[str, Report]]) -> str:
    """Return the table of the documentation."""
    lines = [
        "| input | budget | counted | kept until | budget here | peak of the host | lock held |",
        "|---|---|---|---|---|---|---|",
    ]
    for given, by_name in reports.items():
        worst = max(by_name, key=lambda name: by_name[name].grown)
        peak = f"{by_name[worst].grown / MEBIBYTE:.0f} MiB ({worst})"
        lock = f"{1000 * max(report.lock for report in by_name.values()):.0f} ms"
        here = f"{given.budget_bytes >> 20} MiB"
        cells = (given.name, given.budget, given.counted, given.released, here, peak, lock)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(path: Path, reports: dict[Input, dict[str, Report]]) -> None:
    """Put the table between its marks in a document."""
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{table(reports)}\n{END}{after}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("inputs", nargs="*", help="the inputs, by parts of their names; all by default")
    parser.add_argument("--write", type=Path, help="the document whose table is to be written anew")
    arguments = parser.parse_args()
    reports: dict[Input, dict[str, Report]] = {}
    failed = False
    for given, name, report in measure(arguments.inputs):
        reports.setdefault(given, {})[name] = report
        found = problems(given, report)
        failed = failed or bool(found)
        print(json.dumps({"input": given.name, "attack": name, **vars(report), "wrong": found}), flush=True)
    if arguments.write is not None:
        write(arguments.write, reports)
    return failed


if __name__ == "__main__":
    sys.exit(main())
