"""Ends the sandboxes of a control plane whose process was killed.

Run as a script with a prefix of sandbox ids and a directory. It waits for the end of its standard input,
which comes when the process that started it is gone, however it went; then it kills the processes of those
sandboxes and removes the directory. After an orderly end it finds nothing to do. It imports little, and
starts fast.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator


def main() -> None:
    """Wait, then clean up."""
    prefix, directory = sys.argv[1:]
    # A Ctrl-C in the terminal is meant for the program; this one goes last.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.buffer.read()
    marker = f"MODAL_SANDBOX_ID={prefix}".encode()
    for _ in range(100):
        victims = [pid for pid, environment in _environments() if marker in environment]
        if not victims:
            break
        for pid in victims:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    # No directory of packages is on the path: the one that this file lies in is added.
    sys.path.append(__file__.rpartition("/sandkernel/")[0])
    from sandkernel.gateway.removal import remove_tree  # noqa: PLC0415

    remove_tree(directory)


def _environments() -> Iterator[tuple[int, bytes]]:
    if os.path.isdir("/proc/self"):  # noqa: PTH112 pathlib would double the start-up time
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdigit() and int(name) != os.getpid():
                with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:  # noqa: PTH123
                    yield int(name), file.read()
        return
    listing = subprocess.run(["/bin/ps", "-axEww", "-o", "pid=,command="], capture_output=True, check=False)
    for line in listing.stdout.splitlines():
        pid, _, rest = line.strip().partition(b" ")
        if pid.isdigit() and int(pid) != os.getpid():
            yield int(pid), rest


if __name__ == "__main__":
    main()
