"""One execution, from the call to its outcome: on this machine, through TLS, and over a slow network.

All clients take turns in one run. Run it with `.venv/bin/python benches/python/execution.py`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import smolagents.remote_executors
from smolagents.monitoring import AgentLogger, LogLevel

from clients import kernel_client, websocket_client, zmq_client
from cloud import cloud
from gateways import stock_gateway
from measure import (
    FLOOR,
    FLOOR_AS_IT_IS,
    KERNEL_CLIENT,
    OURS,
    PROCESSOR_NOTE,
    SHARES,
    SMOLAGENTS,
    WEBSOCKET,
    Chart,
    Goal,
    Section,
    Table,
    interleaved,
    latency_table,
    main,
    processor_time,
    quantile,
    resident_bytes,
)
from sandkernel import ModalExecutor, Session
from sandkernel.integrations.smolagents import LocalExecutor
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Clients = dict[str, Callable[[str], object]]

CODES = {"x = 1": "x = 1", "1 + 1": "1 + 1", "a print of 1 kB": "print('x' * 1000)"}
ROUND_TRIP = 0.04
MEBIBYTE = 1 << 20


FLOOR_NOTE = (
    "The floor's kernel keeps its history in memory, as ours do. As it comes, it writes it to the disk, and "
    "the next execution waits for that."
)


def of(taken: Mapping[str, list[float]], share: str, base: str = FLOOR) -> float:
    """Our quantile, as a multiple of another's."""
    return quantile(taken[OURS], SHARES[share]) / quantile(taken[base], SHARES[share])


GATEWAY_NOTE = (
    "Between the floor and any websocket client stands the gateway: `hops.py` has its processor time, "
    "the minimal client's row what it takes of everybody. Less takes a gateway that is not in Python."
)
FASTER_NOTE = (
    "Half of smolagents' time is waiting for an acknowledgement, 40 ms anywhere; ours is what kernel and "
    "gateway take, which the floor and the minimal client pay too: on a busy or slow machine that is more."
)


def with_code(clients: Clients, code: str) -> dict[str, Callable[[], object]]:
    return {name: lambda run=run: run(code) for name, run in clients.items()}


def on_this_machine(section: Section, runs: int) -> None:
    with ExitStack() as stack:
        endpoint = stack.enter_context(LocalSandbox()).endpoint
        session = stack.enter_context(
            Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id)
        )
        clients: Clients = {
            FLOOR: stack.enter_context(zmq_client()),
            FLOOR_AS_IT_IS: stack.enter_context(zmq_client(history_on_disk=True)),
            OURS: session.run,
            WEBSOCKET: stack.enter_context(websocket_client(endpoint)),
            KERNEL_CLIENT: stack.enter_context(kernel_client(endpoint)),
        }
        for name, code in CODES.items():
            taken = interleaved(with_code(clients, code), runs, warm_up=20)
            section.tables.append(latency_table(f"{name}, on this machine", taken, FLOOR, FLOOR_NOTE))
            for share, limit in (("median", 1.2), ("p99", 1.5)):
                section.goals.append(
                    Goal(
                        1,
                        f"{name}, on this machine: {share}, of the floor's",
                        of(taken, share),
                        limit,
                        shortfall=GATEWAY_NOTE,
                    )
                )
            if name == "x = 1":
                bars = {who: quantile(values, 0.5) * 1000 for who, values in taken.items()}
                section.charts.append(Chart("One execution, on this machine", "ms", bars))


def on_a_stock_gateway(section: Section, runs: int) -> None:
    with ExitStack() as stack:
        endpoint = stack.enter_context(stock_gateway())
        clients: Clients = {
            OURS: stack.enter_context(Session.connect(endpoint.url, endpoint.token)).run,
            WEBSOCKET: stack.enter_context(websocket_client(endpoint)),
            KERNEL_CLIENT: stack.enter_context(kernel_client(endpoint)),
        }
        taken = interleaved(with_code(clients, "x = 1"), runs)
    note = "Its small writes wait for acknowledgements, which come 40 ms late; ours asks for them at once."
    section.tables.append(latency_table("x = 1, on a gateway that nobody has tuned", taken, OURS, note))


