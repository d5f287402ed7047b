"""Tests of a program that uses sandboxes on Modal, without an account: `pytest examples/modal_pytest`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from research import mean
from smolagents.utils import AgentExecutionError

if TYPE_CHECKING:
    from sandkernel.testing import LocalModal


def test_the_mean(cloud: LocalModal) -> None:
    assert mean([1, 2, 6]) == 3
    (sandbox,) = cloud.sandboxes
    assert (sandbox.app_name, sandbox.end_reason) == ("research", "terminated")


def test_an_error_leaves_no_sandbox(cloud: LocalModal) -> None:
    with pytest.raises(AgentExecutionError, match="ZeroDivisionError"):
        mean([])
    assert len(cloud.sandboxes) == 1


def test_modal_is_out_of_capacity(cloud: LocalModal) -> None:
    cloud.faults.create_fails("RESOURCE_EXHAUSTED")
    assert mean([1]) is None
    assert cloud.sandboxes == []
