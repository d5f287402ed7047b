"""The command that a sandbox runs: our program, in an image that has nothing of ours."""

from __future__ import annotations

import base64
import functools
import json
import zlib

from sandkernel.gateway.program import program
from sandkernel.providers.modal.code import code_alone

__all__ = ["command"]

# An image may have `python`, `python3` or both; in that order, as `jupyter` mostly belongs to the first.
FIND_PYTHON = (
    'for python in python python3; do command -v "$python" >/dev/null 2>&1 && exec "$python" "$@"; done; '
    'echo "sandkernel: the image has no python" >&2; exit 127'
)

# Modal allows 65,536 bytes for all arguments together: compressed and without comments, we need
# less than half of it. What lies in the
# working directory of the image must not stand in for modules of the standard library.
LOAD = (
    "import sys; sys.path[0] or sys.path.pop(0); import base64, zlib; "
    "exec(compile(zlib.decompress(base64.b85decode(sys.argv.pop(1))), 'gateway.py', 'exec'))"
)


@functools.cache
def _source() -> str:
    return base64.b85encode(zlib.compress(program(code_alone).encode(), 9)).decode()


def command(port: int, kernel_id: str) -> list[str]:
    """Return the entrypoint; everyone who can see the sandbox can see it, so no secret is in it.

    Args:
        port: The port in the sandbox to listen on.
        kernel_id: The kernel to start beside the gateway.
    """
    configuration = {"ip": "0.0.0.0", "port": port, "kernel_id": kernel_id}  # noqa: S104 the tunnel's end
    return ["sh", "-c", FIND_PYTHON, "sh", "-c", LOAD, _source(), json.dumps(configuration)]
