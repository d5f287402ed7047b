"""Messages that take longer to arrive than a peer may stay silent."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from executor_support import running_gateway
from fault_proxy import FaultProxy
from rewriting_proxy import Behaviour, RewritingProxy
from sandkernel import Session
from sandkernel.exceptions import ConnectionLost, ExecutionTimeout
from sandkernel.gateway.program import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fault_proxy import Toward

TOKEN = "a-token-of-the-tests"
# A message takes three times as long as a peer may stay silent.
SILENCE = 3.0
RATE = 1_000_000
SIZE = 9_000_000
# The handshake, the probe, pings and pongs.
BESIDE = 200_000


@contextmanager
def ours(directory: Path) -> Iterator[str]:
    """A gateway that Sandkernel starts, which gives up a client that is silent for three seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", program(), json.dumps({"kernel_id": "a-b-c", "ping_interval": 1})],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "KG_AUTH_TOKEN": TOKEN},
        cwd=directory,
    )
    with process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def stock(_: Path) -> Iterator[str]:
    options = ["--ZMQChannelsWebsocketConnection.limit_rate=False"]
    with running_gateway(token=TOKEN, options=options) as gateway:
        yield gateway.url


GATEWAYS = {"ours": ours, "stock": stock}


@pytest.fixture(scope="module", params=list(GATEWAYS))
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with GATEWAYS[request.param](tmp_path_factory.mktemp("gateway")) as url:
        yield url


@contextmanager
def slow(
    url: str, directory: Path, *, tls: bool = False, **options: Any
) -> Iterator[tuple[FaultProxy, Session]]:
    """A session by way of a slow proxy, and by TLS if that is asked for."""
    with ExitStack() as stack:
        port = int(url.rpartition(":")[2])
        authority = directory / "ca.pem"
        if tls:
            own = trustme.CA()
            authority.write_bytes(own.cert_pem.bytes())
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            own.issue_cert("127.0.0.1").configure_cert(context)
            port = stack.enter_context(RewritingProxy(port, Behaviour(), context=context)).port
        proxy = stack.enter_context(FaultProxy(port))
        session = stack.enter_context(
            Session.connect(
                f"https://127.0.0.1:{proxy.port}" if tls else proxy.url,
                TOKEN,
                ca_certificates=authority if tls else None,
                dead_peer_timeout=SILENCE,
                **options,
            )
        )
        assert session.run("kept = 7", timeout=60).error is None
        yield proxy, session


def check_that_nothing_is_lost(proxy: FaultProxy, session: Session) -> None:
    proxy.heal()
    assert session.generation == 0
    assert session.run("print(kept)", timeout=60).stdout == "7\n"


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(f"'x' * {SIZE}", id="result"),
        pytest.param(f"print('x' * {SIZE})", id="print"),
        pytest.param(f"raise ValueError('x' * {SIZE // 6})", id="error"),
    ],
)
def test_a_message_down_a_slow_way_arrives(gateway: str, tmp_path: Path, code: str, tls: bool) -> None:  # noqa: FBT001
    with slow(gateway, tmp_path, tls=tls) as (proxy, session):
        before, websockets = proxy.passed["client"], proxy.websockets
        proxy.rate = RATE
        began = time.monotonic()
        execution = session.run(code)
        assert time.monotonic() - began > 2 * SILENCE
        # An error travels in its traceback and in its value, on two channels.
        assert SIZE / 2 < proxy.passed["client"] - before < SIZE * 1.1 + BESIDE
        text = execution.stdout or (execution.error.value if execution.error else execution.results[0].text)
        assert text is not None
        assert text.count("x") >= SIZE // 6
        check_that_nothing_is_lost(proxy, session)
        # Nobody gave up the connection: who takes a message can't answer a ping behind it.
        assert proxy.websockets == websockets == (0 if tls else 1)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("buffered", [False, True], ids=["code", "buffer"])
def test_a_message_up_a_slow_way_arrives(gateway: str, tmp_path: Path, buffered: bool, tls: bool) -> None:  # noqa: FBT001
    with slow(gateway, tmp_path, tls=tls) as (proxy, session):
        before = proxy.passed["gateway"]
        proxy.rate = RATE
        code = f"x = len({'x' * SIZE!r})\nprint(x)" if not buffered else "print(1)"
        execution = session.run(code, buffers=[b"x" * SIZE] if buffered else [])
        assert execution.stdout == f"{1 if buffered else SIZE}\n"
        assert SIZE <= proxy.passed["gateway"] - before < SIZE * 1.1 + BESIDE
        check_that_nothing_is_lost(proxy, session)


def test_a_timeout_while_a_message_arrives_keeps_the_state(gateway: str, tmp_path: Path) -> None:
    """The code has long ended, but the word of that waits behind what it gave."""
    with slow(gateway, tmp_path, interrupt_grace=0.5) as (proxy, session):
        proxy.rate = RATE
        with pytest.raises(ExecutionTimeout) as raised:
            session.run(f"'x' * {SIZE}", timeout=1.5)
        assert raised.value.restarted is False
        check_that_nothing_is_lost(proxy, session)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ours(tmp_path_factory.mktemp("own")) as url:
        yield url


def sent(toward: Toward) -> tuple[str, str]:
    """Code that is large, or whose result is, and what it prints."""
    if toward == "client":
        return f"print('done')\n'x' * {SIZE}", "done\n"
    return f"print(len({'x' * SIZE!r}))", f"{SIZE}\n"


@pytest.mark.parametrize("toward", ["client", "gateway"])
@pytest.mark.parametrize("each", [700_000, 1_500_000])
def test_a_message_that_is_cut_again_and_again_gets_on(
    own: str, tmp_path: Path, toward: Toward, each: int
) -> None:
    with slow(own, tmp_path) as (proxy, session):
        code, printed = sent(toward)
        before = proxy.passed[toward]
        proxy.cut_each(each, toward, "fin")
        execution = session.run(code)
        assert execution.stdout == printed
        if toward == "client":
            assert len(execution.results[0].text or "") == SIZE + 2
        assert proxy.cuts > 3
        # In vain is what came of the message first, and less than a piece each time.
        assert proxy.passed[toward] - before < 2 * SIZE
        check_that_nothing_is_lost(proxy, session)


@pytest.mark.parametrize("toward", ["client", "gateway"])
def test_a_message_of_which_nothing_arrives_is_given_up(own: str, tmp_path: Path, toward: Toward) -> None:
    with slow(own, tmp_path) as (proxy, session):
        code, _ = sent(toward)
        # Less than a piece.
        proxy.cut_each(100_000, toward)
        with pytest.raises(ConnectionLost, match="10 times in a row in the middle of a large message"):
            session.run(code)
        check_that_nothing_is_lost(proxy, session)


@pytest.mark.parametrize("toward", ["client", "gateway"])
def test_a_slow_way_that_is_cut_as_well(own: str, tmp_path: Path, toward: Toward) -> None:
    """What is sent again takes longer than a connection may take to come back."""
    with slow(own, tmp_path, reconnect_timeout=4.0) as (proxy, session):
        code, printed = sent(toward)
        before = proxy.passed[toward]
        proxy.rate = RATE
        proxy.cut_after(SIZE // 2, toward)
        execution = session.run(code)
        assert execution.stdout == printed
        assert proxy.disarm()
        assert proxy.passed[toward] - before < 2 * SIZE
        check_that_nothing_is_lost(proxy, session)
