"""The model sees what its code displays, in its next message."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from smolagents import CodeAgent
from smolagents.memory import ActionStep

from sandkernel import GatewayExecutor, LocalExecutor
from sandkernel.integrations.smolagents.modal import ModalExecutor
from sandkernel.pytest_plugin.model import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smolagents.models import ChatMessage

    from sandkernel import KernelExecutor
    from sandkernel.testing import LocalModal


class Watching(ScriptedModel):
    """A model that keeps the images that it was shown: of each call, their sizes."""

    def __init__(self, *steps: str) -> None:
        super().__init__(*steps)
        self.shown: list[list[tuple[int, int]]] = []
        self.modes: set[str] = set()

    def generate(self, messages: list[ChatMessage], **options: Any) -> ChatMessage:
        parts = [part for message in messages for part in message.content if isinstance(part, dict)]
        images = [part["image"] for part in parts if part["type"] == "image"]
        self.shown.append([image.size for image in images])
        self.modes |= {image.mode for image in images}
        return super().generate(messages, **options)


IMAGE = "from PIL import Image\nfor width in {}: display(Image.new('RGB', (width, 5)))"


@pytest.fixture(scope="module")
def seeing() -> Iterator[LocalExecutor]:
    with LocalExecutor(timeout=60, show_images=True) as executor:
        yield executor


def run(executor: KernelExecutor, *steps: str, **options: Any) -> Watching:
    model = Watching(*steps, "final_answer(1)")
    agent = CodeAgent([], model, executor=executor, **options)
    assert agent.run("Look.") == 1
    return model


def test_a_plot_is_in_the_next_message(seeing: LocalExecutor) -> None:
    model = run(seeing, "import matplotlib.pyplot as plt\nplt.plot([1, 2])", "'nothing to see'")
    first, second, third = model.shown
    assert first == []
    assert len(second) == 1
    # It stays where it was seen, as all that is in the memory.
    assert third == second


@pytest.mark.parametrize(
    "code",
    [
        IMAGE.format([7]),
        "from PIL import Image\nImage.new('RGB', (7, 5))",
        IMAGE.format([7]) + "\n1 / 0",
        "from IPython.display import clear_output\n"
        + IMAGE.format([9])
        + "\nclear_output()\n"
        + IMAGE.format([7]),
    ],
    ids=["displayed", "the last expression", "before an error", "after what was cleared"],
)
def test_what_is_displayed_is_seen(seeing: LocalExecutor, code: str) -> None:
    assert run(seeing, code).shown == [[], [(7, 5)]]


def test_their_number_and_size_are_bounded(seeing: LocalExecutor) -> None:
    assert run(seeing, IMAGE.format([1, 2, 3, 4, 5, 6])).shown[1] == [(3, 5), (4, 5), (5, 5), (6, 5)]
    assert run(seeing, "from PIL import Image\ndisplay(Image.new('1', (4096, 1024)))").shown[1] == [
        (2048, 512)
    ]
    bomb = "display({'image/png': 'iVBORw0KGgo=', 'text/plain': 'broken'}, raw=True)"
    assert run(seeing, bomb).shown == [[], []]
    with LocalExecutor(timeout=60, show_images=True, payload_limits={"image_pixels": 100}) as executor:
        assert run(executor, IMAGE.format([10, 100])).shown[1] == [(10, 5)]


def test_odd_modes_become_what_a_png_holds(seeing: LocalExecutor) -> None:
    code = "import io, base64\nfrom PIL import Image\nfile = io.BytesIO()\n"
    code += (
        "Image.new('CMYK', (8, 8)).save(file, 'JPEG')\nimage = base64.b64encode(file.getvalue()).decode()\n"
    )
    model = run(seeing, code + "display({'image/jpeg': image}, raw=True)")
    assert model.shown[1] == [(8, 8)]
    assert model.modes == {"RGB"}


def test_images_of_the_task_stay(seeing: LocalExecutor) -> None:
    import PIL.Image  # noqa: PLC0415

    model = Watching(IMAGE.format([7]), "final_answer(1)")
    agent = CodeAgent([], model, executor=seeing)
    agent.run("Look.", images=[PIL.Image.new("RGB", (3, 3))])
    assert sorted(model.shown[1]) == [(3, 3), (3, 3), (7, 5)]


def test_streaming_runs_and_agents_that_got_the_executor_later(seeing: LocalExecutor) -> None:
    model = Watching(IMAGE.format([7]), "final_answer(1)")
    agent = CodeAgent([], model)
    agent.python_executor = seeing
    steps = [step for step in agent.run("Look.", stream=True) if isinstance(step, ActionStep)]
    assert [image.size for image in steps[0].observations_images] == [(7, 5)]
    assert model.shown == [[], [(7, 5)]]


def test_each_agent_sees_its_own(seeing: LocalExecutor) -> None:
    models = {width: Watching(IMAGE.format([width]), "final_answer(1)") for width in (7, 8)}
    kernels = {width: seeing.new_kernel() for width in models}

    def work(width: int) -> None:
        CodeAgent([], models[width], executor=kernels[width]).run("Look.")

    threads = [threading.Thread(target=work, args=(width,)) for width in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {width: model.shown for width, model in models.items()} == {
        width: [[], [(width, 5)]] for width in models
    }
    for kernel in kernels.values():
        kernel.cleanup()


def test_it_is_off_by_default_saved_and_on_every_executor(
    executor: LocalExecutor, seeing: LocalExecutor, cloud: LocalModal
) -> None:
    assert run(executor, IMAGE.format([7])).shown == [[], []]
    assert "show_images" not in executor._settings
    assert CodeAgent([], ScriptedModel(), executor=seeing).to_dict()["executor_kwargs"]["show_images"] is True
    endpoint = seeing._sandbox.endpoint
    with GatewayExecutor(url=endpoint.url, token=endpoint.token, show_images=True) as remote:
        assert run(remote, IMAGE.format([7])).shown[1] == [(7, 5)]
        remote.show_images = False
        assert run(remote, IMAGE.format([7])).shown[1] == []
    assert cloud.sandboxes == []
    with ModalExecutor(show_images=True) as modal:
        assert run(modal, IMAGE.format([7])).shown[1] == [(7, 5)]
        sandbox_id = modal.detach()
    with ModalExecutor.from_id(sandbox_id, show_images=True) as again:
        assert run(again, IMAGE.format([7])).shown[1] == [(7, 5)]