def through_tls(section: Section, runs: int) -> None:
    """The executors as smolagents calls them, through the tunnels of Modal's stand-in."""
    quiet = AgentLogger(level=LogLevel.OFF)
    with cloud() as stand_in, ExitStack() as stack:
        ours = stack.enter_context(ModalExecutor([], quiet))
        theirs = smolagents.remote_executors.ModalExecutor([], quiet)
        stack.callback(theirs.cleanup)
        endpoint = ours._sandbox.endpoint
        clients: Clients = {
            FLOOR: stack.enter_context(zmq_client()),
            OURS: ours,
            WEBSOCKET: stack.enter_context(websocket_client(endpoint)),
            SMOLAGENTS: theirs,
        }
        taken = interleaved(with_code(clients, "x = 1"), runs)
        section.tables.append(latency_table("x = 1, through TLS", taken, FLOOR, TUNNEL_NOTE))
        bars = {who: quantile(values, 0.5) * 1000 for who, values in taken.items()}
        section.charts.append(Chart("One execution, through TLS", "ms", bars))
        faster = 1 / of(taken, "median", SMOLAGENTS)
        section.goals += [
            Goal(
                1,
                "x = 1, through TLS: median, of the floor's",
                of(taken, "median"),
                1.3,
                shortfall=TUNNEL_NOTE,
            ),
            Goal(
                1,
                "x = 1, through TLS: times as fast as smolagents'",
                faster,
                20,
                at_least=True,
                shortfall=FASTER_NOTE,
            ),
        ]
        floor = quantile(taken[FLOOR], 0.5)
        stand_in.add_round_trip(ROUND_TRIP)
        del clients[FLOOR]
        taken = interleaved(with_code(clients, "x = 1"), max(5, runs // 4))
        stand_in.add_round_trip(0)
        title = "x = 1, through TLS, with 40 ms of round-trip time added"
        section.tables.append(latency_table(title, taken, OURS))
        beyond = (quantile(taken[OURS], 0.5) - ROUND_TRIP) / floor
        section.goals.append(
            Goal(1, f"{title}: median beyond the 40 ms, of the floor's", beyond, 1.5, shortfall=TUNNEL_NOTE)
        )
        costs(section, {"Sandkernel, through TLS": ours, SMOLAGENTS: theirs}, runs)


TUNNEL_NOTE = (
    "The tunnel is Modal's stand-in: two hops in Python's asyncio, in another process of the same cores. The "
    "minimal client's row shows what it takes of everybody."
)


def cost(run: Callable[[str], object], runs: int) -> float:
    """Milliseconds of this process's processor time for one execution."""
    for _ in range(20):
        run("x = 1")
    before = processor_time()
    for _ in range(runs):
        run("x = 1")
    return (processor_time() - before) * 1000 / runs


def costs(section: Section, clients: Clients, runs: int) -> None:
    rows = [(name, cost(run, runs), str(runs)) for name, run in clients.items()]
    head = ("", "ms for one execution", "runs")
    section.tables.append(Table("Processor time of the agent's process, user and system", head, rows))
    section.goals.append(
        Goal(
            2,
            f"processor time of one execution, {rows[0][0]}",
            float(rows[0][1]),
            0.4,
            "ms",
            shortfall=f"{PROCESSOR_NOTE} TLS adds its own on each message.",
        )
    )


def without_growth(section: Section, runs: int) -> None:
    """Many executions in a row, and what they leave in memory."""
    with LocalExecutor([]) as executor:
        spent = processor_time()
        for _ in range(runs // 10):
            executor("x = 1")
        before = resident_bytes()
        for _ in range(runs):
            executor("x = 1")
        grown = (resident_bytes() - before) / MEBIBYTE
        spent = (processor_time() - spent) * 1000 / (runs * 1.1)
    title = f"resident memory grown over {runs:,} executions, after {runs // 10:,} to warm up"
    rows = [(title, grown, "MiB"), ("processor time of one of them", spent, "ms")]
    section.tables.append(Table("An executor that runs on and on, on this machine", ("", "", ""), rows))
    section.goals += [
        Goal(2, title, grown, 0.25, "MiB"),
        Goal(
            2,
            "processor time of one execution, on this machine",
            spent,
            0.4,
            "ms",
            shortfall=PROCESSOR_NOTE,
        ),
    ]


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("One execution")
    without_growth(section, 50 if quick else 10_000)
    on_this_machine(section, 5 if quick else 500)
    on_a_stock_gateway(section, 3 if quick else 100)
    through_tls(section, 3 if quick else 200)
    return section


if __name__ == "__main__":
    main(measure, __doc__, "execution")
