"""Runs code under random faults, and counts what is lost, doubled or left behind.

    python tests/python/soak.py --seconds 60 --seed 1

Several executors run at once, each with a sandbox and a fault proxy of its own. Every step notes in a file
that it began, so that one that runs twice is found; prints on both streams; and uses a variable and a tool
that were sent at the very beginning. A fault that a connection survives must leave no trace. After one that
it can't survive, the caller gets the error that belongs to it, with a part of the output, and the next step
has its variable and its tool.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolagents import tool

from fault_proxy import FaultProxy
from leaks import left_since, present
from sandkernel.exceptions import ExecutionTimeout, KernelDied
from sandkernel.executor import KernelExecutor
from sandkernel.sandboxes.endpoint import Endpoint
from sandkernel.sandboxes.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 2
PREFIX = "sandkernel-"
STEP = """
import os, sys, time
with open({ledger!r}, "a") as ledger:
    print({number}, os.getpid(), file=ledger)
for line in range({lines}):
    print({number}, line, {padding!r})
    if line % 5 == 0:
        print({number}, line, file=sys.stderr)
    if line % {burst} == 0:
        sys.stdout.flush()
time.sleep({pause})
double({number}), sent
"""


@tool
def double(number: int) -> int:
    """Double a number.

    Args:
        number: The number.
    """
    return number * 2


@dataclass
class Counts:
    """What happened."""

    executions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        ends = ", ".join(f"{kind} {count}" for kind, count in sorted(self.outcomes.items()))
        lines = [
            f"executions {self.executions} ({ends})",
            f"faults {self.faults.total()} ({kinds})",
            *(
                "\n    ".join([f"{name} {len(found)}", *found])
                for name, found in (
                    ("losses", self.losses),
                    ("duplicates", self.duplicates),
                    ("leaks", self.leaks),
                )
            ),
        ]
        return "\n".join(lines)

    @property
    def clean(self) -> bool:
        return not (self.losses or self.duplicates or self.leaks)


class Proxied:
    """A local sandbox behind a fault proxy."""

    def __init__(self) -> None:
        self.sandbox = LocalSandbox()
        endpoint = self.sandbox.endpoint
        self.proxy = FaultProxy(int(endpoint.url.rpartition(":")[2]))
        self.endpoint = Endpoint(self.proxy.url, endpoint.token, endpoint.kernel_id)

    def terminate(self) -> None:
        self.sandbox.terminate()
        self.proxy.close()


@dataclass(frozen=True)
class Fault:
    """Something that is made to happen while a step runs.

    Attributes:
        make: Makes it; is given the worker and the process id of the kernel.
        errors: What the caller may get for it; nothing, where the connection survives it.
        timeout: The step's.
    """

    name: str
    make: Callable[[Worker, int], None]
    errors: tuple[type[BaseException], ...] = ()
    timeout: float | None = None


class Worker:
    """One executor, and one thread that uses it."""

    def __init__(self, seed: str, counts: Counts, directory: Path, deadline: float) -> None:
        self.random = random.Random(seed)
        self.counts = counts
        self.deadline = deadline
        self.seed = seed
        self.ledger = directory / f"ledger-{seed}"
        self.proxied: Proxied
        self.number = 0
        self.history: deque[str] = deque(maxlen=5)

    def run(self) -> None:
        self.proxied = Proxied()
        options = {"dead_peer_timeout": 1.0, "reconnect_timeout": 60.0, "interrupt_grace": 0.5}
        with KernelExecutor(self.proxied, timeout=60, install=False, session_options=options) as executor:
            self.executor = executor
            executor.send_variables({"sent": self.seed})
            executor.send_tools({"double": double})
            while time.monotonic() < self.deadline:
                if self.random.random() < 0.1:
                    self._send_a_large_variable()
                else:
                    self._step(self.random.choice(FAULTS))

    def _step(self, fault: Fault) -> None:
        self.number += 1
        number, chance = self.number, self.random
        lines, padding = chance.choice([1, 20, 400]), "x" * chance.choice([0, 50, 500])
        # Those that are ended by a fault are to be under way when it comes.
        pause = 30.0 if fault.errors else chance.choice([0, 0.05, 0.3])
        code = STEP.format(
            ledger=str(self.ledger),
            number=number,
            lines=lines,
            padding=padding,
            burst=chance.choice([1, 10, 1000]),
            pause=pause,
        )
        stdout = "".join(f"{number} {line} {padding}\n" for line in range(lines))
        stderr = "".join(f"{number} {line}\n" for line in range(0, lines, 5))
        maker = threading.Thread(target=self._make, args=(fault, number))
        maker.start()
        self.counts.executions += 1
        self.history.append(fault.name)
        where = f"worker {self.seed} step {number}, after {', '.join(self.history)}"
        try:
            output = self._execute(code, fault)
        except fault.errors as error:
            self.counts.outcomes[type(error).__name__] += 1
            execution = getattr(error, "execution", None)
            if execution is not None and not stdout.startswith(execution.stdout):
                self.counts.losses.append(f"{where}: an error with other output")
        except Exception:  # noqa: BLE001 it is reported
            self.counts.losses.append(f"{where}: {traceback.format_exc()}")
        else:
            self.counts.outcomes["whole"] += 1
            seen = self.executor.last_execution
            if (output, seen.stdout, seen.stderr) != (repr((2 * number, self.seed)), stdout, stderr):
                self.counts.losses.append(f"{where}: {output}, {len(seen.stdout)} of {len(stdout)} bytes")
            if self._began(number) != 1:
                self.counts.losses.append(f"{where}: it is not in the ledger")
        finally:
            maker.join()
            self.proxied.proxy.heal()
        if self._began(number) > 1:
            self.counts.duplicates.append(where)

    def _execute(self, code: str, fault: Fault) -> Any:
        timeout = fault.timeout or ...
        if fault.name == "cancellation":
            return asyncio.run(self._cancelled(code))
        if self.random.random() < 0.3:
            return asyncio.run(self.executor.arun(code, timeout=timeout)).output
        return self.executor.run_code_raise_errors(code, timeout=timeout).output

    async def _cancelled(self, code: str) -> Any:
        task = asyncio.create_task(self.executor.arun(code))
        asyncio.get_running_loop().call_later(self.random.choice([0, 0.05, 0.3]), task.cancel)
        return (await task).output

    def _send_a_large_variable(self) -> None:
        """With a cut in the middle of it."""
        blob = self.random.randbytes(self.random.choice([1, 5]) << 20)
        self.counts.executions += 1
        self.counts.faults["cut while variables travel"] += 1
        how = self.random.choice(["fin", "reset"])
        self.proxied.proxy.cut_after(self.random.randrange(len(blob)), "gateway", how)
        self.executor.send_variables({"blob": blob})
        self.proxied.proxy.disarm()
        found = self.executor("import hashlib; hashlib.sha256(blob).hexdigest()").output
        if found != repr(hashlib.sha256(blob).hexdigest()):
            self.counts.losses.append(f"worker {self.seed}: a variable arrived changed")

    def _make(self, fault: Fault, number: int) -> None:
        """Make a fault once the step has begun, or at once where it is one of the connection."""
        self.counts.faults[fault.name] += 1
        kernel = 0
        if fault.errors:
            end = time.monotonic() + 60
            while not (kernel := self._kernel_of(number)) and time.monotonic() < end:
                # A cancelled one may never begin.
                if fault.name == "cancellation":
                    return
                time.sleep(0.01)
        fault.make(self, kernel)

    def _entries(self) -> list[list[str]]:
        with contextlib.suppress(FileNotFoundError):
            return [line.split() for line in self.ledger.read_text().splitlines()]
        return []

    def _began(self, number: int) -> int:
        return sum(entry[0] == str(number) for entry in self._entries())

    def _kernel_of(self, number: int) -> int:
        return next((int(entry[1]) for entry in self._entries() if entry[0] == str(number)), 0)


def cut(how: Any) -> Callable[[Worker, int], None]:
    def make(worker: Worker, _: int) -> None:
        toward = worker.random.choice(["client", "gateway"])
        worker.proxied.proxy.cut_after(worker.random.randrange(3000), toward, how)

    return make


def cut_often(worker: Worker, _: int) -> None:
    for _ in range(5):
        time.sleep(worker.random.random() / 20)
        worker.proxied.proxy.cut(worker.random.choice(["fin", "reset"]))


def refuse(worker: Worker, _: int) -> None:
    worker.proxied.proxy.refusing = True
    worker.proxied.proxy.cut("reset")
    time.sleep(0.3)
    worker.proxied.proxy.refusing = False


def delay(worker: Worker, _: int) -> None:
    worker.proxied.proxy.delay = worker.random.random() / 50


def throttle(worker: Worker, _: int) -> None:
    worker.proxied.proxy.rate = 500_000


def stop_the_gateway(worker: Worker, _: int) -> None:
    process_id = worker.proxied.sandbox.process_id
    os.kill(process_id, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(process_id, signal.SIGCONT)


def send(number: int) -> Callable[[Worker, int], None]:
    def make(_: Worker, kernel: int) -> None:
        if kernel:
            os.kill(kernel, number)

    return make


def nothing(_: Worker, __: int) -> None:
    """Happens."""


FAULTS = [
    Fault("fin", cut("fin")),
    Fault("reset", cut("reset")),
    Fault("silence", cut("silence")),
    Fault("cuts in a row", cut_often),
    Fault("refusal", refuse),
    Fault("delay", delay),
    Fault("throttle", throttle),
    Fault("stopped gateway", stop_the_gateway),
    Fault("killed kernel", send(signal.SIGKILL), (KernelDied,)),
    Fault("stopped kernel", send(signal.SIGSTOP), (ExecutionTimeout,), timeout=2.0),
    Fault("timeout", nothing, (ExecutionTimeout,), timeout=1.0),
    Fault("cancellation", nothing, (asyncio.CancelledError,)),
]


def soak(seconds: float, seed: int) -> Counts:
    """Run for so long, and look at what is left."""
    counts = Counts()
    before = present(PREFIX)
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        workers = [Worker(f"{seed}-{each}", counts, Path(directory), deadline) for each in range(WORKERS)]

        def run(worker: Worker) -> None:
            try:
                worker.run()
            except BaseException:  # noqa: BLE001 it is reported
                counts.losses.append(f"worker {worker.seed} ended: {traceback.format_exc()}")

        threads = [threading.Thread(target=run, args=(worker,)) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counts.leaks = left_since(before, PREFIX)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    counts = soak(arguments.seconds, arguments.seed)
    print(counts)
    return 0 if counts.clean else 1


if __name__ == "__main__":
    sys.exit(main())
