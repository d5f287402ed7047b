"""A sandbox on Modal with a GPU, torch in its image, and a volume for what is to stay.

With `--local` it runs on this machine, on a stand-in for Modal's servers, without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import modal
from smolagents.monitoring import AgentLogger, LogLevel

from sandkernel import ModalExecutor

LOOK = """
import shutil, subprocess
if shutil.which("nvidia-smi"):
    print(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout)
else:
    print("no GPU on this machine")
"""


def main(packages: list[str]) -> None:
    volume = modal.Volume.from_name("sandkernel-models", create_if_missing=True)
    with ModalExecutor(
        packages,
        AgentLogger(level=LogLevel.INFO),
        gpu="T4",
        memory=8192,
        volumes={"/models": volume},
        lifetime=3600,
        timeout=600,
    ) as executor:
        print(executor(LOOK).logs.strip())
        # State stays in the kernel from one call to the next.
        executor("weights = [0.5] * 1000")
        print("sum of the weights:", executor("sum(weights)").output)


@contextlib.contextmanager
def local() -> Any:
    from sandkernel.testing import LocalModal  # noqa: PLC0415 only needed here

    with LocalModal() as cloud, cloud.activate():
        yield
        cloud.assert_no_running_sandboxes()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--local", action="store_true")
    with local() if parser.parse_args().local else contextlib.nullcontext():
        main(["torch"])
