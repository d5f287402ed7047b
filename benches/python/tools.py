"""A call of a tool that stays on the host, beside a bare `input()` over the same websocket.

Both are made by one cell, in turns, which takes their times itself. Who answers `input()` does nothing else,
and does it right where the request arrives. Run it with `.venv/bin/python benches/python/tools.py`.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from typing import Any

from smolagents import Tool

from measure import Goal, Section, latency_table, main, quantile
from sandkernel import InputRequest, LocalExecutor
from sandkernel.attendants import Attendants

BARE = "a bare input()"
# What is sent and returned, by what the table calls it.
VALUES = {
    "a short text": "'x'",
    "1 MiB of bytes": "b'x' * (1 << 20)",
    "an array of 1,000,000 floats": "__import__('numpy').zeros(1_000_000)",
}
CELL = """
import json, time
value, times = {value}, {{"input": [], "tool": []}}
for _ in range({runs}):
    for name, call in (("input", input), ("tool", lambda: echo(value))):
        began = time.perf_counter()
        call()
        times[name].append(time.perf_counter() - began)
print(json.dumps(times))
"""


class Echo(Tool):
    name = "echo"
    description = "Returns what it is given."
    inputs = {"value": {"type": "any", "description": "Anything"}}  # noqa: RUF012
    output_type = "any"

    def forward(self, value: Any) -> Any:
        return value


def turns(executor: LocalExecutor, value: str, runs: int) -> dict[str, list[float]]:
    """Seconds of each `input()`, and of each call, as the cell saw them."""
    stream = executor._open().stream(CELL.format(value=value, runs=runs + 20), allow_input=True)
    with closing(Attendants(executor._provision.host_tools.answer)) as attendants:
        for event in stream:
            if isinstance(event, InputRequest):
                if event.prompt:
                    attendants.take(event)
                else:
                    event.reply("")
    execution = stream.execution
    assert execution is not None
    assert execution.error is None, execution.error
    return {name: taken[20:] for name, taken in json.loads(execution.stdout).items()}


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("A tool that stays on the host")
    runs = 20 if quick else 500
    with ExitStack() as stack:
        executor = stack.enter_context(LocalExecutor(["numpy"], timeout=600, tools=["echo"]))
        executor.send_tools({"echo": Echo()})
        for name, value in VALUES.items():
            taken = turns(executor, value, runs if len(value) < 5 else runs // 5)
            named = {BARE: taken["input"], f"a call with {name}, there and back": taken["tool"]}
            section.tables.append(latency_table(f"A call with {name}", named, BARE))
            if name == "a short text":
                ratio = quantile(taken["tool"], 0.5) / quantile(taken["input"], 0.5)
                section.goals.append(
                    Goal(9, "a call of a tool on the host: median, of a bare input()", ratio, 1.5)
                )
    return section


if __name__ == "__main__":
    main(measure, __doc__, "tools")
