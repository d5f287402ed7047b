"""Where a tunnel listens, such that unmodified clients reach it by `https://{tunnel.host}/`, without a port.

A tunnel of Modal's is reached by its host name on port 443. Names of one's own resolve only with help from
the system (`*.localhost` doesn't, where glibc's resolver is used without systemd's), but on Linux all of
127.0.0.0/8 is this machine: each tunnel gets an address of its own there, which stands in for its host name
and in its certificate. Port 443 needs root, or `net.ipv4.ip_unprivileged_port_start` of 443 or less, as in
most containers. Elsewhere, and on macOS, the text of the host holds a port as well, `127.0.0.1:43210`, and
that works wherever it becomes part of a URL.
"""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from typing import Literal

HTTPS = 443
ATTEMPTS = 16

Addressing = Literal["auto", "address", "port"]
"""How tunnels differ: by a loopback address each, on port 443, or by a port of 127.0.0.1; or what works
best."""

_random = random.SystemRandom()


@dataclass(frozen=True)
class Address:
    """A bound socket that does not listen yet, so that connecting to it is refused.

    Attributes:
        host: What the SDK shows as `tunnel.host`.
        port: What it shows as `tunnel.port`.
        name: What the certificate speaks for.
    """

    socket: socket.socket
    host: str
    port: int
    name: str


def reserve(addressing: Addressing = "auto") -> Address:
    """Reserve an address for a tunnel with TLS.

    Raises:
        OSError: `addressing` is `"address"`, and this process may not bind port 443.
    """
    if addressing != "port":
        try:
            return _own_address()
        except OSError:
            if addressing == "address":
                raise
    bound = bind("127.0.0.1", 0)
    return Address(bound, f"127.0.0.1:{bound.getsockname()[1]}", HTTPS, "127.0.0.1")


def reserve_plain() -> Address:
    """Reserve an address for an unencrypted tunnel, whose port is any."""
    bound = bind("127.0.0.1", 0)
    return Address(bound, "127.0.0.1", bound.getsockname()[1], "127.0.0.1")


def _own_address() -> Address:
    for attempt in range(ATTEMPTS):
        host = f"127.{_random.randint(64, 254)}.{_random.randint(0, 255)}.{_random.randint(1, 254)}"
        try:
            return Address(bind(host, HTTPS), host, HTTPS, host)
        except PermissionError:
            raise
        except OSError:
            # Taken, perhaps by another control plane. Or there is one loopback address only, as on macOS.
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def bind(host: str, port: int) -> socket.socket:
    """Make a socket that is bound and does not listen yet."""
    # With the protocol named: asyncio switches Nagle's algorithm off only where it sees that it is TCP.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    bound.setblocking(False)  # noqa: FBT003
    return bound


def free_port() -> int:
    """Find a port that a sandbox may listen on.

    It is taken from below the range out of which the system gives ports to outgoing connections and to
    sockets bound to port 0, so that none of those takes it between now and then.
    """
    for _ in range(1000):
        port = _random.randint(12_000, 30_000)
        try:
            bind("0.0.0.0", port).close()  # noqa: S104 what a gateway in a sandbox binds as well
        except OSError:
            continue
        return port
    raise OSError("no free port found between 12000 and 30000")
