"""`Session`, the sync side, on a real kernel."""

from __future__ import annotations

import itertools
import math
import re
import resource
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

import sandkernel
from sandkernel import Session
from sandkernel.providers.local import LocalSandbox
from waiting import UNHURRIED, time_limits, wait_for_file, write_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandkernel.providers.endpoint import Endpoint

KNOWN_NOT_TO_EXIST = "00000000-0000-0000-0000-000000000000"
BEGINS = write_line("began")
SLEEPS = f"import time\n{BEGINS}\ntime.sleep(600)"
SWALLOWS_INTERRUPTS = f"""
import time
try:
    {BEGINS}
finally:
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with LocalSandbox() as sandbox:
        yield sandbox.endpoint


@pytest.fixture(scope="module")
def session(endpoint: Endpoint) -> Iterator[Session]:
    with Session.connect(
        endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id, timeout=60, **UNHURRIED
    ) as session:
        yield session


def test_an_execution_has_everything(session: Session) -> None:
    execution = session.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n{'a': 1}")
    assert (execution.stdout, execution.stderr, execution.logs) == ("out\n", "err\n", "out\nerr\n")
    assert execution.text == "{'a': 1}"
    (result,) = execution.results
    assert (result.kind, result.data, result.metadata) == ("execute_result", {"text/plain": "{'a': 1}"}, {})
    assert execution.error is None
    assert execution.complete
    assert execution.duration > 0
    assert isinstance(execution.execution_count, int)
    assert (execution.omitted_output_bytes, execution.omitted_results) == (0, 0)
    assert execution.results is execution.results


def test_an_error_of_the_code_is_data(session: Session) -> None:
    error = session.run("1 / 0").error
    assert error is not None
    assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
    assert "\x1b" not in "".join(error.traceback)


def test_mime_bundles(session: Session) -> None:
    execution = session.run(
        "from IPython.display import display, HTML, JSON, Image, SVG, Latex, Markdown\n"
        "display(HTML('<b>'), JSON({'a': [1]}), Latex('$x$'), Markdown('*m*'))\n"
        "display({'image/png': 'iVBORw0=', 'image/svg+xml': '<svg/>'}, raw=True)\n"
        "handle = display('first', display_id=True)\n"
        "handle.update('second')\n"
    )
    html, json, latex, markdown, image, updated = execution.results
    assert (html.html, json.json, latex.latex, markdown.markdown) == ("<b>", {"a": [1]}, "$x$", "*m*")
    assert (image.png, image.svg, image.jpeg, image.text) == (b"\x89PNG\r", "<svg/>", None, None)
    assert (updated.text, updated.kind) == ("'second'", "display_data")


def test_all_of_unicode_travels_both_ways(session: Session) -> None:
    text = "é\x00\x1b[0m ☃ \U0001f40d \u2028"
    assert session.run(f"text = {text!r}\nprint(text)").stdout == text + "\n"


def test_buffers_are_attached_to_the_request(session: Session) -> None:
    code = "[bytes(each) for each in get_ipython().kernel.get_parent('shell')['buffers']]"
    for buffers in ((), [b""], [b"\0\xff", bytearray(b"two")]):
        expected = repr([bytes(each) for each in buffers])
        assert session.run(code, buffers=buffers).text == expected
        assert session.run(code, buffers=buffers, on_stdout=print).text == expected


def test_callbacks_see_what_happens_while_it_runs(session: Session) -> None:
    seen: list[tuple[str, object]] = []
    execution = session.run(
        "import sys\nprint('a')\nprint('b', file=sys.stderr)\n3",
        on_stdout=lambda text: seen.append(("stdout", text)),
        on_stderr=lambda text: seen.append(("stderr", text)),
        on_result=lambda result: seen.append(("result", result.text)),
    )
    # The kernel may send the end of a line by itself.
    kinds = [kind for kind, _ in itertools.groupby(kind for kind, _ in seen)]
    assert kinds == ["stdout", "stderr", "result"]
    assert "".join(str(what) for _, what in seen) == "a\nb\n3"
    assert execution.logs == "a\nb\n"


def test_a_callback_that_raises_loses_no_execution(session: Session) -> None:
    def on_stdout(text: str) -> None:
        raise LookupError(text)

    with pytest.raises(LookupError, match="told"):
        session.run("print('told')\nran_to_the_end = True", on_stdout=on_stdout)
    assert session.run("ran_to_the_end").text == "True"


def test_a_stream_ends_with_its_execution(session: Session) -> None:
    stream = session.stream("print('x')\n1 / 0")
    assert stream.execution is None
    # The kernel sends output when it sees fit: maybe in two parts.
    *outputs, error = stream
    assert {type(output) for output in outputs} == {sandkernel.Output}
    assert {output.stream for output in outputs} == {"stdout"}
    assert "".join(output.text for output in outputs) == "x\n"
    assert isinstance(error, sandkernel.ExecutionError)
    assert stream.execution is not None
    assert stream.execution.stdout == "x\n"
    assert list(stream) == []


def test_a_closed_stream_interrupts(session: Session) -> None:
    stream = session.stream(SLEEPS)
    next(stream)
    stream.close()
    assert session.run("'still here'").text == "'still here'"


def test_silent_code_does_not_count(session: Session) -> None:
    before = session.run("1").execution_count
    assert session.run("2", silent=True).results == []
    assert session.run("3", store_history=False).text == "3"
    after = session.run("4").execution_count
    assert before is not None
    assert after == before + 1


def test_a_timeout_interrupts_and_keeps_the_state(session: Session) -> None:
    session.run("kept = 1")
    for limit in time_limits():
        with pytest.raises(sandkernel.ExecutionTimeout) as caught:
            session.run(SLEEPS, timeout=limit)
        if caught.value.execution is not None and caught.value.execution.stdout:
            break
    assert isinstance(caught.value, TimeoutError)
    assert re.search(rf"{limit:g} s.*state is kept", str(caught.value))
    assert not caught.value.restarted
    assert caught.value.execution is not None
    assert caught.value.execution.stdout == "began\n"
    assert session.run("kept").text == "1"


def test_a_timeout_restarts_what_ignores_the_interrupt(endpoint: Endpoint) -> None:
    with Session.connect(endpoint.url, endpoint.token, timeout=60, interrupt_grace=1) as session:
        session.run("kept = 1")
        generation = session.generation
        for limit in time_limits():
            with pytest.raises(sandkernel.ExecutionTimeout) as caught:
                session.run(SWALLOWS_INTERRUPTS, timeout=limit)
            if caught.value.execution is not None and caught.value.execution.stdout:
                break
        assert "restarted" in str(caught.value)
        assert caught.value.restarted
        assert session.generation != generation
        assert session.run("'kept' in globals()").text == "False"


def test_a_call_may_have_no_timeout_although_the_session_has_one(endpoint: Endpoint) -> None:
    with Session.connect(endpoint.url, endpoint.token, timeout=0.2) as session:
        assert session.run("import time\ntime.sleep(0.5)\n'done'", timeout=math.inf).text == "'done'"
        with pytest.raises(sandkernel.ExecutionTimeout):
            session.run("import time\ntime.sleep(600)")


def test_a_dead_kernel_is_reported_with_what_it_said(session: Session, tmp_path: Path) -> None:
    generation = session.generation
    # What a process has written is lost with it, unless it has left: it dies once that was heard.
    code = f"{write_line('last words')}\n{wait_for_file(tmp_path / 'heard')}os._exit(1)"
    with pytest.raises(sandkernel.KernelDied) as caught:
        session.run(code, on_stdout=lambda _: (tmp_path / "heard").touch())
    assert caught.value.execution is not None
    assert caught.value.execution.stdout == "last words\n"
    assert session.generation == generation + 1
    assert session.run("1 + 1").text == "2"


def test_a_restart_ends_what_runs(session: Session) -> None:
    stream = session.stream(SLEEPS)
    next(stream)
    session.restart()
    with pytest.raises(sandkernel.KernelDied, match="on request"):
        next(stream)
    assert session.run("1").text == "1"


def test_an_interrupt_looks_like_ctrl_c(session: Session) -> None:
    stream = session.stream(SLEEPS)
    next(stream)
    session.interrupt()
    *_, error = stream
    assert isinstance(error, sandkernel.ExecutionError)
    assert error.name == "KeyboardInterrupt"


def test_threads_are_served_one_after_the_other(session: Session) -> None:
    session.run("total = 0")
    texts: list[str] = []

    def add(number: int) -> None:
        for _ in range(5):
            execution = session.run(f"before = total\ntotal = before + {number}\nprint({number})")
            texts.append(execution.stdout)
            assert execution.stdout == f"{number}\n"

    threads = [threading.Thread(target=add, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 20
    assert session.run("total").text == "50"


def test_a_thread_that_waits_is_not_woken_for_signals_that_are_not_its_own(session: Session) -> None:
    def wait() -> None:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        session.run("import time; time.sleep(3)")
        switches.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)

    switches: list[int] = []
    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    # Looking for signals ten times a second, it would be 30.
    assert switches[0] < 15


def test_much_output_arrives_whole(session: Session) -> None:
    execution = session.run("for i in range(100_000): print(f'{i:099}')")
    assert execution.stdout == "".join(f"{i:099}\n" for i in range(100_000))
    execution = session.run("'x' * 50_000_000")
    assert execution.text == repr("x" * 50_000_000)
    assert (execution.omitted_output_bytes, execution.omitted_results) == (0, 0)


def test_flushed_output_arrives_whole_however_fast_it_comes(session: Session) -> None:
    # Each write is a message of its own, and the kernel makes them faster than a gateway passes them on.
    execution = session.run("for i in range(8_000): print(i, flush=True)", timeout=100)
    assert execution.error is None
    assert execution.stdout == "".join(f"{i}\n" for i in range(8_000))


def test_what_is_kept_is_bounded_and_what_is_not_is_counted(endpoint: Endpoint) -> None:
    with Session.connect(
        endpoint.url, endpoint.token, max_output_bytes=1000, max_result_bytes=2000, timeout=60
    ) as session:
        execution = session.run("print('head', 'x' * 1_000_000, 'tail')\n'y' * 1_000_000")
        assert execution.stdout.startswith("head x")
        assert execution.stdout.endswith("x tail\n")
        assert f"{execution.omitted_output_bytes} bytes left out" in execution.stdout
        assert execution.omitted_results == 1
        assert execution.text is not None
        assert len(execution.text) < 3000
        assert session.run("1").text == "1"


def test_a_second_session_shares_the_kernel_and_leaves_it(endpoint: Endpoint, session: Session) -> None:
    session.run("shared = 'seen'")
    with Session.connect(endpoint.url, endpoint.token, kernel_id=session.kernel_id) as guest:
        assert guest.run("shared").text == "'seen'"
    assert session.run("shared").text == "'seen'"


def test_a_closed_session_says_so(endpoint: Endpoint) -> None:
    session = Session.connect(endpoint.url, endpoint.token)
    assert "closed" not in repr(session)
    session.close()
    session.close()
    assert "(closed)" in repr(session)
    for use in (lambda: session.run("1"), lambda: session.stream("1"), session.interrupt, session.restart):
        with pytest.raises(sandkernel.ClosedError):
            use()
    with pytest.raises(sandkernel.KernelNotFoundError):
        Session.connect(endpoint.url, endpoint.token, kernel_id=session.kernel_id)


# Bad input


@pytest.mark.parametrize("code", [None, b"1", 1])
def test_code_has_to_be_a_string(session: Session, code: object) -> None:
    with pytest.raises(sandkernel.ConfigurationError, match="code must be a string"):
        session.run(code)  # type: ignore[arg-type]


@pytest.mark.parametrize("buffers", [b"bytes", ["text"], [memoryview(b"")]])
def test_buffers_have_to_be_bytes(session: Session, buffers: object) -> None:
    with pytest.raises(sandkernel.ConfigurationError, match="buffers are bytes or bytearrays"):
        session.run("1", buffers=buffers)  # type: ignore[arg-type]


def test_code_has_to_be_unicode(session: Session) -> None:
    with pytest.raises(sandkernel.ConfigurationError, match="Unicode"):
        session.run("'\ud800'")


@pytest.mark.parametrize("timeout", [0, -1, math.nan])
def test_a_timeout_has_to_be_above_zero(session: Session, timeout: float) -> None:
    with pytest.raises(sandkernel.ConfigurationError, match="timeout"):
        session.run("1", timeout=timeout)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://127.0.0.1", "http"),
        ("127.0.0.1:8888", "http"),
        ("", "URL"),
        ("http://user:s3cret@127.0.0.1", "user"),
        ("http://127.0.0.1/?token=s3cret", "token"),
    ],
)
def test_a_wrong_url_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(sandkernel.ConfigurationError, match=said) as caught:
        Session.connect(url, "t")
    assert "s3cret" not in str(caught.value)


def test_a_wrong_token_is_refused_at_once(endpoint: Endpoint) -> None:
    with pytest.raises(sandkernel.AuthError) as caught:
        Session.connect(endpoint.url, "wr0ng")
    assert "wr0ng" not in str(caught.value)


def test_a_name_that_does_not_resolve_is_refused_at_once() -> None:
    with pytest.raises(sandkernel.UnresolvableError, match=r"nowhere\.invalid"):
        Session.connect("https://nowhere.invalid:1", "t")


def test_an_unreachable_gateway_is_waited_for_until_the_deadline() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        with pytest.raises(sandkernel.BootError, match="refused"):
            Session.connect(url, "t", connect_timeout=1)


def test_an_unknown_kernel_is_reported(endpoint: Endpoint) -> None:
    with pytest.raises(sandkernel.KernelNotFoundError, match=KNOWN_NOT_TO_EXIST):
        Session.connect(endpoint.url, endpoint.token, kernel_id=KNOWN_NOT_TO_EXIST)


def test_certificates_that_can_not_be_read_are_reported(tmp_path: Path) -> None:
    with pytest.raises(sandkernel.ConfigurationError, match="ca_certificates"):
        Session.connect("https://127.0.0.1:1", ca_certificates=tmp_path / "none.pem")
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(sandkernel.ConfigurationError, match="certificate"):
        Session.connect("https://127.0.0.1:1", ca_certificates=tmp_path / "empty.pem")


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    def log_message(self, *_: object) -> None:
        pass


def test_something_else_that_answers_is_no_gateway() -> None:
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(sandkernel.GatewayError, match="gateway"):
                Session.connect(f"http://127.0.0.1:{server.server_port}", "t")
        finally:
            server.shutdown()
            thread.join()


def test_a_session_is_opened_not_made() -> None:
    with pytest.raises(TypeError, match=r"Session\.connect"):
        Session()
