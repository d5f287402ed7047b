"""Confines processes by Landlock's scopes, which Linux has from version 6.12 on, and ends what is confined.

A process that enters a domain stays in it for good, with all that it starts, whatever becomes of their
parents, sessions and environments. It can send no signal to a process outside of the domain, can't read or
write the memory, environment or descriptors of one, and can't connect to an abstract unix socket of one.
Files are not concerned. A process that ends the others of its domain is confined likewise: its `kill(-1)` is
bounded by the domain, and reaches each of them in one step of the system's, in which none can fork.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, List

ON = "on"
# The numbers of the calls are the same on all architectures that Landlock's scopes were tried on.
CREATE_RULESET, RESTRICT_SELF = 444, 446
VERSION_OF_ABI = 1
# Abstract unix sockets and signals; in a ruleset they stand behind the rights to files and to ports.
SCOPES = (1 << 0) | (1 << 1)
NEEDED_ABI, ABI_WITH_LOGS = 6, 7
# Refusals of this process itself are no news to the system's log: `kill(-1)` asks for each process there is.
NO_LOGS = 1
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24
# With one of these, which root has, the environment of any process can be read past Landlock.
CAP_SYS_ADMIN, CAP_PERFMON = 21, 38


class Confinement:
    """Confines this process, or a child of it before its program.

    Attributes:
        state: `"on"`, or `"off: "` and why no process can be confined.
    """

    def __init__(self) -> None:
        self.is_inside = False
        self.descriptor = self.flags = 0
        self.library: Any = None
        try:
            self.descriptor = self.create_ruleset()
            self.state = ON
        except Exception as error:
            self.state = "off: %s" % (error,)

    def create_ruleset(self) -> int:
        """Describe the domain.

        Returns:
            A descriptor, which no program that is started inherits.
        """
        if sys.platform != "linux":
            raise OSError("Landlock is a part of Linux")
        import ctypes

        self.library = ctypes.CDLL(None, use_errno=True)
        try:
            version = self.call(CREATE_RULESET, None, 0, VERSION_OF_ABI)
        except OSError as error:
            raise OSError("this system has no Landlock (%s)" % error.strerror) from None
        if version < NEEDED_ABI:
            raise OSError(
                "this system's Landlock has version %d of its interface, and signals are confined from "
                "version %d on, of Linux 6.12" % (version, NEEDED_ABI)
            )
        self.flags = NO_LOGS if version >= ABI_WITH_LOGS else 0
        attributes = (ctypes.c_uint64 * 3)(0, 0, SCOPES)
        return self.call(CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)

    def call(self, number: int, *arguments: Any) -> int:
        """Make a call of the system's that its library has no name for."""
        import ctypes

        given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
        result: int = self.library.syscall(ctypes.c_long(number), *given)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def enter(self, outside: int, flags: int = 0) -> str:
        """Confine this thread, the only one of its process, and whatever it starts from now on.

        Args:
            outside: The id of a process that stays outside, is there, and may be sent signals by now.
            flags: Of the system's call.

        Returns:
            `"on"` where a signal to that process is refused from now on; otherwise `"off: "` and why.
        """
        if self.state != ON:
            return self.state
        try:
            os.kill(outside, 0)
            # The system asks for this. So no setuid program changes whom the domain's processes belong to.
            if self.library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
                raise OSError("the system refuses to take privileges from the process")
            for capability in (CAP_SYS_ADMIN, CAP_PERFMON):
                # Of the programs that are started from now on. A user other than root has none to give up.
                self.library.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
            self.call(RESTRICT_SELF, self.descriptor, flags)
        except OSError as error:
            return "off: Landlock takes no further domain here (%s)" % (error.strerror or error)
        try:
            os.kill(outside, 0)
        except PermissionError:
            return ON
        return "off: Landlock does not confine signals here"

    def enter_for_good(self, outside: int) -> str:
        """Confine this process, so that it can end all that it starts by `kill_inside`."""
        state = self.enter(outside, self.flags)
        self.is_inside = state == ON
        return state

    def kill_inside(self) -> bool:
        """Kill each other process of the domain that this process has entered; return whether it is in one.

        None escapes by forking: the system lets no process fork that has this signal before it.
        """
        # Without a domain it would reach all processes of the user's.
        if self.is_inside:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        return self.is_inside


class KernelStates:
    """Whether the kernels that were started are confined, as each of them tells before its program begins."""

    def __init__(self, confinement: Confinement) -> None:
        self.confinement = confinement
        self.told: List[str] = []
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        os.set_blocking(self.writing, False)

    def confine(self, outside: int) -> None:
        """Confine this process, a kernel's before its program."""
        state = self.confinement.enter(outside)
        with contextlib.suppress(OSError):
            os.write(self.writing, state.encode() + b"\n")

    def state(self) -> str:
        """Return `"on"` where all kernels so far are confined; otherwise `"off: "` and why one is not.

        The log is told of each reason once.
        """
        with contextlib.suppress(OSError):
            for line in os.read(self.reading, 1 << 16).decode(errors="replace").splitlines():
                if line not in self.told:
                    self.told.append(line)
                    if line != ON:
                        print("bootstrap: a kernel is not confined: %s" % line, file=sys.stderr)
        if not self.told:
            return self.confinement.state
        return next((line for line in self.told if line != ON), ON)
