"""Whatever is decoded, it is a value or a `PayloadError`."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payloads import seeds
from sandkernel import PayloadLimits
from sandkernel.exceptions import PayloadError
from sandkernel.serialization import Encoder, decode

KINDS = [
    "bytes",
    "PIL.Image",
    "set",
    "tuple",
    "complex",
    "frozenset",
    "dict_with_complex_keys",
    "datetime",
    "date",
    "time",
    "timedelta",
    "Decimal",
    "Path",
    "ndarray",
    "dataclass",
    "buffer",
    "other",
]
FIELDS = ["data", "dtype", "shape", "index", "kind", "mode", "size", "real", "imag", "class_name", "module"]
# Small, so that examples reach them.
LIMITS = PayloadLimits(depth=12, items=2000, image_pixels=5000, array_items=500, array_bytes=4000)
WORDS = st.sampled_from(
    [
        "<f8",
        "<U3",
        "U",
        "object",
        "bool",
        "M8[ns]",
        "2024-01-02",
        "1.5",
        "NaN",
        "bytes",
        "str",
        "ndarray",
        "image",
        "RGB",
    ]
)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), WORDS, st.integers(0, 3)
)


def typed(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.sampled_from(FIELDS), children, max_size=6)
    return st.tuples(st.sampled_from(KINDS), fields).map(lambda both: {"__type__": both[0], **both[1]})


documents = st.recursive(
    scalars,
    lambda children: st.one_of(
        st.lists(children, max_size=5),
        st.dictionaries(st.text(max_size=4), children, max_size=4),
        typed(children),
        typed(children),
    ),
    max_leaves=20,
)
bounded = settings(max_examples=300, deadline=None, database=None)


def settle(form: str, *buffers: bytes) -> None:
    try:
        decode(form, buffers, limits=LIMITS)
    except PayloadError as error:
        assert len(str(error)) < 3000  # noqa: PT017 what is raised is the point


@bounded
@given(documents)
def test_json_is_a_value_or_refused(document: Any) -> None:
    settle("safe", json.dumps(document).encode())


@bounded
@given(documents, st.lists(st.binary(max_size=64), max_size=3))
def test_json_with_buffers_is_a_value_or_refused(document: Any, buffers: list[bytes]) -> None:
    sizes = [len(buffer) for buffer in buffers]
    settle("buffers-1", json.dumps({"value": document, "sizes": sizes}).encode(), *buffers)


@bounded
@given(st.sampled_from(["safe", "buffers-1"]), st.lists(st.binary(max_size=200), max_size=3))
def test_bytes_are_a_value_or_refused(form: str, buffers: list[bytes]) -> None:
    settle(form, *buffers)


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.complex_numbers(allow_nan=False),
        st.datetimes(),
        st.dates(),
        st.times(),
        st.decimals(allow_nan=False),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(
            st.one_of(st.text(), st.just("__type__"), st.integers(), st.dates()), children, max_size=4
        ),
        st.frozensets(st.one_of(st.text(), st.integers(), st.binary()), max_size=4),
    ),
    max_leaves=15,
)


@bounded
@given(plain)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    assert decode("safe", [json.dumps(Encoder().encode(value)).encode()]) == value


PARTS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b",",
    b"-",
    b"9" * 20,
    b"null",
    b'"__type__"',
    b"\\",
    b"\xff\xff",
    b"\0",
    b"e308",
]


@pytest.mark.parametrize("seed", range(3))
# What PIL says of an image that is odd and that it reads all the same.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_payloads_are_a_value_or_refused(seed: int) -> None:
    dice = random.Random(seed)
    originals = seeds()
    for _ in range(1500):
        form, buffers = dice.choice(originals)
        mutated = [bytearray(buffer) for buffer in buffers]
        target = dice.choice(mutated)
        for _ in range(dice.choice([1, 1, 2, 5])):
            at = dice.randrange(len(target) + 1)
            choice = dice.random()
            if choice < 0.4 and at < len(target):
                target[at] = dice.randrange(256)
            elif choice < 0.7:
                target[at : at + dice.choice([0, 1, 4])] = dice.choice(PARTS)
            elif choice < 0.85:
                del target[at : at + dice.choice([1, 3, 100])]
            else:
                start = dice.randrange(len(target) + 1)
                target[at:at] = target[start : start + dice.choice([2, 20])]
        settle(form, *map(bytes, mutated))


def test_the_seeds_are_values() -> None:
    for form, buffers in seeds():
        assert decode(form, buffers) is not None
