"""An executor on a gateway that already runs, as its own command starts it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from smolagents import FinalAnswerTool, Tool

from executor_support import StockGateway, recording_proxy, running_gateway, status
from sandkernel import GatewayExecutor
from sandkernel.exceptions import (
    AuthError,
    BootError,
    ConfigurationError,
    KernelNotFoundError,
    PackageInstallError,
    SandkernelError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def gateway() -> Iterator[StockGateway]:
    with running_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
def executor(gateway: StockGateway) -> Iterator[GatewayExecutor]:
    with GatewayExecutor(url=gateway.url, token=gateway.token, timeout=60) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool()})
        yield executor


def test_code_and_answer(executor: GatewayExecutor) -> None:
    assert executor("x = 20\nprint('here')\nx + 1").output == "21"
    assert executor("final_answer({'x': x})").output == {"x": 20}


def test_an_answer_that_the_output_limits_drop_arrives(executor: GatewayExecutor) -> None:
    result = executor("final_answer('big' * 2_000_000)")
    assert result.is_final_answer
    assert result.output == "big" * 2_000_000


def test_variables_larger_than_a_message_arrive(executor: GatewayExecutor) -> None:
    import random  # noqa: PLC0415

    noise = random.Random(0).randbytes(8_000_000)
    executor.send_variables({"noise": noise})
    assert executor("len(noise)").output == "8000000"


def test_a_tool_of_the_host_is_called_past_all_the_gateways_limits(executor: GatewayExecutor) -> None:
    class Reverse(Tool):
        name = "reverse"
        description = "Reverses bytes."
        inputs = {"data": {"type": "any", "description": "Bytes"}}  # noqa: RUF012
        output_type = "any"

        def __init__(self, calls: list[int]) -> None:
            super().__init__()
            self.calls = calls

        def forward(self, data: bytes) -> bytes:
            self.calls.append(len(data))
            return data[::-1]

    calls: list[int] = []
    executor.send_tools({"reverse": Reverse(calls)})
    # Its limits: 1 MB of output in a second, 10 MiB for a message from us.
    assert executor("all(reverse(b'ab') == b'ba' for _ in range(300))").output == "True"
    code = "import os\nsent = os.urandom(12 << 20)\nreverse(sent) == sent[::-1]"
    assert executor(code).output == "True"
    assert calls == [2] * 300 + [12 << 20]


def test_the_kernel_is_deleted_and_the_gateway_left(gateway: StockGateway) -> None:
    with GatewayExecutor(url=gateway.url, token=gateway.token) as executor:
        kernel = f"/api/kernels/{executor._session.kernel_id}"
        assert status(gateway, kernel) == 200
    assert status(gateway, kernel) == 404
    assert status(gateway, "/api") == 200


def test_a_shared_kernel_is_left_running(gateway: StockGateway, executor: GatewayExecutor) -> None:
    kernel_id = executor._session.kernel_id
    executor("shared = 'by both'")
    with GatewayExecutor(url=gateway.url, token=gateway.token, kernel_id=kernel_id) as second:
        assert second("shared").output == "'by both'"
    assert executor("shared").output == "'by both'"


def test_what_the_kernel_can_import_is_not_installed(
    executor: GatewayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No installer is run.
    monkeypatch.setattr(executor._provision, "install_inside", None)
    assert executor.install_packages(["numpy", "PIL", "os.path", "json"]) == []
    with pytest.raises(TypeError):
        executor.install_packages(["sandkernel-missing"])


def test_a_package_that_can_not_be_installed(executor: GatewayExecutor, tmp_path: Path) -> None:
    missing = f"sandkernel-missing @ {(tmp_path / 'sandkernel_missing-1.0-py3-none-any.whl').as_uri()}"
    with pytest.raises(PackageInstallError, match="sandkernel-missing") as raised:
        executor._drive(executor._provision.install_inside([missing]))
    assert "sandkernel_missing-1.0" in raised.value.output
    assert executor("1").output == "1"


@pytest.mark.parametrize(("token", "error"), [("wrong", AuthError)])
def test_a_wrong_token(gateway: StockGateway, token: str, error: type[SandkernelError]) -> None:
    with pytest.raises(error) as raised:
        GatewayExecutor(url=gateway.url, token=token)
    assert gateway.token not in str(raised.value)


def test_an_unknown_kernel(gateway: StockGateway) -> None:
    with pytest.raises(KernelNotFoundError):
        GatewayExecutor(
            url=gateway.url, token=gateway.token, kernel_id="00000000-0000-0000-0000-000000000000"
        )


def test_nobody_there() -> None:
    # Bound and not listened on: nobody else takes it.
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(BootError):
            GatewayExecutor(url=url, token="t", connect_timeout=0.5)


@pytest.mark.parametrize("url", ["", "ftp://x", "127.0.0.1:8888"])
def test_a_malformed_address(url: str) -> None:
    with pytest.raises(ConfigurationError):
        GatewayExecutor(url=url, token="t")


def test_the_token_is_in_no_repr(gateway: StockGateway, executor: GatewayExecutor) -> None:
    for thing in (executor, executor._sandbox, executor._session, executor._settings):
        assert gateway.token not in repr(thing)


def test_the_extra_packages_of_the_constructor_are_checked(gateway: StockGateway) -> None:
    with pytest.raises(ConfigurationError, match="neither a module nor a package requirement"):
        GatewayExecutor(["numpy; rm -rf /"], url=gateway.url, token=gateway.token)


def test_one_connection_serves_all_and_the_token_is_in_no_address(gateway: StockGateway) -> None:
    port = int(gateway.url.rpartition(":")[2])
    with recording_proxy(port) as (url, connections):
        with GatewayExecutor(url=url, token=gateway.token) as executor:
            executor("1")
            before = len(connections)
            for number in range(20):
                assert executor(f"{number}").output == str(number)
            assert len(connections) == before
        requests = [bytes(data) for data in connections]
    assert any(data.startswith(b"GET /api/kernels/") for data in requests)
    for data in requests:
        addresses = [line for line in data.split(b"\r\n") if line.endswith(b"HTTP/1.1")]
        assert gateway.token.encode() not in b"".join(addresses)
