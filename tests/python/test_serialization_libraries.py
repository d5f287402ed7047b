"""What the standard library and others make, there and back, apart from any kernel."""

from __future__ import annotations

import collections
import dataclasses
import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import matplotlib.figure
import numpy as np
import pandas as pd
import PIL.Image
import polars as pl
import polars.testing.parametric
import pyarrow as pa
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import pandas as pandas_strategies
from smolagents.agent_types import AgentAudio, AgentImage, AgentText
from smolagents.serialization import SafeSerializer

from rich_values import FRAME, LIBRARY_VALUES, STANDARD_VALUES, same
from sandkernel.exceptions import PayloadError
from sandkernel.serialization import Encoder, UnsendableError, decode
from test_serialization import safe, with_buffers

if TYPE_CHECKING:
    from pathlib import Path


def there_and_back(value: Any) -> Any:
    return decode("buffers-1", with_buffers(value))


@pytest.mark.parametrize("value", [*LIBRARY_VALUES, *STANDARD_VALUES], ids=lambda value: type(value).__name__)
def test_values_are_as_they_were(value: Any) -> None:
    same(decode("safe", [safe(value)]), value)
    same(there_and_back([value])[0], value)


bounded = settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
frames_of_pandas = pandas_strategies.data_frames(
    [
        pandas_strategies.column("int", dtype="int16"),
        pandas_strategies.column("float", dtype=float),
        pandas_strategies.column("text", elements=st.text(st.characters(exclude_categories=["Cs"]))),
        pandas_strategies.column("moment", dtype="M8[ns]"),
        pandas_strategies.column("truth", dtype=bool),
    ],
    index=pandas_strategies.range_indexes(max_size=8),
)


@bounded
@given(frames_of_pandas)
def test_any_frame_of_pandas(frame: pd.DataFrame) -> None:
    same(there_and_back(frame), frame)


# Objects, and types of an extension, are refused.
@bounded
@given(polars.testing.parametric.dataframes(max_size=4, excluded_dtypes=[pl.Object, pl.Extension]))
def test_any_frame_of_polars(frame: pl.DataFrame) -> None:
    same(there_and_back(frame), frame)


def test_large_columns_travel_as_bytes() -> None:
    frame = pd.DataFrame({"number": np.arange(100_000.0), "text": ["é" * 10] * 100_000})
    document, *buffers = with_buffers(frame)
    assert len(document) < 1000
    assert sum(map(len, buffers)) == 100_000 * (8 + 20 + 4)
    same(decode("buffers-1", [document, *buffers]), frame)


def test_smolagents_reads_the_times_of_pandas() -> None:
    for value in (pd.Timestamp("2024-01-02 03:04", tz="UTC"), pd.Timedelta("1h")):
        assert SafeSerializer.from_json_safe(json.loads(safe(value))) == value


class Model(pydantic.BaseModel):
    name: str
    frame: Any = None


@dataclasses.dataclass
class Holder:
    held: Any


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        ({"a": FRAME.assign(bad=object())}, "['a']['bad'][0]", "an object of type object"),
        (pd.Series([1], index=[object()]), ".index[0]", "an object of type object"),
        (pl.DataFrame({"bad": [object()]}), "['bad']", "of the dtype Object"),
        ([pl.LazyFrame()], "[0]", "`collect()` it"),
        (Model(name="a", frame=[len]), ".frame[0]", "builtin_function"),
        (Holder(collections.deque([1, len])), ".held[1]", "builtin_function"),
        (collections.OrderedDict(a={len}), "['a'][0]", "builtin_function"),
        (collections.namedtuple("P", "x")(len), ".x", "builtin_function"),  # noqa: PYI024 as agents write it
        (np.array([(len,)], dtype=[("f", "O")]), "['f'][0]", "builtin_function"),
        (io.BytesIO(), "", "an object of type BytesIO"),
        (pa.array([b"x" * 16], pa.uuid()), "", "an extension type"),
    ],
)
def test_what_cannot_be_sent_is_found(value: Any, place: str, reason: str) -> None:
    for encode in (safe, with_buffers):
        with pytest.raises(UnsendableError) as raised:
            encode(value)
        assert raised.value.path == place
        assert reason in str(raised.value)


def test_models_arrive_as_data() -> None:
    received = there_and_back(Model(name="a", frame=FRAME))
    assert (received["__dataclass__"], received["name"]) == ("Model", "a")
    same(received["frame"], FRAME)


def test_a_dict_of_functions_arrives_as_a_dict() -> None:
    received = there_and_back(collections.defaultdict(lambda: 1, {"a": 2}))
    assert (type(received), received) == (dict, {"a": 2})


def test_figures_arrive_as_images() -> None:
    figure = matplotlib.figure.Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2])
    received = there_and_back([figure])[0]
    assert isinstance(received, PIL.Image.Image)
    assert len(received.convert("L").getcolors()) > 10


def test_types_of_agents_arrive_as_what_they_hold(tmp_path: Path) -> None:
    image = PIL.Image.linear_gradient("L")
    image.save(tmp_path / "image.png")
    assert there_and_back(AgentText("word")) == "word"
    for value in (AgentImage(image), AgentImage(tmp_path / "image.png")):
        assert there_and_back({"a": value})["a"].tobytes() == image.tobytes()
    with pytest.raises(UnsendableError, match="an AgentImage that can't be read"):
        there_and_back(AgentImage(tmp_path / "none.png"))


def test_sounds_arrive_with_their_rate() -> None:
    # Its constructor takes torch, which is a gigabyte; what it makes is an array with another name.
    sound = AgentAudio.__new__(AgentAudio)
    sound._path, sound._tensor, sound.samplerate = None, np.arange(20_000.0), 8000
    rate, samples = there_and_back(sound)
    assert rate == 8000
    np.testing.assert_array_equal(samples, np.arange(20_000.0))


def test_what_needs_a_package_says_so() -> None:
    code = """
import sys, json
sys.modules.update(pandas=None, polars=None, pyarrow=None)
from sandkernel.serialization import decode
from sandkernel.exceptions import PayloadError
for payload in json.load(sys.stdin):
    try:
        print(decode("safe", [payload.encode()]))
    except PayloadError as error:
        print(error)
"""
    values = [[FRAME], [pl.Series([1])], [pa.array([1])], pd.Timestamp("2024-01-02"), pd.NA]
    payloads = json.dumps([safe(value).decode() for value in values])
    done = subprocess.run(
        [sys.executable, "-c", code], input=payloads, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    for line, package in zip(lines, ("pandas", "polars", "pyarrow"), strict=False):
        assert "answer[0]" in line
        assert "needs a package that is not installed here" in line
        assert package in line
    assert lines[3:] == ["2024-01-02 00:00:00", "None"]


def test_a_refused_value_leaves_no_bytes() -> None:
    encoder = Encoder(with_buffers=True)
    with pytest.raises(UnsendableError):
        encoder.encode(pd.DataFrame({"large": np.arange(9000), "bad": object()}))
    assert encoder.buffers == []


@pytest.mark.parametrize("name", ["datetime", "timedelta"])
def test_nanoseconds_are_checked(name: str) -> None:
    value = {"__type__": name, "data": "2024-01-01T00:00", "total_seconds": 0, "nanosecond": "1"}
    with pytest.raises(PayloadError):
        decode("safe", [json.dumps(value).encode()])
