"""The program under test: an agent that computes, and copes with a lack of sandboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smolagents import CodeAgent

from sandkernel import BootError, ModalExecutor

if TYPE_CHECKING:
    from smolagents import Model


def total(model: Model, executor: Any, bills: list[float]) -> Any:
    agent = CodeAgent([], model, executor=executor, max_steps=3, verbosity_level=0)
    return agent.run("What do the bills come to?", additional_args={"bills": bills})


def total_on_modal(model: Model, bills: list[float]) -> Any:
    try:
        with ModalExecutor(app_name="accountant", timeout=10) as executor:
            return total(model, executor, bills)
    except BootError:
        return None
