"""What a hostile kernel sends takes the host's memory in proportion to its length, whatever it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import floods
from sandkernel import LocalExecutor, Session
from sandkernel._sandkernel import overwritten
from sandkernel.exceptions import PayloadError, SandkernelError
from sandkernel.providers.local import LocalSandbox

MEBIBYTE = 1 << 20

PUBLISH = "get_ipython().display_pub.publish"
# A reply of the prelude's is the text of an exception. Its functions are replaced by what gives another one.
FORGED_REPLY = "import _sandkernel as prelude\nprelude.missing = lambda names: (_ for _ in ()).throw({})"
REPLY = "prelude.Reply({})"
FORGED_FIELDS = """
import _sandkernel_files as files, _sandkernel_shell as shell
def reply(*arguments):
    shell.publish(files.REPLY_MIME, {}, shell.parent(), [b"a" + bytes(12 << 20), b""])
files.walk = files.find = reply
"""
# Each sends some 12 MiB: the code of a step, and what the host does then.
ATTACKS = {
    "lists": (f"{PUBLISH}({{'application/x': [[]] * (3 << 20)}})", ""),
    "a final answer's description": (
        f"{PUBLISH}({{'application/vnd.sandkernel.answer+json': [{{}}] * (3 << 20)}})",
        "",
    ),
    "names of tools": (f"{PUBLISH}({{'application/vnd.sandkernel.tools+json': ['a'] * (2 << 20)}})", ""),
    "JSON that the model is shown": (
        f"{PUBLISH}({{'application/json': [[]] * (3 << 20), 'text/plain': '<x>'}})",
        "",
    ),
    "metadata": (f"{PUBLISH}({{'text/plain': 'x'}}, {{'x': [[]] * (3 << 20)}})", ""),
    "one carriage return": ("print('x' * (12 << 20) + chr(13) + 'y')", ""),
    "many carriage returns": ("print(('xy' + chr(13)) * (4 << 20))", ""),
    "a listing": (FORGED_FIELDS, "executor.files.list()"),
    "one file": (FORGED_FIELDS, "executor.files.stat('x')"),
    "a reply of the prelude": (
        FORGED_REPLY.format(REPLY.format("'[' + '[],' * (4 << 20) + '[]]'")),
        "executor.install_packages(['numpy'])",
    ),
}
PROGRAM = """
import json, sys
from floods import measured
from sandkernel import LocalExecutor
from sandkernel.exceptions import SandkernelError

reports = {}
with LocalExecutor(timeout=60) as executor:
    executor("1 + 1")
    executor.files.exists("x")
    for name, (code, action) in json.loads(sys.argv[1]).items():
        report = reports[name] = {"error": None}
        with measured(report):
            try:
                executor(code)
                eval(action or "None")
            except SandkernelError as error:
                report["error"] = f"{type(error).__name__}: {error}"
        report["next"] = executor("6 * 7").output
print(json.dumps(reports))
"""


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    """What a process of its own reports, whose memory is not that of the tests."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(ATTACKS)],
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parent,
        timeout=110,
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", ATTACKS)
def test_no_objects_are_made_of_what_is_not_asked_for(reports: dict[str, Any], name: str) -> None:
    # The message, its parts, and what is kept and shown of it, each of the length of the message.
    assert reports[name]["grown"] < floods.RESULT_BYTES + 64 * MEBIBYTE, reports[name]
    assert reports[name]["next"] == "42"
    if ATTACKS[name][1]:
        assert "malformed" in reports[name]["error"]


@pytest.mark.parametrize(
    "reply",
    ["nothing", "[" * 50_000, "9" * 5000, "{}", '"numpy"', "[1, null, {}]", "null"],
    ids=lambda reply: str(reply[:12]),
)
def test_a_malformed_reply_of_the_prelude_is_an_error_of_ours(reply: str) -> None:
    with LocalExecutor() as executor:
        executor(FORGED_REPLY.format(REPLY.format(repr(reply))))
        try:
            # A list of other things names nothing that is missing.
            assert executor.install_packages(["json5"]) == []
            assert reply.startswith("[1")
        except SandkernelError as error:
            assert "The kernel's reply to missing is malformed" in str(error)  # noqa: PT017
        assert executor("6 * 7").output == "42"


@pytest.fixture(scope="module")
def session() -> Any:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with Session.connect(endpoint.url, endpoint.token, max_result_bytes=8 * MEBIBYTE) as session:
            yield session


def test_json_counts_as_what_it_takes_once_it_is_parsed(session: Session) -> None:
    kept = session.run(f"{PUBLISH}({{'application/json': [[1]] * 10_000}})").results[0]
    assert kept.json == [[1]] * 10_000
    execution = session.run(f"{PUBLISH}({{'application/json': [[1]] * 300_000, 'text/plain': 'rows'}})")
    assert execution.omitted_results == 1
    (result,) = execution.results
    assert (result.mime_types, result.text) == (["text/plain"], "rows")
    # Text is what it is.
    assert session.run("'x' * 6_000_000").omitted_results == 0


def test_a_bundle_is_read_without_parsing_it(session: Session) -> None:
    bundle = {"text/plain": "x", "application/json": {"a": [1]}, "application/y": "text"}
    (result,) = session.run(f"{PUBLISH}({bundle!r})").results
    assert sorted(result.mime_types) == sorted(bundle)
    assert (result.text_of("application/y"), result.json_of("application/y")) == ("text", None)
    assert result.text_of("application/json") is None
    assert json.loads(result.json_of("application/json") or "") == {"a": [1]}
    assert (result.text_of("z"), result.json_of("z")) == (None, None)
    assert result.data == bundle


def test_an_integer_of_too_many_digits_is_an_error_of_ours(session: Session) -> None:
    (result,) = session.run(f"{PUBLISH}({{'application/json': 10**4000, 'text/plain': '<x>'}})").results
    assert result.json == 10**4000
    code = (
        "import sys; sys.set_int_max_str_digits(0)\n"
        f"{PUBLISH}({{'application/json': 10**5000, 'text/plain': '<x>'}})"
    )
    (result,) = session.run(code).results
    with pytest.raises(PayloadError, match="JSON can't be read"):
        _ = result.data
    assert result.text == "<x>"
    with LocalExecutor() as executor:
        assert executor(code).logs.startswith("1000000")


def test_a_progress_bar_is_shown_as_a_terminal_does() -> None:
    plain = "no carriage return\n"
    assert overwritten(plain) is plain
    assert overwritten("10%\r100%\nabc\rx\r\n") == "100%\nxbc\n"
