"""Values to a real kernel and back, large ones too."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import pytest
from smolagents import FinalAnswerTool
from smolagents.utils import AgentExecutionError

from executor_support import running_gateway
from rich_values import LIBRARY_VALUES, STANDARD_VALUES, same
from sandkernel import GatewayExecutor, LocalExecutor, PayloadLimits
from sandkernel.exceptions import PayloadError
from sandkernel.serialization import Encoder, decode
from test_serialization import VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandkernel import KernelExecutor


@pytest.fixture(scope="module", params=["local", "stock gateway"])
def kernel(request: pytest.FixtureRequest) -> Iterator[KernelExecutor]:
    with contextlib.ExitStack() as stack:
        if request.param == "local":
            executor: KernelExecutor = stack.enter_context(LocalExecutor(timeout=60))
        else:
            gateway = stack.enter_context(running_gateway())
            executor = stack.enter_context(GatewayExecutor(url=gateway.url, token=gateway.token, timeout=60))
        executor.send_tools({"final_answer": FinalAnswerTool()})
        yield executor


def there_and_back(executor: KernelExecutor, value: Any) -> Any:
    executor.send_variables({"travelled": value})
    result = executor("final_answer(travelled)")
    assert result.is_final_answer
    return result.output


def wire_bytes(executor: KernelExecutor) -> int:
    return sum(len(buffer) for result in executor.last_execution.results for buffer in result.buffers)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_as_they_were(kernel: KernelExecutor, value: Any) -> None:
    if isinstance(value, str):
        # What is printed has no lone surrogates.
        assert there_and_back(kernel, [value]) == [value]
    else:
        assert there_and_back(kernel, value) == value


@pytest.mark.parametrize("values", [LIBRARY_VALUES, STANDARD_VALUES], ids=["libraries", "standard"])
def test_values_of_libraries_are_as_they_were(kernel: KernelExecutor, values: list[Any]) -> None:
    for received, value in zip(there_and_back(kernel, values), values, strict=True):
        same(received, value)


@pytest.mark.parametrize("dtype", ["float64", ">i2", "<U5", "M8[us]", "complex64", "bool"])
@pytest.mark.parametrize("count", [5, 50_000])
def test_arrays(kernel: KernelExecutor, dtype: str, count: int) -> None:
    array = np.arange(count).astype(dtype).reshape(-1, 5)
    received = there_and_back(kernel, {"a": [array, array.T]})
    for got, expected in zip(received["a"], (array, array.T), strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype
    assert all(array.flags.writeable for array in received["a"])
    assert kernel("[array.flags.writeable for array in travelled['a']]").output == "[True, True]"


def test_arrays_travel_as_their_bytes(kernel: KernelExecutor) -> None:
    array = np.random.default_rng(0).random((100, 300))
    np.testing.assert_array_equal(there_and_back(kernel, array), array)
    assert array.nbytes < wire_bytes(kernel) < 1.01 * array.nbytes


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_images(kernel: KernelExecutor, mode: str) -> None:
    image = PIL.Image.linear_gradient("L").resize((300, 200)).convert("RGB").convert(mode)
    received = there_and_back(kernel, [image])[0]
    assert (received.mode, received.size) == (image.mode, image.size)
    assert received.tobytes() == image.tobytes()


@pytest.mark.parametrize("size", [3, 20_000])
def test_a_bytearray_is_one(kernel: KernelExecutor, size: int) -> None:
    received = there_and_back(kernel, [bytearray(size)])
    assert (type(received[0]), received) == (bytearray, [bytearray(size)])


def image_of(mode: str, size: tuple[int, int]) -> PIL.Image.Image:
    count = len(PIL.Image.new(mode, size).tobytes())
    noise = np.random.default_rng(3).bytes(count)
    if mode == "F":
        noise = np.linspace(-1e30, 1e30, count // 4, dtype="f4").tobytes()
    image = PIL.Image.frombytes(mode, size, noise) if count else PIL.Image.new(mode, size)
    if mode in ("P", "PA"):
        image.putpalette(bytes(range(256)) * 3)
    return image


MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I",
    "F",
]


@pytest.mark.parametrize("size", [(7, 5), (300, 200), (0, 3)], ids=str)
@pytest.mark.parametrize("mode", [*MODES, "I;16", "I;16B"])
def test_images_of_all_modes_are_as_they_were(
    kernel: KernelExecutor, mode: str, size: tuple[int, int]
) -> None:
    image = image_of(mode, size)
    received = there_and_back(kernel, [image])[0]
    assert (received.mode, received.size) == (mode, size)
    assert received.tobytes() == image.tobytes()
    assert 0 in size or received.getpalette() == image.getpalette()
    # Also without anything beside the JSON.
    again = decode("safe", [json.dumps(Encoder().encode(image)).encode()])
    assert (again.mode, again.size, again.tobytes()) == (mode, size, image.tobytes())


@pytest.mark.parametrize("size", [(7, 5), (300, 200)])
@pytest.mark.parametrize(
    ("mode", "transparency"), [("P", 3), ("P", bytes(range(256))), ("RGB", (1, 2, 3)), ("L", 9)]
)
def test_the_transparency_of_an_image_stays(
    kernel: KernelExecutor, mode: str, size: tuple[int, int], transparency: Any
) -> None:
    image = image_of(mode, size)
    image.info["transparency"] = transparency
    received = there_and_back(kernel, image)
    assert (received.mode, received.tobytes()) == (mode, image.tobytes())
    assert received.convert("RGBA").tobytes() == image.convert("RGBA").tobytes()


def test_a_large_answer(kernel: KernelExecutor) -> None:
    """Also where the gateway drops it, and it is asked for in pieces."""
    received = kernel(
        "import numpy\ngrid = numpy.arange(500_000.0)\n"
        "final_answer({'text': 'é' * 600_000, 'grid': grid, 'raw': b'x' * 99_999})"
    ).output
    assert received["text"] == "é" * 600_000
    np.testing.assert_array_equal(received["grid"], np.arange(500_000.0))
    assert received["raw"] == b"x" * 99_999


def test_what_does_not_shrink_arrives_whole(kernel: KernelExecutor) -> None:
    noise = np.random.default_rng(1).bytes(11_000_000)
    steps: list[tuple[int, int]] = []
    kernel.send_variables(
        {"noise": noise, "words": "aé\ud800" * 700_000, "small": 1},
        on_progress=lambda *step: steps.append(step),
    )
    assert kernel("import hashlib; hashlib.sha256(noise).hexdigest()").output == repr(
        hashlib.sha256(noise).hexdigest()
    )
    assert kernel("words == 'aé\\ud800' * 700_000, small").output == "(True, 1)"
    total = steps[-1][1]
    assert total > 15_000_000
    assert [sent for sent, _ in steps] == sorted(sent for sent, _ in steps)
    assert steps[-1] == (total, total)
    assert {of for _, of in steps} == {total}
    assert len(steps) == 4


def test_a_progress_that_raises_leaves_nothing_behind(kernel: KernelExecutor) -> None:
    kernel.send_variables({"one": "before"})

    def stop(_sent: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kernel.send_variables({"one": "after", "two": bytes(range(256)) * 40_000}, on_progress=stop)
    assert kernel("one, 'two' in globals()").output == "('before', False)"
    assert kernel("import _sandkernel_shipments; _sandkernel_shipments._arrival").output is None
    kernel.send_variables({"two": "then"})
    assert kernel("one, two").output == "('before', 'then')"


async def test_a_cancelled_task_leaves_nothing_behind(kernel: KernelExecutor) -> None:
    kernel.send_variables({"one": "before"})
    begun = asyncio.Event()
    sending = asyncio.create_task(
        kernel.asend_variables(
            {"one": "after", "three": np.random.default_rng(2).bytes(30_000_000)},
            on_progress=lambda _sent, _total: begun.set(),
        )
    )
    await begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (await kernel.arun("one, 'three' in globals()")).output == "('before', False)"
    assert kernel("import _sandkernel_shipments; _sandkernel_shipments._arrival").output is None


def test_a_variable_that_cannot_be_bound_binds_none(kernel: KernelExecutor) -> None:
    kernel.send_variables({"one": "before"})
    kernel("import sys; hidden = sys.modules.pop('numpy', None); sys.modules['numpy'] = None")
    try:
        with pytest.raises(PayloadError, match="'four' needs a package that is not installed"):
            kernel.send_variables({"one": "after", "four": np.arange(3)})
    finally:
        kernel("sys.modules.pop('numpy'); sys.modules.update({'numpy': hidden} if hidden else {})")
    assert kernel("one, 'four' in globals()").output == "('before', False)"


def test_a_kernel_that_does_not_tell_what_is_attached(kernel: KernelExecutor, tmp_path: Path) -> None:
    blob = random.Random(1).randbytes(5 << 20)
    kernel("tell = get_ipython().kernel.get_parent")
    kernel("get_ipython().kernel.get_parent = lambda channel=None: {**tell(channel), 'buffers': []}")
    try:
        kernel.send_variables({"blob": blob, "text": "é" * 1000})
        kernel.files.write(tmp_path / "blob", blob)
        assert kernel("text == 'é' * 1000 and len(blob)").output == str(5 << 20)
        assert (tmp_path / "blob").read_bytes() == blob
    finally:
        kernel("get_ipython().kernel.get_parent = tell")


def test_the_agents_error_says_where(kernel: KernelExecutor) -> None:
    with pytest.raises(AgentExecutionError, match=r"holds an object of type object at answer\['a'\]\[1\]"):
        kernel("final_answer({'a': [1, object()]})")
    with pytest.raises(AgentExecutionError, match="an int of more than 4300 digits"):
        kernel("final_answer(10**5000)")


def test_limits_are_the_executors() -> None:
    with LocalExecutor(payload_limits=PayloadLimits(array_bytes=1000, payload_bytes=100_000)) as executor:
        executor.send_tools({"final_answer": FinalAnswerTool()})
        with pytest.raises(
            PayloadError, match=r"answer\['a'\] is an array.*payload_limits.array_bytes allows 1000"
        ):
            executor("import numpy; final_answer({'a': numpy.zeros(1000)})")
        with pytest.raises(PayloadError, match=r"payload_limits\.payload_bytes allows 100000"):
            executor("final_answer('x' * 200_000)")
        assert executor("final_answer(numpy.zeros(3))").output.tolist() == [0, 0, 0]


def test_a_displayed_bomb_is_left_alone() -> None:
    with LocalExecutor(payload_limits={"image_pixels": 100}) as executor:
        code = "from PIL import Image\nImage.new('1', ({0}, {0}))"
        assert executor(code.format(10)).output.size == (10, 10)
        assert "PIL.Image" in executor(code.format(11)).output


@pytest.mark.parametrize("kind", ["bytes", "text", "array"])
def test_sending_takes_little_memory(kind: str) -> None:
    code = """
        import sys
        import numpy as np
        from sandkernel import LocalExecutor
        def peak():
            (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
            return int(line.split()[1]) // 1024
        noise = np.random.default_rng(0).bytes(64 << 20)
        value = {"bytes": lambda: noise, "array": lambda: np.frombuffer(noise, "f8"),
                 "text": lambda: noise[: 32 << 20].hex()}[sys.argv[1]]()
        with LocalExecutor() as executor:
            executor.send_variables({"value": noise[: 16 << 20]})
            # Counted from here, beside what is kept of a smaller one's pieces.
            open("/proc/self/clear_refs", "w").write("5")
            before = peak()
            executor.send_variables({"value": value})
            print(peak() - before, executor("len(value)").output)
    """
    import textwrap  # noqa: PLC0415

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), kind], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    megabytes, length = map(int, done.stdout.split())
    assert length == {"bytes": 64 << 20, "text": 64 << 20, "array": 8 << 20}[kind]
    # A few copies of the piece under way; a copy of the value would be 64.
    assert megabytes < 60


def test_a_frame_of_places_says_how_it_is_sent(kernel: KernelExecutor) -> None:
    code = (
        "import pandas\nclass GeoDataFrame(pandas.DataFrame): pass\nfinal_answer([GeoDataFrame({'a': [1]})])"
    )
    with pytest.raises(AgentExecutionError, match=r"GeoDataFrame: send its .to_json\(\), or its .to_wkb\(\)"):
        kernel(code)
