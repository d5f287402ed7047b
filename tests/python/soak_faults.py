"""The faults that are made while a step of the soak runs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandkernel.exceptions import ExecutionTimeout, KernelDied, SandboxGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from soak_worker import Worker


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


def cut(how: Any) -> Callable[[Worker, int], None]:
    def make(worker: Worker, _: int) -> None:
        toward = worker.faults_random.choice(["client", "gateway"])
        worker.proxied.proxy.cut_after(worker.faults_random.randrange(3000), toward, how)

    return make


def cut_often(worker: Worker, _: int) -> None:
    for _ in range(5):
        time.sleep(worker.faults_random.random() / 20)
        worker.proxied.proxy.cut(worker.faults_random.choice(["fin", "reset"]))


def refuse(worker: Worker, _: int) -> None:
    worker.proxied.proxy.refusing = True
    worker.proxied.proxy.cut("reset")
    time.sleep(0.3)
    worker.proxied.proxy.refusing = False


def delay(worker: Worker, _: int) -> None:
    worker.proxied.proxy.delay = worker.faults_random.random() / 50


def throttle(worker: Worker, _: int) -> None:
    worker.proxied.proxy.rate = 500_000


def stop_the_gateway(worker: Worker, _: int) -> None:
    proxied = worker.proxied
    # After a killed one the next may not be booted yet.
    if not proxied.terminated:
        os.kill(proxied.sandbox.process_id, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(proxied.sandbox.process_id, signal.SIGCONT)


def kill_the_gateway(worker: Worker, kernel: int) -> None:
    if kernel:
        os.kill(worker.proxied.sandbox.process_id, signal.SIGKILL)


def press_ctrl_c(_: Worker, kernel: int) -> None:
    if kernel:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


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
    Fault("killed gateway", kill_the_gateway, (SandboxGone,)),
    Fault("stopped kernel", send(signal.SIGSTOP), (ExecutionTimeout,), timeout=2.0),
    Fault("timeout", nothing, (ExecutionTimeout,), timeout=1.0),
    Fault("cancellation", nothing, (asyncio.CancelledError,)),
]
# Python runs signal handlers in the main thread.
IN_MAIN_THREAD = Fault("Ctrl-C", press_ctrl_c, (KeyboardInterrupt,))
