"""A boot on Modal, constructor to first result: ours, smolagents', and the floor, on the local stand-in.

The floor is one process that does no more than is needed with a stock gateway: it spawns it, asks every 5 ms
whether it serves, creates a kernel, connects and runs `1+1`. All take turns in one run.
Run it with `.venv/bin/python benches/python/boot.py`.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import modal
import smolagents.remote_executors
from smolagents.monitoring import AgentLogger, LogLevel

from clients import websocket_client
from cloud import cloud
from gateways import stock_gateway
from measure import OURS, SMOLAGENTS, Chart, Goal, Section, Table, interleaved, main, quantile
from sandkernel import ModalExecutor, SandboxPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STARTING_NOTE = (
    "Of a boot of ours, nearly all is the start of gateway and kernel, at once: 0.57 and 0.50 s of "
    "processor time, most of it imports, so that it takes as much longer as others use the two cores. "
    "smolagents' boot is waiting in part, for the next time that it asks. Less takes a gateway that is "
    "not in Python, or a snapshot of both processes."
)
QUIET = AgentLogger(level=LogLevel.OFF)
CODE = "1+1"
FLOOR = "floor: stock gateway, asked every 5 ms"
PEER = smolagents.remote_executors.ModalExecutor
FIRST = "first execution"


class Stages:
    """Seconds of each stage, boot after boot."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    def add(self, stage: str, seconds: float) -> None:
        self.taken.setdefault(stage, []).append(seconds)

    def table(self, title: str) -> Table:
        rows = [(stage, quantile(seconds, 0.5)) for stage, seconds in self.taken.items()]
        return Table(title, ("stage", "median, s"), rows)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.add(stage, time.perf_counter() - began)

        return call

    @contextmanager
    def watching_smolagents(self) -> Iterator[None]:
        """Time what smolagents calls as it boots; it has no stages of its own."""
        module = smolagents.remote_executors
        with (
            patch.object(modal.App, "lookup", self.timed("app", modal.App.lookup)),
            patch.object(modal.Sandbox, "create", self.timed("sandbox", modal.Sandbox.create)),
            patch.object(PEER, "_wait_for_server", self.timed("gateway", PEER._wait_for_server)),
            patch.object(module, "_create_kernel_http", self.timed("kernel", module._create_kernel_http)),
        ):
            yield


def floor() -> float:
    began = time.perf_counter()
    with stock_gateway() as endpoint, websocket_client(endpoint):
        # Connected, it has run something.
        return time.perf_counter() - began


def boot(kind: Callable[..., Any], stages: Stages) -> float:
    began = time.perf_counter()
    executor = kind([], QUIET)
    try:
        ready = time.perf_counter()
        assert executor(CODE).output == "2"
        ended = time.perf_counter()
    finally:
        executor.cleanup()
    if isinstance(executor, ModalExecutor):
        for stage, seconds in executor.boot_report.stages.items():
            stages.add(stage, seconds)
    stages.add(FIRST, ended - ready)
    return ended - began


def boot_smolagents(stages: Stages) -> float:
    with stages.watching_smolagents():
        return boot(PEER, stages)


def pool(section: Section, runs: int) -> None:
    with SandboxPool(1, ModalExecutor, check_interval=600) as sandboxes:

        def wait() -> None:
            while not sandboxes.ready:
                time.sleep(0.01)

        acquired, executions = [], []
        for _ in range(runs):
            wait()
            began = time.perf_counter()
            executor = sandboxes.acquire()
            executor(CODE)
            acquired.append(time.perf_counter() - began)
            wait()
            executions += interleaved({OURS: lambda run=executor: run(CODE)}, 5)[OURS]
            executor.cleanup()
    rows = [
        ("acquire to first result", quantile(acquired, 0.5) * 1000),
        ("one execution", quantile(executions, 0.5) * 1000),
    ]
    section.tables.append(Table(f"From a pool, {runs} runs", ("", "median, ms"), rows))


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("Boot")
    runs = 1 if quick else 7
    stages = {OURS: Stages(), SMOLAGENTS: Stages()}
    with cloud():
        taken = interleaved(
            {
                FLOOR: floor,
                OURS: lambda: boot(ModalExecutor, stages[OURS]),
                SMOLAGENTS: lambda: boot_smolagents(stages[SMOLAGENTS]),
            },
            runs,
            warm_up=1,
        )
        pool(section, runs)
    medians = {name: quantile(values, 0.5) for name, values in taken.items()}
    rows = [
        (name, medians[name], min(values), max(values), medians[name] / medians[FLOOR])
        for name, values in taken.items()
    ]
    head = ("", "median, s", "best", "worst", "of the floor's")
    section.tables.insert(0, Table(f"Constructor to first result, {runs} runs", head, rows))
    section.tables += [times.table(f"Stages, {name}") for name, times in stages.items()]
    section.charts.append(Chart("Boot, to the first result", "s", medians))
    faster = medians[SMOLAGENTS] / medians[OURS]
    section.goals += [
        Goal(3, "boot: times as fast as smolagents'", faster, 4, at_least=True, shortfall=STARTING_NOTE),
        Goal(3, "boot: of the floor's", medians[OURS] / medians[FLOOR], 0.5, shortfall=STARTING_NOTE),
    ]
    return section


if __name__ == "__main__":
    main(measure, __doc__, "boot")
