"""The certificate authority of one local control plane, and the bundles that make a client trust it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

if TYPE_CHECKING:
    from collections.abc import Sequence


class Certificates:
    """A certificate authority made for one control plane, and gone with it.

    Attributes:
        authority: PEM file with this authority's certificate alone.
        bundle: PEM file with this authority's certificate and the roots that are trusted anyway, so that a
            process that uses it in place of its own still reaches the rest of the world.
    """

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA(organization_name="sandkernel local control plane")
        self.authority = directory / "ca.pem"
        self.bundle = directory / "ca-bundle.pem"
        own = self._authority.cert_pem.bytes()
        self.authority.write_bytes(own)
        self.bundle.write_bytes(own + _trusted_roots())

    def server_context(self, names: Sequence[str]) -> ssl.SSLContext:
        """Make the TLS configuration of a server that is known under `names` (host names or IP addresses)."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # What a tunnel leads to is an HTTP/1.1 server; without this a client might insist on HTTP/2.
        context.set_alpn_protocols(["http/1.1"])
        self._authority.issue_cert(*names).configure_cert(context)
        return context


def _trusted_roots() -> bytes:
    try:
        import certifi  # noqa: PLC0415 it comes with modal, but nothing here depends on it
    except ImportError:
        system = ssl.get_default_verify_paths().cafile
        return Path(system).read_bytes() if system else b""
    return Path(certifi.where()).read_bytes()
