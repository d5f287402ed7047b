"""Many sessions at once over several kernels: from threads, from one event loop, and with a minimal client.

The minimal client is `websockets` on asyncio: it sends, looks at headers until the end, and forgets the rest.
Run it with `.venv/bin/python benches/python/many.py`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import websockets

from clients import V1, Attention, channels, execute_request, kernel
from measure import (
    OURS,
    PROCESSOR_NOTE,
    SHARES,
    Chart,
    Goal,
    Section,
    Table,
    main,
    processor_time,
    quantile,
    resident_bytes,
)
from sandkernel import Session
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import Self

    from sandkernel.providers.endpoint import Endpoint

    Kernel = tuple[Endpoint, str]

CODE = "x = 1"
THREADS, LOOP, MINIMAL = f"{OURS}, threads", f"{OURS}, one event loop", "minimal asyncio client"
KIBIBYTE = 1024
ROUNDS = 4


def sandboxes_time() -> tuple[float, float]:
    """Seconds of processor time until now of the gateways that this process started, and of their kernels."""
    me = psutil.Process()
    gateways = me.children()
    kernels = [process for process in me.children(recursive=True) if process not in gateways]
    return total_time(gateways), total_time(kernels)


def total_time(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


class Round:
    """What a number of sessions did together."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.seconds = 0.0
        self.processor = 0.0
        self.gateways = self.kernels = 0.0

    def __enter__(self) -> Self:
        self._gateways, self._kernels = sandboxes_time()
        self._began, self._spent = time.perf_counter(), processor_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began
        self.processor += processor_time() - self._spent
        gateways, kernels = sandboxes_time()
        self.gateways += gateways - self._gateways
        self.kernels += kernels - self._kernels

    @property
    def throughput(self) -> float:
        return len(self.latencies) / self.seconds

    def row(self) -> list[float | str]:
        shares = [quantile(self.latencies, share) * 1000 for share in SHARES.values()]
        count = len(self.latencies)
        costs = [spent * 1000 / count for spent in (self.processor, self.gateways, self.kernels)]
        return [self.throughput, *shares, max(self.latencies) * 1000, *costs, str(count)]

    def kernels_share(self) -> float:
        """Which part of all processor time the kernels take."""
        return self.kernels / (self.processor + self.gateways + self.kernels)


SATURATED = (
    "All cores are busy, {:.0%} of the time with the kernels' own work, which is the same for every client. "
    "More takes cheaper kernels, or more cores."
)


def in_threads(sessions: Sequence[Session], turns: int, into: Round) -> None:
    def work(session: Session) -> None:
        for _ in range(turns):
            began = time.perf_counter()
            session.run(CODE)
            into.latencies.append(time.perf_counter() - began)

    with ThreadPoolExecutor(len(sessions)) as pool, into:
        for future in [pool.submit(work, session) for session in sessions]:
            future.result()


async def in_loop(runs: Sequence[Callable[[], Awaitable[object]]], turns: int, into: Round) -> None:
    async def work(run: Callable[[], Awaitable[object]]) -> None:
        for _ in range(turns):
            began = time.perf_counter()
            await run()
            into.latencies.append(time.perf_counter() - began)

    with into:
        await asyncio.gather(*(work(run) for run in runs))


async def run_minimal(client: websockets.ClientConnection) -> None:
    msg_id, message = execute_request(CODE)
    await client.send(message)
    attention = Attention(msg_id)
    while not attention.is_over_after(await client.recv()):  # type: ignore[arg-type]
        pass


async def minimal_client(stack: AsyncExitStack, place: Kernel) -> websockets.ClientConnection:
    endpoint, kernel_id = place
    client = await stack.enter_async_context(
        websockets.connect(
            channels(endpoint, kernel_id),
            additional_headers={"Authorization": f"token {endpoint.token}"},
            subprotocols=[websockets.Subprotocol(V1)],
            compression=None,
            max_size=None,
        )
    )
    await run_minimal(client)
    return client


