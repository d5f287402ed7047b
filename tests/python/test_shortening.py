"""How the gateway shortens what is too large for its client: no output is lost, and all stays JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandkernel.gateway import shortening

LIMIT = 64 << 20
TEXTS = st.lists(
    st.sampled_from(
        ["a", "\\", '"', "\n", "é", "€", "😀", "\x00", '"name": "', "\\u00e9", "\\\\", '", "text": "']
    ),
    max_size=200,
).map("".join)


def message(
    kind: str, content: object, *, ascii_only: bool = False, buffers: tuple[bytes, ...] = ()
) -> list[bytes]:
    text = json.dumps(content, ensure_ascii=ascii_only).encode()
    return [json.dumps({"msg_type": kind, "msg_id": "m"}).encode(), b'{"msg_id": "p"}', b"{}", text, *buffers]


def shortened(parts: list[bytes], limit: int = LIMIT) -> list[list[bytes]]:
    return list(shortening.shorten(parts, limit))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, ascii_only=st.booleans(), name_first=st.booleans(), piece=st.integers(12, 40))
def test_output_is_cut_between_characters(text: str, ascii_only: bool, name_first: bool, piece: int) -> None:  # noqa: FBT001
    content = {"name": "stderr", "text": text} if name_first else {"text": text, "name": "stderr"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortening, "PIECE", piece)
        pieces = shortened(message("stream", content, ascii_only=ascii_only))
    contents = [json.loads(each[3]) for each in pieces]
    assert "".join(each["text"] for each in contents) == text
    # Also of a pair of surrogates that JSON spells out, no half is alone.
    for each in contents:
        each["text"].encode()
    assert {each["name"] for each in contents} <= {"stderr"}
    head = len('{"name": "stderr", "text": ""}')
    assert all(len(each[3]) <= head + piece for each in pieces)
    assert {tuple(each[:3]) for each in pieces} <= {tuple(message("stream", {})[:3])}


def test_what_is_small_enough_passes_untouched() -> None:
    parts = message("display_data", {"data": {}}, buffers=(b"x" * shortening.PIECE,))
    assert shortened(parts) == [parts]


def left_out(kind: str, content: object, **options: Any) -> dict[str, Any]:
    parts = message(kind, content, **options)
    ((header, parent, metadata, kept),) = shortened(parts, 5 << 20)
    assert [header, parent] == parts[:2]
    assert json.loads(metadata) == {"sandkernel_omitted": sum(map(len, parts))}
    assert len(kept) < 1 << 20
    return dict(json.loads(kept))


def test_a_result_keeps_how_it_begins() -> None:
    text = 'é\n"' * (3 << 20)
    kept = left_out("execute_result", {"data": {"text/plain": text}, "metadata": {}, "execution_count": 7})
    assert kept["execution_count"] == 7
    assert text.startswith(kept["data"]["text/plain"])
    assert len(kept["data"]["text/plain"]) > 10_000


def test_what_is_displayed_keeps_its_id() -> None:
    content = {"data": {"image/png": "A" * (6 << 20)}, "metadata": {}, "transient": {"display_id": "shown"}}
    for kind in ("display_data", "update_display_data"):
        assert left_out(kind, content)["transient"] == {"display_id": "shown"}
    assert left_out("display_data", {"data": {}}, buffers=(b"x" * (6 << 20),))["data"] == {"text/plain": ""}


def test_an_error_keeps_its_name_and_the_beginning_of_its_text() -> None:
    text = "x" * (6 << 20)
    error = {
        "status": "error",
        "traceback": ['"ename": "Forged"', text],
        "ename": "ValueError",
        "evalue": text,
    }
    for kind in ("error", "execute_reply"):
        kept = left_out(kind, error | {"execution_count": 3, "user_expressions": {}, "payload": []})
        assert (kept["ename"], kept["status"], kept["traceback"]) == ("ValueError", "error", [])
        assert kept["evalue"].startswith("xxxx")
        assert kept["evalue"].endswith("bytes left out …]\n")
        assert kept["execution_count"] == 3


@pytest.mark.parametrize(
    "content", [b"", b"\x80" * (6 << 20), b'{"text": ' + b"[" * (6 << 20), b'"' * (6 << 20)]
)
@pytest.mark.parametrize("kind", ["stream", "execute_result", "execute_reply", "comm_msg"])
def test_nonsense_is_shortened_too(content: bytes, kind: str) -> None:
    parts = [*message(kind, {})[:3], content, b"x" * (6 << 20)]
    messages = shortened(parts, 5 << 20)
    assert messages
    for each in messages:
        assert sum(map(len, each)) < 5 << 20
