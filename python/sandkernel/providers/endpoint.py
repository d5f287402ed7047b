"""The address of a gateway and what opens it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """How to reach a kernel gateway.

    Attributes:
        url: Its base address, `http://` or `https://`.
        token: What authenticates us with it; travels in a header only, and is in no `repr`.
        kernel_id: A kernel that is already there, or on its way; `None`: create one.
        ca_certificates: Path of a PEM file with certificate authorities to trust beside the platform's.
    """

    url: str
    token: str = field(repr=False)
    kernel_id: str | None = None
    ca_certificates: str | None = None
