"""Variables on their way into the kernel."""

from __future__ import annotations

import datetime as dt
import decimal
import pathlib
import threading
from typing import Any

import numpy as np
import PIL.Image
import pytest

from sandkernel import LocalExecutor
from sandkernel.exceptions import PayloadError


def test_no_variables_are_no_request(executor: LocalExecutor) -> None:
    before = executor.last_execution
    executor.send_variables({})
    assert executor.last_execution is before


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        0.1,
        "quotes ' \" \\ \n \u00e9 \U0001f600",
        ("a", "b"),
        b"binary\x00",
        {"a": [1, {"b": (2,)}]},
        {1: 2},
        {1, 2},
        frozenset({3}),
        2 - 1j,
        dt.datetime(2024, 5, 17, 3, 4, 5),  # noqa: DTZ001
        dt.date(2024, 5, 17),
        dt.time(3, 4),
        dt.timedelta(seconds=1.5),
        decimal.Decimal("0.10"),
        pathlib.PosixPath("/a/b"),
    ],
    ids=repr,
)
def test_values_arrive_as_they_were(executor: LocalExecutor, value: Any) -> None:
    executor.send_variables({"sent": value})
    assert executor("type(sent).__name__, sent").output == repr((type(value).__name__, value))


def test_arrays_and_images_arrive(executor: LocalExecutor) -> None:
    executor.send_variables(
        {"grid": np.eye(2, dtype="float32"), "red": PIL.Image.new("RGB", (2, 3), (255, 0, 0))}
    )
    assert executor("grid.dtype.name, grid.tolist()").output == "('float32', [[1.0, 0.0], [0.0, 1.0]])"
    assert executor("red.size, red.getpixel((0, 0))").output == "((2, 3), (255, 0, 0))"


@pytest.mark.parametrize("character", ["x", '"', "\\", "\u4e2d"])
def test_large_variables_arrive_whole(executor: LocalExecutor, character: str) -> None:
    executor.send_variables({"large": character * 12_000_000})
    assert executor(f"len(large), set(large) == {{{character!r}}}").output == "(12000000, True)"


def test_what_does_not_shrink_travels_in_pieces(executor: LocalExecutor) -> None:
    noise = np.random.default_rng(0).bytes(4_000_000)
    executor.send_variables({"noise": noise})
    import hashlib  # noqa: PLC0415

    expected = hashlib.sha256(noise).hexdigest()
    assert executor("import hashlib; hashlib.sha256(noise).hexdigest()").output == repr(expected)
    # IPython would keep the source of every cell, and so a copy of it.
    held = executor(
        "import linecache; max(len(''.join(e[2])) for e in linecache.cache.values() if len(e) > 2)"
    )
    assert int(held.output) < 1_000_000


@pytest.mark.parametrize("value", [object(), threading.Lock(), [1, {"deep": object()}], {"a": open}])
def test_a_variable_that_cannot_be_sent_is_named(executor: LocalExecutor, value: Any) -> None:
    with pytest.raises(PayloadError, match=rf"'client' of type {type(value).__name__} can't be sent"):
        executor.send_variables({"fine": 1, "client": value})


def test_a_variable_that_is_too_deep_is_named(executor: LocalExecutor) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(PayloadError, match=r"'deep' of type list.*nested too deeply"):
        executor.send_variables({"deep": deep})


def test_a_name_is_text(executor: LocalExecutor) -> None:
    with pytest.raises(PayloadError, match="not 1"):
        executor.send_variables({1: 2})  # type: ignore[dict-item]


def test_pickles_travel_only_where_allowed(executor: LocalExecutor) -> None:
    with pytest.raises(PayloadError, match="'error' of type ValueError"):
        executor.send_variables({"error": ValueError("boom")})
    with LocalExecutor(allow_pickle=True) as trusting:
        with pytest.warns(FutureWarning, match="'error' has no safe form") as warned:
            trusting.send_variables({"error": ValueError("boom"), "plain": (1, 2)})
        assert len(warned) == 1
        assert trusting("error, plain").output == "(ValueError('boom'), (1, 2))"
        with (
            pytest.warns(FutureWarning, match="'lock'"),
            pytest.raises(PayloadError, match="'lock' of type lock"),
        ):
            trusting.send_variables({"lock": threading.Lock()})
