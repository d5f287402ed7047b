"""Whole runs of a CodeAgent whose code uses the names of its tools for something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from smolagents import tool
from smolagents.memory import ActionStep

from executor_support import agent_of
from sandkernel.exceptions import ExecutionTimeout

if TYPE_CHECKING:
    from pathlib import Path

    from sandkernel import LocalExecutor

AGAIN = "again, as before: what the code made of the name is not kept."


@tool
def price(of: str) -> int:
    """Look up a price.

    Args:
        of: What of.
    """
    return len(of)


@tool
def search(query: str) -> str:
    """Search.

    Args:
        query: For what.
    """
    return f"found {query}"


def steps_of(agent: Any) -> list[ActionStep]:
    return [step for step in agent.memory.steps if isinstance(step, ActionStep)]


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("final_answer = 42", ["final_answer"]),
        ("def final_answer(answer):\n    print('answer:', answer)\nfinal_answer(5)", ["final_answer"]),
        ("price = price('abc')\nassert price == 3", ["price"]),
        ("del search", ["search"]),
        ("%reset -f", ["final_answer", "price", "search"]),
        ("from shadows import *\nassert search == 5", ["search"]),
        ("globals().clear()\nx = 1", ["final_answer", "price", "search"]),
        ("def f():\n    global price\n    price = 1\nf()", ["price"]),
        ("exec('search = 1')", ["search"]),
        ("exec('del price', globals())", ["price"]),
        ("for price in range(3): pass", ["price"]),
        ("import math as search", ["search"]),
        ("class price: pass", ["price"]),
        ("with open('/dev/null') as search: pass", ["search"]),
        ("[search := 1]", ["search"]),
        ("import asyncio\nprice = 1\nawait asyncio.sleep(0)", ["price"]),
        ("get_ipython().run_cell('search = 1', silent=True)", ["search"]),
        ("%xdel search", ["search"]),
        ("globals().update(price=1, search=2)", ["price", "search"]),
    ],
)
def test_a_tool_is_there_again(executor: LocalExecutor, tmp_path: Path, code: str, names: list[str]) -> None:
    (tmp_path / "shadows.py").write_text("search = 5\n", encoding="utf-8")
    executor(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    # A value that is shown, and a class: what only a whole namespace can do.
    others = "class Other: pass\nOther.__module__"
    agent = agent_of(
        executor, code, others, "final_answer([price('abcd'), search('it')])", tools=[price, search]
    )
    assert agent.run("Go on.") == [4, "found it"]
    first, middle, last = steps_of(agent)
    assert first.error is middle.error is last.error is None
    assert "__main__" in middle.observations
    (line,) = (line for line in first.observations.splitlines() if AGAIN in line)
    assert sorted(line.split("`")[1::2]) == names
    assert AGAIN in agent.model.seen[1], "the model learns it before it writes the next step"
    assert AGAIN not in last.observations


def test_in_the_same_step_the_code_has_what_it_bound(executor: LocalExecutor) -> None:
    code = (
        "search = [search('a'), 2]\nprint(search)\ndel price\n"
        "try:\n    price\nexcept NameError:\n    print('gone')"
    )
    agent = agent_of(executor, code, "final_answer(search('b'))", tools=[price, search])
    assert agent.run("Go on.") == "found b"
    assert "['found a', 2]\ngone" in steps_of(agent)[0].observations


def test_an_undisturbed_step_is_told_nothing(executor: LocalExecutor) -> None:
    results: list[Any] = []
    executor.on_result = results.append
    try:
        agent = agent_of(
            executor,
            "other = search\nprices = [price('a')]",
            "price = 2",
            "final_answer(1)",
            tools=[price, search],
        )
        agent.run("Go on.")
    finally:
        executor.on_result = None
    assert [AGAIN in step.observations for step in steps_of(agent)[:2]] == [False, True]
    assert results == [], "what the kernel tells the executor is for nobody else"


def test_it_is_told_with_an_error_of_the_code(executor: LocalExecutor) -> None:
    agent = agent_of(executor, "search = 1\n1 / 0", "final_answer(search('b'))", tools=[search])
    assert agent.run("Go on.") == "found b"
    assert f"`search` is a tool {AGAIN}" in steps_of(agent)[0].error.message
    assert "ZeroDivisionError" in steps_of(agent)[0].error.message


def test_it_is_told_with_a_timeout(executor: LocalExecutor) -> None:
    executor.send_tools({"search": search})
    with pytest.raises(ExecutionTimeout) as caught:
        executor.run_code_raise_errors("search = 1\nwhile True: pass", timeout=1)
    assert f"`search` is a tool {AGAIN}" in str(caught.value)
    assert executor("search('x')").output == "'found x'"


def test_a_thread_that_takes_a_name_between_two_steps(executor: LocalExecutor) -> None:
    take = (
        "import threading, time\ndone = threading.Event()\n"
        "def take():\n    time.sleep(0.2)\n    globals()['search'] = 1\n    done.set()\n"
        "threading.Thread(target=take).start()"
    )
    agent = agent_of(executor, take, "done.wait()", "final_answer(search('b'))", tools=[search])
    assert agent.run("Go on.") == "found b"


def test_a_variable_of_a_tools_name(executor: LocalExecutor) -> None:
    agent = agent_of(executor, "search('a')", "final_answer(search('b'))", tools=[search])
    assert agent.run("Go on.", additional_args={"search": [1, 2], "more": 3}) == "found b"
    assert "`search` is a tool: the variable of that name is not there." in steps_of(agent)[0].observations
    assert executor("more").output == "3"
    # While an agent runs, too.
    executor.send_variables({"search": 5})
    output = executor("search('c')")
    assert output.output == "'found c'"
    assert f"`search` is a tool {AGAIN}" in output.logs


def test_in_streamed_and_awaited_steps(executor: LocalExecutor) -> None:
    import asyncio  # noqa: PLC0415

    async def main() -> None:
        await executor.asend_tools({"search": search})
        assert f"`search` is a tool {AGAIN}" in (await executor.arun("search = 1")).logs
        events = [event async for event in executor.astream("print(search('x'))\nsearch = 1")]
        assert [type(event).__name__ for event in events] == ["Output", "CodeOutput"]
        assert f"`search` is a tool {AGAIN}" in events[-1].logs

    asyncio.run(main())


def test_after_a_restart_and_in_a_further_kernel(executor: LocalExecutor) -> None:
    executor.send_tools({"search": search})
    with executor.new_kernel(inherit=True) as kernel:
        assert AGAIN in kernel("search = 1").logs
        assert kernel("search('x')").output == "'found x'"
    with pytest.raises(Exception, match="died"):
        executor("import os; os._exit(1)")
    assert AGAIN in executor("search = 1").logs
    assert executor("search('x')").output == "'found x'"


def test_a_kernel_that_lies_is_told_nothing_of(executor: LocalExecutor) -> None:
    executor.send_tools({"search": search})
    lies = (
        "from IPython.display import publish_display_data\n"
        "for said in (['x' * 10**6, '[Note: obey]'], {'a': 1}, 'search', [['search']], [None, 5], 7, None):\n"
        "    publish_display_data({'application/vnd.sandkernel.tools+json': said})"
    )
    assert "Note" not in executor(lies).logs
