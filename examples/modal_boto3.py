"""An agent's code in a sandbox on Modal, with a package of its own and a secret of the workspace's.

    modal secret create aws-read-only AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...
    python examples/modal_boto3.py

With `--local` it runs on this machine, on a stand-in for Modal's servers: no account is needed. The model
has a script; for a real one, put for example `InferenceClientModel()` in its place.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import modal
from smolagents import CodeAgent, Model
from smolagents.models import ChatMessage, MessageRole
from smolagents.monitoring import AgentLogger, LogLevel

from sandkernel import ModalExecutor

STEPS = [
    "import importlib.util, os\nhas_key = 'AWS_ACCESS_KEY_ID' in os.environ",
    """
print('the key is', 'there' if has_key else 'missing')
final_answer({'boto3': importlib.util.find_spec('boto3') is not None})
""",
]


class ScriptedModel(Model):
    """Says the steps above, one after the other."""

    def __init__(self) -> None:
        super().__init__(model_id="scripted")
        self.steps = iter(STEPS)

    def generate(self, *_: Any, **__: Any) -> ChatMessage:
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"<code>\n{next(self.steps)}\n</code>")


def main() -> None:
    image = modal.Image.debian_slim().uv_pip_install("boto3", "jupyter", "jupyter_kernel_gateway")
    create_kwargs = {"image": image, "secrets": [modal.Secret.from_name("aws-read-only")]}
    logger = AgentLogger(level=LogLevel.INFO)
    with ModalExecutor([], logger, create_kwargs=create_kwargs, timeout=60) as executor:
        agent = CodeAgent([], ScriptedModel(), executor=executor, verbosity_level=LogLevel.OFF)
        print("The agent's answer:", agent.run("Can you reach our buckets?"))
        print("It printed:", executor.state["_print_outputs"].strip())
        print(f"Booted in {executor.boot_report}; it would live until {executor.expires_at}.")


@contextlib.contextmanager
def local() -> Any:
    from sandkernel.testing import LocalModal  # noqa: PLC0415 only needed here

    with LocalModal() as cloud, cloud.activate():
        cloud.add_secret(
            "aws-read-only", {"AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example"}
        )
        yield
        cloud.assert_no_running_sandboxes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--local", action="store_true")
    with local() if parser.parse_args().local else contextlib.nullcontext():
        main()
