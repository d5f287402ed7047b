"""Variables that are on their way while the connection breaks."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import pytest

from fault_proxy import FaultProxy
from sandkernel.integrations.smolagents import KernelExecutor
from sandkernel.providers.endpoint import Endpoint
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fault_proxy import Cut, Toward

SIZE = 12 << 20
# A piece as it travels: 4 MiB in base64, and some.
PIECE = 6 << 20
BLOB = random.Random(1).randbytes(SIZE)


@pytest.fixture(scope="module")
def proxied() -> Iterator[tuple[FaultProxy, KernelExecutor]]:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with FaultProxy(int(endpoint.url.rpartition(":")[2])) as proxy:
            through = ProxiedSandbox(Endpoint(proxy.url, endpoint.token, endpoint.kernel_id))
            with KernelExecutor(
                through, timeout=60, install=False, session_options={"reconnect_timeout": 60}
            ) as executor:
                executor("import hashlib")
                yield proxy, executor


class ProxiedSandbox:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def terminate(self) -> None:
        """It is the fixture's to end."""


@pytest.mark.parametrize(
    ("toward", "position", "how"),
    [
        ("gateway", 100, "reset"),
        ("gateway", SIZE // 3, "fin"),
        ("gateway", SIZE // 2, "reset"),
        ("gateway", SIZE, "reset"),
        ("client", 1, "fin"),
        ("client", 2000, "reset"),
    ],
)
def test_variables_arrive_whole_across_a_cut(
    proxied: tuple[FaultProxy, KernelExecutor], toward: Toward, position: int, how: Cut
) -> None:
    proxy, executor = proxied
    progress: list[tuple[int, int]] = []
    before = proxy.passed["gateway"]
    proxy.cut_after(position, toward, how)
    executor.send_variables({"blob": BLOB}, on_progress=lambda *counts: progress.append(counts))
    assert proxy.disarm(), "the cut did not come about"
    # It goes on where it was: what the kernel had is not sent again.
    assert proxy.passed["gateway"] - before < SIZE * 4 / 3 + PIECE + (1 << 20)
    assert progress == sorted(progress)
    assert progress[-1][0] == progress[-1][1] >= SIZE
    expected = hashlib.sha256(BLOB).hexdigest()
    assert executor("hashlib.sha256(blob).hexdigest()").output == repr(expected)


def test_variables_arrive_on_a_slow_way() -> None:
    """A piece takes longer than a peer may stay silent, and each ping waits behind one."""
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with FaultProxy(int(endpoint.url.rpartition(":")[2])) as proxy:
            through = ProxiedSandbox(Endpoint(proxy.url, endpoint.token, endpoint.kernel_id))
            options = {"dead_peer_timeout": 1.0, "reconnect_timeout": 5.0}
            with KernelExecutor(through, timeout=60, install=False, session_options=options) as executor:
                executor("import hashlib")
                proxy.rate = 1_500_000
                executor.send_variables({"blob": BLOB[:PIECE]})
                expected = hashlib.sha256(BLOB[:PIECE]).hexdigest()
                assert executor("hashlib.sha256(blob).hexdigest()").output == repr(expected)
