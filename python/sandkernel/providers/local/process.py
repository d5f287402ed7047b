"""The process of a local gateway: started, read from, and taken down with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sandkernel.concurrency.cancellation import Cancellation
from sandkernel.exceptions import BootError, ClosedError, ForkError
from sandkernel.gateway.program import program
from sandkernel.gateway.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["MARKER", "GatewayProcess"]

MARKER = "SANDKERNEL_SANDBOX"
"""The variable in every kernel's environment that says which sandbox it belongs to."""

LOG_LIMIT = 1 << 20
OUTPUT_LIMIT = 64 << 10
GRACE = 2.0


class GatewayProcess:
    """A process that runs the bootstrap in a session of its own, and the directory that it owns.

    On Linux it forks the gateway off, and watches over it.

    Args:
        python: The interpreter that has the gateway.
        root: A directory of ours, removed when the process is terminated.
    """

    def __init__(self, python: str, root: Path) -> None:
        self.root = root
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._terminated = False
        self._output = ""
        # Open, so that it can be read when the gateway's end has taken the directory away.
        self._log: BinaryIO | None = None
        self._log_lock = threading.Lock()
        self._gateway = 0
        self._popen: subprocess.Popen[bytes] | None = None
        self._python = python

    @property
    def process_id(self) -> int:
        """The gateway's process id; 0 before it serves."""
        return self._gateway

    @property
    def terminated(self) -> bool:
        """Whether it was taken down."""
        return self._terminated

    def require_owned(self) -> None:
        """Raise unless it is there and this process's own.

        Raises:
            ClosedError: It was terminated.
            ForkError: It belongs to the process that this one was forked off.
        """
        if os.getpid() != self._owner:
            raise ForkError("a sandbox can't be used in a forked child: make a new one there")
        if self._terminated:
            raise ClosedError("the sandbox was terminated: make a new one")

    def start(
        self, configuration: Mapping[str, Any], environ: Mapping[str, str], deadline: float
    ) -> dict[str, Any]:
        """Start the process and wait for its report.

        Args:
            configuration: The bootstrap's configuration; the token goes this way, and by stdin, only.
            environ: The environment of the process, before the configuration's changes to it.
            deadline: When to give up, in `time.monotonic()` seconds.

        Returns:
            What the bootstrap reported.

        Raises:
            BootError: It ended, or did not report in time.
        """
        script = self.root / "gateway.py"
        script.write_text(program(), encoding="utf-8")
        with (self.root / "gateway.log").open("ab") as log:
            self._log = (self.root / "gateway.log").open("rb")
            self._popen = subprocess.Popen(
                [self._python, str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self.root,
                # With the marker, it is found even where nobody is left who has started it.
                env={**environ, MARKER: str(self.root)},
                start_new_session=True,
            )
        message = {**configuration, "root": str(self.root), "parent": self._owner, "log_limit": LOG_LIMIT}
        assert self._popen.stdin is not None  # noqa: S101 it is a pipe
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.write(json.dumps(message).encode() + b"\n")
            self._popen.stdin.flush()
        # Not by SIGKILL: it has a gateway to end.
        with Cancellation.following(self._popen.terminate):
            report = self._read_report(deadline)
        self._gateway = report["process_id"]
        return report

    def _read_report(self, deadline: float) -> dict[str, Any]:
        assert self._popen is not None  # noqa: S101
        assert self._popen.stdout is not None  # noqa: S101
        with self._popen.stdout as pipe:
            received = b""
            while not received.endswith(b"\n"):
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise BootError("the local gateway was not ready in time: raise boot_timeout")
                poll = select.poll()
                poll.register(pipe, select.POLLIN | select.POLLHUP)
                if poll.poll(remaining * 1000):
                    piece = os.read(pipe.fileno(), 65536)
                    if not piece:
                        break
                    received += piece
        Cancellation.check()
        report: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            report = json.loads(received)
        if "port" in report:
            return report
        # So that its last words are all there.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(GRACE)
        if report.get("missing"):
            raise BootError(
                f"the local gateway can't start, {self._python} has no module {report['missing']!r}: "
                "pip install 'sandkernel[local]'"
            )
        reason = report.get("error") or f"it ended with exit status {self._popen.returncode}"
        raise BootError(f"the local gateway did not start: {reason}")

    def ended_with(self) -> int | None:
        """The exit status, or the negative number of the signal, of a process that ended by itself."""
        if self._popen is None or self._terminated or os.getpid() != self._owner:
            return None
        return self._popen.poll()

    def watch(self, on_end: Callable[[], object]) -> None:
        """Have a function called, in a thread, when the process ends."""
        popen = self._popen

        def wait() -> None:
            if popen is not None:
                popen.wait()
                on_end()

        threading.Thread(target=wait, name="sandkernel-watch", daemon=True).start()

    def output(self) -> str:
        """The last output of the gateway and of what its kernels wrote past their streams: at most 64 KiB."""
        with self._log_lock, contextlib.suppress(OSError):
            if self._log is not None:
                # At a place, since a forked child has the same position.
                start = max(0, os.fstat(self._log.fileno()).st_size - OUTPUT_LIMIT)
                self._output = os.pread(self._log.fileno(), OUTPUT_LIMIT, start).decode(errors="replace")
        return self._output

    def terminate(self) -> None:
        """Take everything down, within some 4 seconds at worst. In a forked child: nothing."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if self._terminated:
                return
            if self._popen is not None:
                self._end(self._popen)
            self.output()
            with self._log_lock:
                if self._log is not None:
                    self._log.close()
                    self._log = None
            self._terminated = True
            remove_tree(str(self.root))

    def _end(self, popen: subprocess.Popen[bytes]) -> None:
        """Ask the process to end, then make it; what it left behind goes too."""
        assert popen.stdin is not None  # noqa: S101
        with contextlib.suppress(OSError, ValueError):
            # It ends its kernels' processes better than we can, also where somebody has stopped it.
            popen.send_signal(signal.SIGCONT)
            popen.stdin.write(b"\n")
        with contextlib.suppress(OSError):
            popen.stdin.close()
        try:
            popen.wait(GRACE)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        if popen.returncode != 0:
            self._sweep()

    def _sweep(self) -> None:
        """End what is left of a sandbox whose first process was killed (Linux)."""
        end = time.monotonic() + GRACE
        # The gateway ends the others better than we can; where it is gone, nobody else does.
        while self._gateway in (found := self._marked()) and time.monotonic() < end:
            with contextlib.suppress(OSError):
                os.kill(self._gateway, signal.SIGCONT)
            time.sleep(0.01)
        end = time.monotonic() + GRACE
        while found and time.monotonic() < end:
            for process_id in found:
                with contextlib.suppress(OSError):
                    os.kill(process_id, signal.SIGKILL)
            time.sleep(0.01)
            found = self._marked()

    def _marked(self) -> list[int]:
        """The processes that have the sandbox's marker in their environment (Linux)."""
        marker = f"{MARKER}={self.root}".encode()
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if marker in environment.read_bytes().split(b"\0"):
                    found.append(int(environment.parent.name))
        return found
