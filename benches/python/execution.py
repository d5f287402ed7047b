"""One execution on a local sandbox, beside the floor: jupyter_client over ZMQ, with no gateway at all.

The two take turns in one run, so that whatever else the machine does hits both alike. Run with `make bench`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import resource
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jupyter_client.manager import start_new_kernel

from sandkernel import Session
from sandkernel.sandboxes.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jupyter_client.blocking.client import BlockingKernelClient

CODES = {"x = 1": "x = 1", "1 + 1": "1 + 1", "print 1 kB": "print('x' * 1000)"}
WARM_UP = 20


@contextmanager
def zmq_client() -> Iterator[BlockingKernelClient]:
    manager, client = start_new_kernel()
    try:
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_over_zmq(client: BlockingKernelClient, code: str) -> None:
    """Does what an execution takes and nothing more: until the reply and the idle status are both there."""
    msg_id = client.execute(code)
    client.get_shell_msg(timeout=60)
    while True:
        message = client.get_iopub_msg(timeout=60)
        idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
        if idle and message["parent_header"].get("msg_id") == msg_id:
            return


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def measure(runs: int, ours: Callable[[str], object], floor: Callable[[str], object]) -> None:
    print(f"| code | median | floor | ratio | p95 | floor | p99 | floor | ratio |  (ms, {runs} runs each)")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, code in CODES.items():
        times: dict[str, list[float]] = {"ours": [], "floor": []}
        for turn in range(WARM_UP + runs):
            for who, run in (("ours", ours), ("floor", floor)):
                began = time.perf_counter()
                run(code)
                if turn >= WARM_UP:
                    times[who].append((time.perf_counter() - began) * 1000)
        cells = [name]
        for share in (0.5, 0.95, 0.99):
            mine, least = quantile(times["ours"], share), quantile(times["floor"], share)
            cells += [f"{mine:.2f}", f"{least:.2f}"]
            if share != 0.95:
                cells.append(f"{mine / least:.2f}")
        print("| " + " | ".join(cells) + " |")


def host_cpu(runs: int, run: Callable[[str], object]) -> float:
    """Milliseconds of this process's processor time for one execution, user and system, all threads."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(runs):
        run("x = 1")
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000 / runs


def output(session: Session) -> None:
    for name, code in (
        ("10 MB in 100-byte lines", "for i in range(100_000): print(f'{i:099}')"),
        ("one string of 50 MB", "'x' * 50_000_000"),
    ):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            execution = session.run(code)
            times.append(time.perf_counter() - began)
            assert execution.complete
            assert not execution.omitted_output_bytes
            assert not execution.omitted_results
        print(f"{name}: {statistics.median(times):.2f} s (median of {len(times)}), whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="executions of each kind (default: 300)")
    runs = parser.parse_args().runs
    versions = {
        name: importlib.metadata.version(name)
        for name in ("sandkernel", "jupyter-kernel-gateway", "ipykernel", "jupyter-client")
    }
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()), "\n")
    began = time.perf_counter()
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with (
            Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id) as session,
            zmq_client() as client,
        ):
            session.run("1 + 1")
            print(
                f"boot to first result: {time.perf_counter() - began:.2f} s (with the floor's own kernel)\n"
            )
            measure(runs, session.run, lambda code: run_over_zmq(client, code))
            print(f"\nhost CPU for one execution: {host_cpu(runs, session.run):.2f} ms\n")
            output(session)


if __name__ == "__main__":
    main()