async def take_turns(places: Sequence[Kernel], turns: int, rounds: int) -> dict[str, Round]:
    """Let each take its turn alone: a kernel tells all that are connected what any of them does."""
    found = {THREADS: Round(), LOOP: Round(), MINIMAL: Round()}
    for _ in range(rounds):
        with ExitStack() as ours:
            sessions = [ours.enter_context(connect(place)) for place in places]
            await asyncio.to_thread(in_threads, sessions, turns, found[THREADS])
            await in_loop([lambda each=each: each.arun(CODE) for each in sessions], turns, found[LOOP])
        async with AsyncExitStack() as theirs:
            clients = [await minimal_client(theirs, place) for place in places]
            await in_loop([lambda each=each: run_minimal(each) for each in clients], turns, found[MINIMAL])
    return found


def connect(place: Kernel) -> Session:
    endpoint, kernel_id = place
    session = Session.connect(endpoint.url, endpoint.token, kernel_id=kernel_id)
    session.run("pass")
    return session


def our_threads() -> int:
    names = (path.read_text(encoding="utf-8") for path in Path("/proc/self/task").glob("*/comm"))
    return sum(name.startswith("sandkernel") for name in names)


def idle_memory(section: Section, places: Sequence[Kernel], count: int) -> None:
    """What a session takes that has run something and waits, without what all of them share."""
    with ExitStack() as stack:
        for number in range(8):
            stack.enter_context(connect(places[number % len(places)]))
        before = resident_bytes()
        for number in range(count):
            stack.enter_context(connect(places[number % len(places)]))
        each = (resident_bytes() - before) / count / KIBIBYTE
        threads = our_threads()
    rows = [
        ("memory of an idle session, kB", each),
        (f"threads of ours, {count + 8} sessions", float(threads)),
    ]
    section.tables.append(Table("What idle sessions take", ("", ""), rows))
    section.goals += [
        Goal(6, "memory of an idle session", each, 100, "kB"),
        Goal(6, f"threads of ours with {count + 8} sessions", threads, 4, "threads"),
    ]


HEAD = (
    "",
    "executions/s",
    *(f"{share}, ms" for share in SHARES),
    "worst, ms",
    "processor, client, ms each",
    "gateways",
    "kernels",
    "runs",
)
TAILS = (
    "As many wait as there are sessions, for the same cores: the mean is sessions by executions a second. "
    "What made tails longer still was the history that each execution wrote to the disk."
)


def together(section: Section, places: Sequence[Kernel], count: int, total: int) -> dict[str, float]:
    """Measure a number of sessions; returns the bars to draw."""
    used = [places[number * max(1, len(places) // count) % len(places)] for number in range(count)]
    found = asyncio.run(take_turns(used, max(2, total // count // ROUNDS), ROUNDS))
    title = f"Sessions at once: {count}, on {len(set(used))} kernels of 2 gateways"
    section.tables.append(Table(title, HEAD, [[name, *each.row()] for name, each in found.items()], TAILS))
    minimal = found[MINIMAL]
    for name in (THREADS, LOOP):
        each = found[name]
        cost = each.processor * 1000 / len(each.latencies)
        section.goals.append(
            Goal(
                6,
                f"{count} at once, {name}: processor time of one execution",
                cost,
                0.4,
                "ms",
                shortfall=PROCESSOR_NOTE,
            )
        )
        if count > 1:
            what = f"{count} at once, {name}: throughput, of the minimal client's"
            more = each.throughput / minimal.throughput
            reason = SATURATED.format(each.kernels_share())
            section.goals.append(Goal(6, what, more, 1.2, at_least=True, shortfall=reason))
    return {f"{count}, {name}": each.throughput for name, each in found.items()}


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("Many sessions at once")
    counts, kernel_count, total = ((1, 4), 2, 40) if quick else ((1, 8, 32, 64), 32, 1920)
    bars: dict[str, float] = {}
    with ExitStack() as stack:
        gateways = [stack.enter_context(LocalSandbox()).endpoint for _ in range(2)]
        places: list[Kernel] = [
            (gateway, stack.enter_context(kernel(gateway)))
            for gateway in gateways
            for _ in range(kernel_count // 2)
        ]
        idle_memory(section, places, 8 if quick else 64)
        for count in counts:
            bars |= together(section, places, count, total)
    section.charts.append(Chart("Executions a second, all sessions together", "executions/s", bars))
    return section


if __name__ == "__main__":
    main(measure, __doc__, "many")
