"""Makes the modal package of this process use another server, for a while."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from modal.client import _Client

CLOSE_TIMEOUT = 10.0


@contextlib.contextmanager
def activated(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables and put modal's client aside; undo both at the end."""
    from modal.client import _Client  # noqa: PLC0415 it takes a third of a second, and not all who test need it

    former = {name: os.environ.get(name) for name in variables}
    owner = os.getpid()
    client = _Client._client_from_env  # noqa: SLF001 it has no public name
    os.environ.update(variables)
    _Client._client_from_env = None  # noqa: SLF001
    try:
        yield
    finally:
        # In a forked child the client stands still: its thread is the parent's.
        if os.getpid() == owner:
            _close_client(_Client)
        _Client._client_from_env = client  # noqa: SLF001
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _close_client(cls: type[_Client]) -> None:
    """Close the client that was made meanwhile, if there is one."""
    if cls._client_from_env is None:
        return
    from modal import Client  # noqa: PLC0415

    def close() -> None:
        # What modal keeps is the inner object; this wraps it, without making another. It has a `close()` only
        # in newer releases.
        Client.from_env().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    # In a thread, since modal's blocking calls complain in a running event loop.
    thread = threading.Thread(target=close, name="sandkernel-modal-close", daemon=True)
    thread.start()
    thread.join(CLOSE_TIMEOUT)
