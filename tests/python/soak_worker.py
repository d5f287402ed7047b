"""One executor under random faults."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import threading
import time
import traceback
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from smolagents import tool

from fault_proxy import FaultProxy
from sandkernel.integrations.smolagents import KernelExecutor
from sandkernel.providers.endpoint import Endpoint
from sandkernel.providers.local import LocalSandbox
from soak_faults import FAULTS, IN_MAIN_THREAD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandkernel import Execution
    from sandkernel.exceptions import SandboxGone
    from soak_faults import Fault

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
        self.terminated = False

    def watch(self, on_end: Callable[[], object]) -> None:
        self.sandbox.watch(on_end)

    def exit_error(self, execution: Execution | None) -> SandboxGone | None:
        return self.sandbox.exit_error(execution)

    def terminate(self) -> None:
        self.terminated = True
        self.sandbox.terminate()
        self.proxy.close()


class Worker:
    """One executor, and one thread that uses it."""

    def __init__(self, seed: str, counts: Counts, directory: Path, deadline: float, steps: float) -> None:
        self.random = random.Random(seed)
        # What makes the faults chooses in another thread, at any time between.
        self.faults_random = random.Random(f"faults of {seed}")
        self.counts = counts
        self.deadline = deadline
        self.steps = steps
        self.seed = seed
        self.ledger = directory / f"ledger-{seed}"
        self.proxied: Proxied
        self.number = 0
        self.history: deque[str] = deque(maxlen=5)

    def _boot(self) -> Proxied:
        self.proxied = Proxied()
        return self.proxied

    def run(self) -> None:
        faults = [*FAULTS]
        if threading.current_thread() is threading.main_thread():
            faults.append(IN_MAIN_THREAD)
        options = {"dead_peer_timeout": 1.0, "reconnect_timeout": 60.0, "interrupt_grace": 0.5}
        with KernelExecutor(
            self._boot, timeout=60, install=False, auto_reboot=True, session_options=options
        ) as executor:
            self.executor = executor
            executor.send_variables({"sent": self.seed})
            executor.send_tools({"double": double})
            while time.monotonic() < self.deadline and self.steps > 0:
                self.steps -= 1
                if self.random.random() < 0.1:
                    self._send_a_large_variable()
                else:
                    self._step(self.random.choice(faults))

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
        over = threading.Event()
        maker = threading.Thread(target=self._make, args=(fault, number, over))
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
            over.set()
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

    def _make(self, fault: Fault, number: int, over: threading.Event) -> None:
        """Make a fault once the step has begun, or at once where it is one of the connection."""
        self.counts.faults[fault.name] += 1
        kernel = 0
        if fault.errors:
            # One that is cancelled, or whose time is over, may never begin.
            while not (kernel := self._kernel_of(number)) and not over.is_set():
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
