"""Large values both ways: variables into the kernel, final answers out of it, beside smolagents' executor.

Both through the TLS tunnels of Modal's stand-in, which count the bytes. smolagents' runs end after a limit.
Run it with `.venv/bin/python benches/python/values.py`.
"""

from __future__ import annotations

import multiprocessing
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import smolagents.remote_executors
from PIL import Image
from smolagents import FinalAnswerTool
from smolagents.monitoring import AgentLogger, LogLevel

from cloud import cloud
from measure import OURS, SMOLAGENTS, Chart, Goal, Section, Table, main, quantile
from sandkernel import ModalExecutor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.connection import Connection

    from cloud import Cloud

    Outcome = tuple[float | None, int, str]

QUIET = AgentLogger(level=LogLevel.OFF)
EXECUTORS: Mapping[str, Callable[..., Any]] = {
    OURS: ModalExecutor,
    SMOLAGENTS: smolagents.remote_executors.ModalExecutor,
}
# What smolagents' does not do within a hundred times what ours takes, it is not waited for.
SECONDS_LIMIT = {SMOLAGENTS: 120.0, OURS: 60.0}
ANSI = re.compile(r"\x1b\[[0-9;]*m")
NOT_DONE = "not done after {:.0f} s"
TO_KERNEL, TO_HOST = "to the kernel", "to the host"

# Code that makes each value, in the kernel or here.
VALUES = {
    "string of 5 MB": "__import__('random').Random(0).randbytes(2_500_000).hex()",
    "array of 8 MB": "__import__('numpy').random.default_rng(0).random((1000, 1000))",
    "array of 80 MB": "__import__('numpy').random.default_rng(0).random((10_000, 1000))",
    "image of 12 megapixels": (
        "__import__('PIL.Image', fromlist='_').fromarray((__import__('numpy').arange(4000)[:, None] // 32 + "
        "__import__('numpy').random.default_rng(0).integers(0, 16, (3000, 4000, 3))).astype('uint8'))"
    ),
    "frame of 1,000,000 rows": (
        "__import__('pandas').DataFrame({'number': range(1_000_000), 'share': __import__('numpy').random"
        ".default_rng(0).random(1_000_000)})"
    ),
}
JOURNEY_NOTE = (
    "Each process on the way copies the bytes in its turn: the agent's, those of the stand-in's tunnel, "
    "gateway and kernel. Of the 0.12 s of processor time that 8 MB take to the kernel, and the 0.09 s to "
    "the host, the agent's process has a fifth. Less takes a gateway that copies less, or pieces that are "
    "under way while the kernel works on those before."
)
QUICK = ("string of 5 MB", "array of 8 MB")
LIMITS = {"string": 20.0, "image": 20.0, "array": 100.0, "frame": 100.0}


def equal(one: object, other: object) -> bool:
    if isinstance(one, Image.Image):
        return isinstance(other, Image.Image) and one.tobytes() == other.tobytes()
    return bool(np.array_equal(one, other))  # type: ignore[arg-type]


def raw_bytes(value: Any) -> int:
    """What the value takes by itself; an image is sent as PNG, which has no such size."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if hasattr(value, "memory_usage"):
        return int(value.memory_usage(index=False).sum())
    return len(value.tobytes() if isinstance(value, Image.Image) else value)


def travel(who: str, expression: str, way: str, runs: int, connection: Connection) -> None:
    """Send the value one way, in a process that can be ended; tells each outcome as it comes."""
    value = eval(expression)
    executor = EXECUTORS[who]([], QUIET)
    try:
        executor.send_tools({"final_answer": FinalAnswerTool()})
        executor(f"value = {expression}")
        connection.send(None)
        for _ in range(runs):
            began = time.perf_counter()
            try:
                if way == TO_KERNEL:
                    executor.send_variables({"sent": value})
                    seconds = time.perf_counter() - began
                else:
                    output = executor("final_answer(value)")
                    seconds = time.perf_counter() - began
                    assert output.is_final_answer
                    assert equal(output.output, value)
            except Exception as error:  # noqa: BLE001 what a peer can't do is a result
                # Of a traceback, what was raised.
                connection.send(ANSI.sub("", f"{type(error).__name__}: {error}").splitlines()[-1][:100])
                return
            connection.send(seconds)
    finally:
        executor.cleanup()


def outcome(who: str, expression: str, way: str, runs: int, stand_in: Cloud) -> Outcome:
    """The median seconds, the bytes of one journey, and what went wrong."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=travel, args=(who, expression, way, runs, there))
    process.start()
    there.close()
    taken: list[float] = []
    problem = ""
    try:
        # The executor has booted, and its kernel has the value.
        here.recv()
        before = stand_in.bytes_passed()
        while len(taken) < runs and not problem:
            if not here.poll(SECONDS_LIMIT[who]):
                problem = NOT_DONE.format(SECONDS_LIMIT[who])
                break
            found = here.recv()
            if isinstance(found, float):
                taken.append(found)
            else:
                problem = found
        passed = stand_in.bytes_passed() - before
    finally:
        here.close()
        if problem:
            process.kill()
        process.join()
    return (None, passed, problem) if problem else (quantile(taken, 0.5), passed // runs, "")


def judge(section: Section, name: str, way: str, both: Mapping[str, Outcome], raw: int) -> None:
    (ours, bytes_passed, problem), (theirs, _, their_problem) = both[OURS], both[SMOLAGENTS]
    what = f"{name}, {way}"
    limit = LIMITS[name.split(maxsplit=1)[0]]
    faster = theirs / ours if ours and theirs else None
    if ours and their_problem.startswith("not done"):
        faster = SECONDS_LIMIT[SMOLAGENTS] / ours
        problem = f"smolagents' was {their_problem}: the figure is the least that it can be."
    elif not problem:
        problem = JOURNEY_NOTE
    if theirs is not None or ours is None or faster is not None:
        section.goals.append(
            Goal(5, f"{what}: times as fast as smolagents'", faster, limit, at_least=True, shortfall=problem)
        )
    if name.startswith("array"):
        section.goals.append(
            Goal(
                5,
                f"{what}: bytes on the wire, of the raw data's",
                bytes_passed / raw,
                1.1,
            )
        )


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("Values")
    rows: list[list[str | float | None]] = []
    bars = {}
    with cloud() as stand_in:
        for name, expression in VALUES.items():
            if quick and name not in QUICK:
                continue
            raw = raw_bytes(eval(expression))
            for way in (TO_KERNEL, TO_HOST):
                both = {
                    who: outcome(who, expression, way, 1 if quick or who == SMOLAGENTS else 5, stand_in)
                    for who in EXECUTORS
                }
                for who, (seconds, passed, problem) in both.items():
                    rows.append([f"{name}, {way}", who, seconds, passed / 1e6, passed / raw, problem])
                judge(section, name, way, both, raw)
                if both[OURS][0] is not None:
                    bars[f"{name}, {way}"] = both[OURS][0]
    head = ("", "", "median, s", "MB on the wire", "of the raw data", "")
    section.tables.append(Table("Values through TLS", head, rows))
    section.charts.append(Chart("Values through TLS, Sandkernel", "s", bars))
    return section


if __name__ == "__main__":
    main(measure, __doc__, "values")
