"""A tool with an open database, which stays here while the agent's code runs in a sandbox.

Run it with `python examples/host_tools.py`: it takes no account, and its model says what it was told to.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

from smolagents import CodeAgent, Model, Tool
from smolagents.models import ChatMessage, MessageRole

from sandkernel import LocalExecutor


class Sales(Tool):
    name = "sales"
    description = "Looks up the sales of a city, by year."
    inputs = {"city": {"type": "string", "description": "The city"}}  # noqa: RUF012
    output_type = "object"

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self.connection = connection

    def forward(self, city: str) -> dict[int, float]:
        # The sandbox sends a name and gets numbers: it sees neither the connection nor the file.
        rows = self.connection.execute("select year, amount from sales where city = ?", (city,))
        return dict(rows.fetchall())


class Scripted(Model):
    """Stands for a model: says one piece of code after the other."""

    def __init__(self, *steps: str) -> None:
        super().__init__(model_id="scripted")
        self.steps = list(steps)

    def generate(self, messages: list[ChatMessage], **_: Any) -> ChatMessage:  # noqa: ARG002
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"<code>\n{self.steps.pop(0)}\n</code>")


def main() -> None:
    # Tools are called in threads of their own.
    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        connection.execute("create table sales (city text, year integer, amount real)")
        rows = [("Oslo", 2025, 1.5), ("Oslo", 2026, 2.5), ("Rome", 2026, 9.0)]
        connection.executemany("insert into sales values (?, ?, ?)", rows)
        model = Scripted(
            "oslo = sales('Oslo')\nprint(oslo)",
            "final_answer(f'Sales in Oslo grew by {oslo[2026] - oslo[2025]:.1f} million.')",
        )
        with LocalExecutor([], logger=None, timeout=60) as executor:
            agent = CodeAgent([Sales(connection)], model, executor=executor)
            print(agent.run("How did sales in Oslo develop?"))


if __name__ == "__main__":
    main()
