"""The process above the gateway's: where the gateway is killed, it ends what the gateway would have ended.

It is the program itself before it becomes a gateway, and forks the gateway off. It waits for its starter's
end, for its starter's word, and for the gateway's end; then it ends everything that was started, and itself
as the gateway ended. The gateway does the same where this process is gone. So one of the two may be killed,
or stopped, or run out of memory, and nothing is left. Code that is confined can send a signal to neither.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import Any, Dict, Optional

from sandkernel.gateway.confinement import Confinement
from sandkernel.gateway.processes import Processes, Watcher


def supervise(configuration: Dict[str, Any], descriptor: int) -> Optional[Processes]:
    """Fork the gateway's process off, and watch over it from this one.

    Args:
        configuration: The program's; in the gateway's process it is changed to name this one as the parent.
        descriptor: What the gateway's process tells our starter by.

    Returns:
        In the gateway's process, what it is to start its kernels with. In this one it does not return.
    """
    # Before any thread is there: it would stay outside.
    confinement = Confinement()
    confinement.enter_for_good(configuration["parent"])
    reading, writing = os.pipe()
    supervisor = os.getpid()
    gateway = os.fork()
    if gateway == 0:
        # Its own session: a signal to the group of the one process does not reach the other.
        os.setsid()
        # As we have it of our starter: its stdin ends when we are gone.
        os.dup2(reading, 0)
        os.close(reading)
        os.close(writing)
        configuration["parent"] = supervisor
        # A domain of its own inside of ours: it ends what it started, and not us.
        confinement.enter_for_good(supervisor)
        return Processes(confinement)
    os.close(reading)
    os.close(descriptor)
    Supervisor(configuration, Processes(confinement), gateway).run()
    return None


class Supervisor:
    """Watches over a gateway's process."""

    def __init__(self, configuration: Dict[str, Any], processes: Processes, gateway: int) -> None:
        self.gateway = gateway
        self.parent: int = configuration["parent"]
        self.processes = processes
        self.watcher = Watcher(configuration, processes)
        self.status: Optional[int] = None

    def run(self) -> None:
        """Wait for an end, and bring about the others."""
        try:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit())
            # The code may lower the limits of any process of its user.
            signal.signal(signal.SIGXCPU, signal.SIG_IGN)
            self.wait()
        finally:
            self.end()

    def wait(self) -> None:
        """Wait until the gateway has ended, or is to."""
        poll = select.poll()
        poll.register(0, select.POLLIN | select.POLLHUP)
        waiting: Optional[int] = None
        try:
            # A fork of our starter may hold the other end of stdin open: watch the starter itself, too.
            for process_id in (self.parent, self.gateway):
                poll.register(os.pidfd_open(process_id), select.POLLIN)
        except (AttributeError, OSError):
            waiting = 500
        while not self.has_ended() and os.getppid() == self.parent:
            if any(descriptor == 0 for descriptor, _ in poll.poll(waiting)):
                return

    def has_ended(self) -> bool:
        """Whether the gateway has ended by itself."""
        process_id, status = os.waitpid(self.gateway, os.WNOHANG)
        if process_id:
            self.status = status
        return process_id != 0

    def end(self) -> None:
        """End everything, this process last, and like the gateway."""
        status = self.status or 0
        try:
            # First, and with as little as possible: the code may have had our limits lowered.
            self.processes.kill_all()
            # Now, whoever is there: our starter may be killed next. It has the log open.
            self.watcher.remove("root", "runtime")
        finally:
            with contextlib.suppress(Exception):
                if os.WIFSIGNALED(status):
                    import resource

                    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                    with contextlib.suppress(OSError):
                        # SIGKILL has no handler to reset.
                        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
                    os.kill(os.getpid(), os.WTERMSIG(status))
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
