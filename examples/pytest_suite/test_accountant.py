"""Tests of an agent without an account and without a network: `pytest examples/pytest_suite`.

The fixtures come with sandkernel: `sandkernel_executor`, `sandkernel_modal`, `scripted_model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from accountant import total, total_on_modal

if TYPE_CHECKING:
    from sandkernel import GatewayExecutor
    from sandkernel.testing import LocalModal


def test_the_total(sandkernel_executor: GatewayExecutor, scripted_model: Any) -> None:
    model = scripted_model("print(len(bills))", "final_answer(sum(bills))")
    assert total(model, sandkernel_executor, [1.5, 2.5]) == 4
    assert "Execution logs:\n2" in model.seen[1]


def test_the_model_sees_its_error(sandkernel_executor: GatewayExecutor, scripted_model: Any) -> None:
    model = scripted_model("sum(bill)", "final_answer(sum(bills))")
    assert total(model, sandkernel_executor, [1]) == 1
    assert "NameError: name 'bill' is not defined" in model.seen[1]


@pytest.mark.parametrize("value", [1, 2])
def test_each_test_has_a_namespace_of_its_own(sandkernel_executor: GatewayExecutor, value: int) -> None:
    assert sandkernel_executor("'left' in globals() or 'left' in __import__('os').environ").output == "False"
    sandkernel_executor(f"left = {value}; __import__('os').environ['left'] = 'x'")
    assert sandkernel_executor("left").output == str(value)


def test_on_modal(sandkernel_modal: LocalModal, scripted_model: Any) -> None:
    assert total_on_modal(scripted_model("final_answer(sum(bills))"), [1, 2]) == 3
    (sandbox,) = sandkernel_modal.sandboxes
    assert (sandbox.app_name, sandbox.end_reason) == ("accountant", "terminated")


def test_without_a_sandbox(sandkernel_modal: LocalModal, scripted_model: Any) -> None:
    sandkernel_modal.faults.create_fails("RESOURCE_EXHAUSTED")
    assert total_on_modal(scripted_model("final_answer(sum(bills))"), [1, 2]) is None
