"""Where an execution's time goes, hop by hop: processor time of every process on the way, beside the floor's.

Run it with `.venv/bin/python benches/python/hops.py`.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil

from clients import websocket_client, zmq_client
from measure import FLOOR, OURS, WEBSOCKET, Section, Table, main, processor_time, quantile
from sandkernel import Session
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CODE = "x = 1"
# What the processes of a client are called, in the order of the table.
PROCESSES = ("client", "gateway", "kernel")


def spent(processes: Sequence[psutil.Process | None]) -> list[float]:
    """Seconds of processor time until now of this process, and of the others."""
    times = [process.cpu_times() if process else None for process in processes]
    return [processor_time(), *(time.user + time.system if time else 0.0 for time in times)]


def row(
    name: str, run: Callable[[str], object], processes: Sequence[psutil.Process | None], runs: int
) -> list[str | float | None]:
    for _ in range(20):
        run(CODE)
    before, taken = spent(processes), []
    for _ in range(runs):
        began = time.perf_counter()
        run(CODE)
        taken.append(time.perf_counter() - began)
    each = [(after - earlier) * 1000 / runs for after, earlier in zip(spent(processes), before, strict=True)]
    median = quantile(taken, 0.5) * 1000
    return [name, median, *(value or None for value in each), sum(each)]


def new_child(process: psutil.Process, known: Sequence[psutil.Process]) -> psutil.Process:
    return next(child for child in process.children() if child not in known)


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("Where an execution's time goes")
    runs = 20 if quick else 1000
    rows = []
    me = psutil.Process()
    with ExitStack() as stack:
        known = me.children()
        floor = stack.enter_context(zmq_client())
        rows.append(row(FLOOR, floor, (None, new_child(me, known)), runs))
        sandbox = stack.enter_context(LocalSandbox())
        endpoint = sandbox.endpoint
        gateway = psutil.Process(sandbox.process_id)
        (kernel,) = gateway.children()
        session = stack.enter_context(
            Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id)
        )
        rows.append(row(OURS, session.run, (gateway, kernel), runs))
        minimal = stack.enter_context(websocket_client(endpoint))
        rows.append(row(WEBSOCKET, minimal, (gateway, new_child(gateway, [kernel])), runs))
    head = ("", "median", *(f"processor, {name}" for name in PROCESSES), "processor, all")
    note = "The processes work in turns, and partly at once: their times need not add up to the median."
    section.tables.append(Table(f"`{CODE}`, ms for one of {runs:,} executions", head, rows, note))
    return section


if __name__ == "__main__":
    main(measure, __doc__, "hops")
