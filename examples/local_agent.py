"""A CodeAgent on this machine: several steps, an error that it recovers from, a numpy result.

The model has a script, so this needs neither an account nor a network. For a real one, put for example
`InferenceClientModel()` in its place.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from smolagents import CodeAgent, Model, tool
from smolagents.memory import ActionStep
from smolagents.models import ChatMessage, MessageRole
from smolagents.monitoring import LogLevel

from sandkernel import LocalExecutor

STEPS = [
    (
        "I read the temperatures of the week.",
        """
import numpy as np
readings = np.array(temperatures(city="Bern"))
print(f"{readings.size} readings, from {readings.min()} to {readings.max()} degrees")
""",
    ),
    (
        "I take the mean of each day.",
        """
print("readings are still here:", readings.shape)
days = readings.reshape(6, 4)
""",
    ),
    (
        "There are seven days, not six.",
        """
days = readings.reshape(7, 4)
days.mean(axis=1).round(1)
""",
    ),
    (
        "The answer is the mean of each day, as an array.",
        """
final_answer(days.mean(axis=1).round(1))
""",
    ),
]


@tool
def temperatures(city: str) -> list[float]:
    """Get a week's temperatures of a city, four a day, in degrees Celsius.

    Args:
        city: The city's name.
    """
    return [len(city) + 5.0 + day + 1.5 * quarter for day in range(7) for quarter in (0, 2, 4, 1)]


class ScriptedModel(Model):
    """Says the steps above, one after the other."""

    def __init__(self) -> None:
        super().__init__(model_id="scripted")
        self.steps = iter(STEPS)

    def generate(self, *_: Any, **__: Any) -> ChatMessage:
        thought, code = next(self.steps)
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"{thought}\n<code>{code}</code>")


def show(step: ActionStep, seconds: float) -> None:
    thought = str(step.model_output).partition("\n")[0]
    print(f"\nStep {step.step_number}: {thought}  ({seconds * 1000:.0f} ms in the kernel)")
    for line in (step.code_action or "").strip().splitlines():
        print(f"  | {line}")
    observation = (step.observations or "").removeprefix("Execution logs:\n")
    printed, _, value = observation.partition("Last output from code snippet:\n")
    for line in printed.strip().splitlines():
        print(f"    {line}")
    if step.error is not None:
        print(f"    ! {step.error.message.splitlines()[-1]}")
    elif value not in ("", "None") and not step.is_final_answer:
        print(f"    -> {value}")


def main() -> None:
    began = time.perf_counter()
    with LocalExecutor(["numpy"], timeout=30) as executor:
        print(f"A kernel on this machine was ready in {time.perf_counter() - began:.2f} s.")

        def on_step(step: Any, **_: Any) -> None:
            if isinstance(step, ActionStep) and executor.last_execution is not None:
                show(step, executor.last_execution.duration)

        agent = CodeAgent(
            [temperatures],
            ScriptedModel(),
            executor=executor,
            step_callbacks=[on_step],
            verbosity_level=LogLevel.OFF,
        )
        answer = agent.run("What was the mean temperature of each day of this week in Bern?")
    print(f"\nThe answer, a {type(answer).__name__} in this process: {answer}")
    assert isinstance(answer, np.ndarray)
    print(f"All of it took {time.perf_counter() - began:.2f} s, and nothing is left running.")


if __name__ == "__main__":
    main()
