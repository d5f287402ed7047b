"""The processes that the gateway starts, and its own end: none outlives it, and it outlives nobody."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterable, Iterator, List, NoReturn, Optional, Tuple

from sandkernel.gateway import removal
from sandkernel.gateway.confinement import Confinement, KernelStates

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# Seconds in which all processes are killed, and the looks at the newest one between two walks over all.
KILL_WITHIN, NEWEST_LOOKS = 1.5, 50
# Seconds in which a directory is emptied again and again.
REMOVE_WITHIN = 1.0


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


def descendants(ancestor: int, groups: Iterable[int] = ()) -> List[int]:
    """Living descendants of a process, and the members of some process groups with theirs."""
    rows = list(table())
    groups = frozenset(groups)
    found = {ancestor}
    size = 0
    while len(found) != size:
        size = len(found)
        found.update(row[0] for row in rows if row[1] in found or row[2] in groups)
    found.discard(ancestor)
    return [row[0] for row in rows if row[0] in found and not row[3].startswith("Z")]


def kill(process_ids: Iterable[int]) -> None:
    """Kill processes, as far as they are there and ours to kill."""
    for process_id in process_ids:
        with contextlib.suppress(OSError):
            os.kill(process_id, signal.SIGKILL)


def newest_descendants(ancestor: int) -> List[int]:
    """The process that the system started last, and its parent, where a child of `ancestor` is among them.

    A process that forks and ends at once, again and again, is gone before a walk over all processes gets to
    it. This look takes as long as such a process lives.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/loadavg", "rb") as file:
            found = [int(file.read().split()[4])]
        while len(found) <= 2:
            with open("/proc/%d/stat" % found[-1], "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
            if parent == ancestor:
                return found
            found.append(parent)
    return []


class Processes:
    """The kernels and whatever they start: none outlives us.

    Args:
        confinement: What confines the kernels and, where it did so already, us.
    """

    def __init__(self, confinement: Optional[Confinement] = None) -> None:
        self.process_id = os.getpid()
        self.confinement = confinement or Confinement()
        self.kernel_states = KernelStates(self.confinement)
        self.kernels: Dict[int, Any] = {}
        self.prctl: Any = None
        self.adopting = False
        # Set when a process of ours may have ended; by somebody who is told, or else always.
        self.news = threading.Event()
        self.news.set()
        self.is_told = False
        # Set before all are killed: nothing is started from then on.
        self.ending = False
        if sys.platform == "linux":
            with contextlib.suppress(Exception):
                import ctypes

                self.prctl = ctypes.CDLL(None, use_errno=True).prctl
                # Orphans become our children: so a walk over our descendants misses none.
                self.adopting = self.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def tie(self) -> None:
        """Confine a kernel's process, from inside and before its program, and have it end with us.

        So it is even if we are killed.
        """
        if self.ending:
            os._exit(1)
        if self.prctl is not None:
            self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self.process_id:
                os._exit(1)
        self.kernel_states.confine(self.process_id)

    def kill_all(self) -> None:
        """Kill all that we have started, and all that these have started.

        Where we are in a domain of our own, that is one step. Otherwise it is our descendants and, where
        orphans are not ours, the process groups of the kernels: they may start others meanwhile, and none is
        left where the system says that we have no child any more.
        The event loop goes on meanwhile; without `ending`, it would start the killed kernels anew.
        """
        self.ending = True
        are_all_killed = self.confinement.kill_inside()
        groups = () if self.adopting else tuple(self.kernels)
        end = time.monotonic() + KILL_WITHIN
        while time.monotonic() < end:
            remaining = [] if are_all_killed else descendants(self.process_id, groups)
            kill(remaining)
            if not (self.reap_all() if self.adopting else remaining):
                return
            if are_all_killed:
                time.sleep(0.001)
                continue
            for _ in range(NEWEST_LOOKS):
                kill(newest_descendants(self.process_id))

    @staticmethod
    def reap_all() -> bool:
        """Wait for all children that have ended; return whether there are others."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return False
        return True

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
            for process_id, parent, _, state in list(table()):
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
        """Remove directories of ours, also where the event loop makes a file in them meanwhile."""
        os.chdir("/")
        end = time.monotonic() + REMOVE_WITHIN
        for name in names:
            directory = self.configuration.get(name)
            while directory and os.path.lexists(directory):
                removal.remove_tree(directory)
                if time.monotonic() > end:
                    break
