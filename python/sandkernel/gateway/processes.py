"""The processes that the gateway starts, and its own end: none outlives it, and it outlives nobody."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, NoReturn, Tuple

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Processes:
    """The kernels and whatever they start: none outlives us."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.kernels: Dict[int, Any] = {}
        self.prctl: Any = None
        self.adopting = False
        # Set when a process of ours may have ended; by somebody who is told, or else always.
        self.news = threading.Event()
        self.news.set()
        self.is_told = False
        if sys.platform == "linux":
            with contextlib.suppress(Exception):
                import ctypes

                self.prctl = ctypes.CDLL(None, use_errno=True).prctl
                # Orphans become our children: so a walk over our descendants misses none.
                self.adopting = self.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def tie(self) -> None:
        """Make a kernel's process, from inside and before its program, end with us even if we are killed."""
        if self.prctl is not None:
            self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self.process_id:
                os._exit(1)

    @staticmethod
    def table() -> Iterator[Tuple[int, int, int, str]]:
        """Process id, parent, process group and state of every process."""
        if os.path.isdir("/proc/self"):
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    with contextlib.suppress(OSError, ValueError, IndexError):
                        with open("/proc/" + entry + "/stat", "rb") as file:
                            # The command's name stands in parentheses before these, and may hold anything.
                            fields = file.read().rpartition(b")")[2].split()
                        yield int(entry), int(fields[1]), int(fields[2]), fields[0].decode()
        else:
            command = ["ps", "-A", "-o", "pid=,ppid=,pgid=,state="]
            listing = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
            for row in listing.decode(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    process_id, parent, group, state = row.split(None, 3)
                    yield int(process_id), int(parent), int(group), state

    def descendants(self) -> List[int]:
        """Our living descendants and, where orphans are not ours, the process groups of the kernels."""
        rows = list(self.table())
        groups = () if self.adopting else tuple(self.kernels)
        found = {self.process_id}
        size = 0
        while len(found) != size:
            size = len(found)
            found.update(row[0] for row in rows if row[1] in found or row[2] in groups)
        found.discard(self.process_id)
        return [row[0] for row in rows if row[0] in found and not row[3].startswith("Z")]

    def kill_all(self, seconds: float = 1.5) -> None:
        """Kill them until none is left: they may start others meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            remaining = self.descendants()
            if not remaining:
                return
            for process_id in remaining:
                with contextlib.suppress(OSError):
                    os.kill(process_id, signal.SIGKILL)
            time.sleep(0.005)

    def reap_orphans(self) -> None:
        """Wait for orphans that ended; a kernel that ended is its manager's to notice."""
        if not self.news.is_set():
            return
        if self.is_told:
            self.news.clear()
        for process_id, process in list(self.kernels.items()):
            if process.returncode is not None:
                del self.kernels[process_id]
        if self.adopting:
            for process_id, parent, _, state in list(self.table()):
                if parent == self.process_id and state == "Z" and process_id not in self.kernels:
                    with contextlib.suppress(OSError):
                        os.waitpid(process_id, os.WNOHANG)


class Watcher(threading.Thread):
    """Ends us when our starter says so or is gone, whatever the event loop is busy with."""

    def __init__(self, configuration: Dict[str, Any], processes: Processes) -> None:
        super().__init__(name="watcher", daemon=True)
        self.parent = configuration.get("parent")
        self.configuration = configuration
        self.log_limit = configuration.get("log_limit") or 0
        self.processes = processes
        self.lock = threading.Lock()

    def run(self) -> None:
        """Watch until it is time to end."""
        poll = select.poll()
        if self.parent:
            poll.register(0, select.POLLIN | select.POLLHUP)
            # A fork of our parent may hold the other end of stdin open: watch the parent itself too.
            with contextlib.suppress(AttributeError, OSError):
                poll.register(os.pidfd_open(self.parent), select.POLLIN)
        while True:
            ready = poll.poll(500)
            if self.parent and (ready or os.getppid() != self.parent):
                self.end()
            self.processes.reap_orphans()
            with contextlib.suppress(OSError):
                if self.log_limit and os.fstat(2).st_size > self.log_limit:
                    os.ftruncate(2, 0)

    def end(self, *_: Any) -> NoReturn:
        """Take everything down, this process last."""
        if self.lock.acquire(blocking=False):
            try:
                self.processes.kill_all()
                self.remove("root", "runtime")
            finally:
                os._exit(0)
        while True:
            time.sleep(1)

    def fail(self) -> None:
        """Take everything else down; our starter, if still there, wants to read the log in the root."""
        self.processes.kill_all()
        gone = self.parent and os.getppid() != self.parent
        self.remove(*(("root", "runtime") if gone else ("runtime",)))

    def remove(self, *names: str) -> None:
        """Remove directories of ours."""
        os.chdir("/")
        for name in names:
            if self.configuration.get(name):
                shutil.rmtree(self.configuration[name], ignore_errors=True)
