"""Servers and proxies that are not as a kernel gateway is: each works, or the error says what to do."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from executor_support import StockGateway, running_gateway
from rewriting_proxy import Behaviour, Head, RewritingProxy, answer
from sandkernel import GatewayExecutor, Session
from sandkernel.exceptions import AuthError, ConfigurationError, GatewayError, SandkernelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OFFER = "v1.kernel.websocket.jupyter.org"


@pytest.fixture(scope="module")
def gateway() -> Iterator[StockGateway]:
    # A slash and a plus: in a query they look different.
    with running_gateway(token="t0ken/with+signs-0123456789") as gateway:
        yield gateway


def port(gateway: StockGateway) -> int:
    return int(gateway.url.rpartition(":")[2])


def works(url: str, token: str | None, **options: Any) -> None:
    with Session.connect(url, token, connect_timeout=30, **options) as session:
        assert session.run("print(6 * 7)", timeout=60).stdout == "42\n"
        session.interrupt()


def without_offer(head: Head) -> None:
    head.drop("sec-websocket-protocol")


class Times:
    """An answer of that status for the first requests of a kind."""

    def __init__(self, kind: str, *statuses: int) -> None:
        self.kind = kind
        self.statuses = list(statuses)

    def __call__(self, head: Head) -> bytes | None:
        if self.kind in head.first and self.statuses:
            return answer(self.statuses.pop(0), "<h1>Bad Gateway</h1>", ("Content-Type", "text/html"))
        return None


def chunked(head: Head, body: bytes) -> bytes:
    head.drop("content-length")
    head.set("tRANSFER-eNCODING", "chunked")
    pieces = [body[index : index + 7] for index in range(0, len(body), 7)]
    return bytes(head) + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def as_200(head: Head, body: bytes) -> bytes:
    head.first = head.first.replace("201 Created", "200 OK")
    return bytes(head) + body


def shouting(head: Head, body: bytes) -> bytes:
    head.headers = [(name.upper(), value) for name, value in head.headers]
    return bytes(head) + body


def below_a_path(head: Head) -> bytes | None:
    if not head.path.startswith("/user/name/"):
        return answer(404)
    head.path = head.path.removeprefix("/user/name")
    return None


def keeps_alive(head: str) -> str:
    return re.sub("connection: upgrade", "Connection: keep-alive, Upgrade", head, flags=re.IGNORECASE)


def two_lines(head: str) -> str:
    return re.sub(
        "connection: upgrade", "Connection: keep-alive\r\nConnection: upgrade", head, flags=re.IGNORECASE
    )


def hints_first(head: str) -> str:
    return "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" + head


def cased(case: Callable[[str], str]) -> Callable[[str], str]:
    def change(head: str) -> str:
        first, *lines = head.split("\r\n")
        pairs = [line.partition(":") for line in lines]
        values = {"upgrade", "websocket"}
        changed = [
            case(name) + colon + (case(value) if value.strip().lower() in values else value)
            for name, colon, value in pairs
        ]
        return "\r\n".join([first, *changed])

    return change


def chosen(value: str) -> Callable[[str], str]:
    return lambda head: head.replace(OFFER, value)


def nothing_chosen(head: str) -> str:
    return re.sub(r"sec-websocket-protocol:[^\r]*\r\n", "", head, flags=re.IGNORECASE)


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(Behaviour(upgrade=keeps_alive), id="keep-alive, Upgrade"),
        pytest.param(Behaviour(upgrade=two_lines), id="two lines of Connection"),
        pytest.param(Behaviour(upgrade=hints_first), id="informational answers first"),
        pytest.param(Behaviour(upgrade=cased(str.lower)), id="lower case"),
        pytest.param(Behaviour(upgrade=cased(str.upper)), id="upper case"),
        pytest.param(Behaviour(byte_by_byte=True), id="byte by byte"),
        pytest.param(Behaviour(upgrade=hints_first, byte_by_byte=True), id="hints, byte by byte"),
        pytest.param(Behaviour(upgrade=chosen(f"{OFFER}, other")), id="a list chosen"),
        pytest.param(Behaviour(upgrade=chosen(f' "{OFFER.upper()}" ')), id="chosen in other letters"),
        pytest.param(Behaviour(upgrade=chosen("")), id="nothing chosen"),
        pytest.param(Behaviour(upgrade=chosen("other.protocol")), id="another one chosen"),
        pytest.param(Behaviour(upgrade=nothing_chosen), id="the choice is left out"),
        pytest.param(Behaviour(refuse=without_offer), id="the offer is left out"),
        pytest.param(Behaviour(refuse=Times("/channels", 502, 503, 504)), id="upgrade passing 5xx"),
        pytest.param(Behaviour(refuse=Times("/channels", 429, 521)), id="upgrade passing others"),
        pytest.param(Behaviour(refuse=Times("POST /api/kernels", 503)), id="creation passing 503"),
        pytest.param(Behaviour(closes_behind=True), id="closes behind its answer"),
        pytest.param(Behaviour(rewrite=chunked), id="chunked"),
        pytest.param(Behaviour(rewrite=as_200), id="200 for a new kernel"),
        pytest.param(Behaviour(rewrite=shouting), id="upper case of REST"),
    ],
)  # fmt: skip
def test_a_server_that_answers_otherwise(gateway: StockGateway, behaviour: Behaviour) -> None:
    with RewritingProxy(port(gateway), behaviour) as proxy:
        works(proxy.url, gateway.token)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_server_below_a_path(gateway: StockGateway, slash: str) -> None:
    with RewritingProxy(port(gateway), Behaviour(refuse=below_a_path)) as proxy:
        works(f"{proxy.url}/user/name{slash}", gateway.token)


def test_a_server_at_an_ipv6_address(gateway: StockGateway) -> None:
    with RewritingProxy(port(gateway), Behaviour(), host="::1") as proxy:
        works(proxy.url, gateway.token)


def test_a_kernel_is_created_once_where_connections_close(gateway: StockGateway) -> None:
    with RewritingProxy(port(gateway), Behaviour(closes_behind=True)) as proxy:
        works(proxy.url, gateway.token)
        created = [line for line in proxy.requests if line.startswith("POST /api/kernels ")]
    assert len(created) == 1


def only_bearer(gateway: StockGateway) -> Callable[[Head], bytes | None]:
    def take(head: Head) -> bytes | None:
        if head.get("authorization") != f"Bearer {gateway.token}":
            return answer(403, json.dumps({"message": f"no {head.get('authorization')}"}))
        head.set("Authorization", f"token {gateway.token}")
        return None

    return take


def only_query(gateway: StockGateway) -> Callable[[Head], bytes | None]:
    encoded = urllib.request.quote(gateway.token, safe="")

    def take(head: Head) -> bytes | None:
        path, _, query = head.path.partition("?")
        pairs = query.split("&")
        if head.get("authorization") is not None or f"token={encoded}" not in pairs:
            return answer(403, json.dumps({"message": f"not {head.path} of {encoded}"}))
        rest = "&".join(pair for pair in pairs if not pair.startswith("token="))
        head.path = f"{path}?{rest}" if rest else path
        head.set("Authorization", f"token {gateway.token}")
        return None

    return take


TAKERS = {"bearer": only_bearer, "query": only_query}


@pytest.mark.parametrize("authorization", ["bearer", "query"])
def test_a_token_travels_as_the_server_takes_it(gateway: StockGateway, authorization: Any) -> None:
    behaviour = Behaviour(refuse=TAKERS[authorization](gateway))
    with RewritingProxy(port(gateway), behaviour) as proxy:
        works(proxy.url, gateway.token, authorization=authorization)

        async def connect() -> str:
            async with await Session.aconnect(
                proxy.url, gateway.token, authorization=authorization
            ) as session:
                shown.append(repr(session))
                return (await session.arun("print(1)", timeout=60)).stdout

        shown: list[str] = []
        assert asyncio.run(connect()) == "1\n"
        with GatewayExecutor(
            url=proxy.url, token=gateway.token, authorization=authorization, timeout=60
        ) as executor:
            assert executor("6 * 7").output == "42"
            with executor.new_kernel() as other:
                assert other("6 * 7").output == "42"
            assert executor._settings["authorization"] == authorization
            shown += [repr(executor), repr(executor._session), repr(executor._settings)]
        with pytest.raises(AuthError, match=r"bearer.*query") as raised:
            Session.connect(proxy.url, gateway.token)
        shown += [str(raised.value), repr(raised.value)]
        # A kernel that is not there, and a token that is another one.
        with pytest.raises(SandkernelError) as missing:
            Session.connect(proxy.url, gateway.token, kernel_id="no-such", authorization=authorization)
        with pytest.raises(AuthError) as wrong:
            Session.connect(proxy.url, gateway.token + "x", authorization=authorization)
        shown += [str(missing.value), str(wrong.value)]
    for text in shown:
        assert gateway.token not in text
        assert urllib.request.quote(gateway.token, safe="") not in text


def test_a_token_in_the_query_is_in_no_error(gateway: StockGateway) -> None:
    def refuse(head: Head) -> bytes | None:
        return answer(400, f"what is {head.path}?") if head.first.startswith("POST") else None

    query = only_query(gateway)
    with (
        RewritingProxy(port(gateway), Behaviour(refuse=lambda head: refuse(head) or query(head))) as proxy,
        pytest.raises(GatewayError, match="what is /api/kernels") as raised,
    ):
        Session.connect(proxy.url, gateway.token, authorization="query")
    assert "[token]" in str(raised.value)
    assert urllib.request.quote(gateway.token, safe="") not in str(raised.value)


@pytest.mark.parametrize("authorization", ["Basic", "", None, 1])
def test_another_authorization_is_none(authorization: Any) -> None:
    with pytest.raises(ConfigurationError, match="authorization"):
        Session.connect("http://127.0.0.1:1", "secret", authorization=authorization)


@pytest.mark.parametrize(
    "login",
    [
        pytest.param(answer(302, "", ("Location", "/login?next=%2Fapi")), id="redirect"),
        pytest.param(answer(302, "", ("Location", "/hub/api/oauth2/authorize?x=1")), id="hub"),
        pytest.param(
            answer(200, "<form><input type=password>Log in</form>", ("Content-Type", "text/html")), id="page"
        ),
    ],
)
def test_a_page_to_log_in_is_a_token_refused(gateway: StockGateway, login: bytes) -> None:
    with RewritingProxy(port(gateway), Behaviour(refuse=lambda _: login)) as proxy:
        began = time.monotonic()
        with pytest.raises(AuthError, match="refused the token"):
            Session.connect(proxy.url, gateway.token, connect_timeout=60)
        assert time.monotonic() - began < 30


def test_an_upgrade_that_never_passes_ends(gateway: StockGateway) -> None:
    behaviour = Behaviour(refuse=lambda head: answer(503) if "/channels" in head.path else None)
    with RewritingProxy(port(gateway), behaviour) as proxy:
        began = time.monotonic()
        with pytest.raises(GatewayError, match="HTTP status 503"):
            Session.connect(proxy.url, gateway.token, connect_timeout=4)
        assert 1 < time.monotonic() - began < 20


@contextmanager
def jupyter_server(directory: Path, *options: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    url = f"http://127.0.0.1:{number}"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "jupyter_server", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={number}",
            "--ServerApp.port_retries=0", "--ServerApp.open_browser=False", "--allow-root",
            f"--ServerApp.root_dir={directory}", *options,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", number), 5):
                    break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("base", ["", "/user/name"])
def test_a_jupyter_server_without_a_token(tmp_path: Path, base: str) -> None:
    options = ["--IdentityProvider.token=", "--ServerApp.password="]
    if base:
        options.append(f"--ServerApp.base_url={base}/")
    with jupyter_server(tmp_path, *options) as url:
        works(url + base, None)
        with GatewayExecutor(url=url + base, timeout=60) as executor:
            assert executor("6 * 7").output == "42"
            kernel = f"{url}{base}/api/kernels/{executor._session.kernel_id}"
            with urllib.request.urlopen(kernel) as answered:
                assert answered.status == 200
        # It is deleted, which is a call that the server guards, too.
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(kernel)


def test_a_jupyter_server_with_a_token(tmp_path: Path) -> None:
    with jupyter_server(tmp_path, "--IdentityProvider.token=s3cret") as url:
        works(url, "s3cret")
        works(url, "s3cret", authorization="query")
        works(url, "s3cret", authorization="bearer")
        with pytest.raises(AuthError):
            Session.connect(url, "other")
