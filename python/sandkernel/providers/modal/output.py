"""What a sandbox wrote before it ended, and what that says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

__all__ = ["explain", "last_output"]

OUTPUT_LIMIT = 64 << 10


async def last_output(sandbox: Any, seconds: float, secret: str) -> str:  # noqa: ANN401 a modal.Sandbox
    """Return the end of what a sandbox wrote to stdout and stderr, at most 64 KiB of each.

    Args:
        sandbox: The `modal.Sandbox`, running or not.
        seconds: How long to read, where it does not end.
        secret: A text that is not to be in it.
    """
    texts = await asyncio.gather(_tail(sandbox.stdout, seconds), _tail(sandbox.stderr, seconds))
    return "\n".join(text.rstrip() for text in texts if text.strip()).replace(secret, "***")


async def _tail(stream: Any, seconds: float) -> str:  # noqa: ANN401 a modal.io_streams.StreamReader
    text = ""

    async def read() -> None:
        nonlocal text
        async for line in stream:
            text = (text + str(line))[-OUTPUT_LIMIT:]

    # Whatever goes wrong here, something worse is being reported.
    with contextlib.suppress(Exception):
        await asyncio.wait_for(read(), seconds)
    return text


def explain(output: str) -> str:
    """Return what to do about an entrypoint that ended, as far as its output tells."""
    packages = '.uv_pip_install("jupyter_kernel_gateway", "ipykernel")'
    if "sandkernel: the image has no python" in output:
        return (
            f"The image has no python: take one that has, such as modal.Image.debian_slim(), with {packages}"
        )
    for line in output.splitlines():
        with contextlib.suppress(ValueError, AttributeError):
            report = json.loads(line)
            if isinstance(report.get("missing"), str):
                return f"The image has no module {report['missing'][:100]!r}: add {packages} to it"
            if isinstance(report.get("error"), str):
                return f"The gateway did not start: {report['error'][:1000]}"
    return f"If the image lacks the gateway, add {packages} to it"
