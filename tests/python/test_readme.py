"""The README's examples run as they stand, but for the model and the gateway's address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import sandkernel
from executor_support import ScriptedModel
from sandkernel.providers.local import LocalSandbox
from sandkernel.testing import LocalModal

if TYPE_CHECKING:
    import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def example(marker: str) -> str:
    (block,) = [block for block in BLOCKS if marker in block]
    return block


def run_agent(code: str) -> object:
    answers: list[object] = []
    code = code.replace(", InferenceClientModel\n", "\n")
    code = code.replace("agent.run(", "answers.append(agent.run(").replace('primes?")', 'primes?"))')
    model = ScriptedModel("import numpy\nfinal_answer(int(numpy.mean([2, 3, 4])))")
    exec(code, {"InferenceClientModel": lambda: model, "answers": answers})
    (answer,) = answers
    return answer


def test_the_first_example() -> None:
    with LocalModal() as cloud, cloud.activate():
        assert run_agent(example("with ModalExecutor")) == 3
        cloud.assert_no_running_sandboxes(within=10)


def test_the_example_without_an_account() -> None:
    assert run_agent(example("with LocalExecutor([")) == 3


def test_the_session() -> None:
    with LocalSandbox() as sandbox:
        code = example("Session.connect").replace("http://127.0.0.1:8888", sandbox.endpoint.url)
        names: dict[str, object] = {"token": sandbox.endpoint.token}
        exec(code, names)
    execution = names["execution"]
    assert isinstance(execution, sandkernel.Execution)
    assert (execution.stdout, execution.text, execution.error) == ("hello\n", "42", None)
    assert isinstance(names["event"], sandkernel.Output)


def test_the_sandbox() -> None:
    names: dict[str, object] = {}
    exec(example("Sandbox.create"), names)
    assert (names["total"], names["found"]) == (6, "['primes 0', 'primes 1']")
    assert isinstance(names["event"], sandkernel.Execution)
    assert names["address"] == "http://127.0.0.1:7860"


def test_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(example("executor.files"), {})
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["numbers.csv", "total.txt"]
    assert (tmp_path / "results" / "total.txt").read_text() == "6"


def test_several_kernels() -> None:
    names: dict[str, object] = {}
    exec(example("executor.run_many"), names)
    fine, failed = names["outcomes"]  # type: ignore[misc]
    assert fine.result().output == "11"
    assert "ZeroDivisionError" in str(failed.error)


def test_the_tests_that_prove_the_comparison_are_there() -> None:
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\[([^\]]+)\]\(https://github\.com/sandkernel/sandkernel/blob/main/([^)]+)\)", text)
    proofs = [(name, path) for name, path in links if path.startswith(("tests/", "benches/python"))]
    assert len(proofs) > 30
    for name, path in proofs:
        source = (README.parent / path).read_text(encoding="utf-8")
        assert path.endswith(f"/{name}") or re.search(rf"\b(def|fn) {name}\(", source), name
