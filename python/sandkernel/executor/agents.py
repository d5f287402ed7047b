"""Keeps a saved agent from running its code on the host.

smolagents 1.26 writes `executor_type` and `executor_kwargs` into `CodeAgent.to_dict()`, and an agent that was
given `executor=` has the type "local": loaded again, it would run the code of its model in the host's own
process, without a word. What could be done about it without changing smolagents:

* Nothing, and a warning in the documentation: the danger stays.
* `CodeAgent(..., executor=e, executor_type=..., executor_kwargs=...)`: works, where the user knows of it.
* A subclass of `CodeAgent`: works, where the user takes it; `from_dict` of a managed agent does not know the
  class.
* `send_tools` and `send_variables` are not told the agent, and come too late for an agent that is saved
  before a run.
* The constructor asks for the executor's truth (`executor or self.create_python_executor()`) right after it
  has set `executor_type`: there the executor can find the agent that it is given to, in the frame that asks.

The last is done, since it alone needs nothing of the user; `KernelExecutor.bind` does the same in the open.
The agent's dictionary then names a type that smolagents does not know, so that loading it fails loudly
(`ValueError: Unsupported executor type`) unless it is given an executor: `executor.load_agent(saved)`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

__all__ = ["bind", "bind_caller", "load"]


def bind(agent: Any, executor_type: str, executor_kwargs: dict[str, Any]) -> None:  # noqa: ANN401 a CodeAgent
    """Make `agent.to_dict()` name this executor."""
    agent.executor_type = executor_type
    agent.executor_kwargs = dict(executor_kwargs)


def bind_caller(
    frame: FrameType | None, executor: object, executor_type: str, settings: dict[str, Any]
) -> None:
    """Bind the agent whose constructor runs in a frame, if one does and is given this executor."""
    if frame is None or frame.f_code.co_name != "__init__":
        return
    from smolagents import CodeAgent  # noqa: PLC0415 a cycle while smolagents itself is imported

    if frame.f_code is not CodeAgent.__init__.__code__:
        return
    agent = frame.f_locals.get("self")
    if isinstance(agent, CodeAgent) and frame.f_locals.get("executor") is executor:
        bind(agent, executor_type, settings)


def load(saved: Mapping[str, Any], executor: object, **options: Any) -> Any:  # noqa: ANN401 a CodeAgent
    """Load a saved agent so that its tools can be sent to a kernel.

    smolagents makes the classes of its tools by `exec`, which keeps no source; without one they can be
    neither sent nor saved again. So the source goes to where smolagents looks for it first.
    """
    from smolagents import CodeAgent  # noqa: PLC0415 a cycle while smolagents itself is imported

    agent = CodeAgent.from_dict(dict(saved), executor=executor, **options)
    for record in saved["tools"]:
        tool = agent.tools.get(record["name"])
        if tool is not None and type(tool).__module__ == "dynamic_tool":
            _attach_source(type(tool), record["code"])
    return agent


def _attach_source(kind: type[Any], code: str) -> None:
    lines = code.splitlines()

    def source_of(node: ast.stmt) -> str:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))

    for node in ast.parse(code).body:
        if not isinstance(node, ast.ClassDef) or node.name != kind.__name__:
            continue
        kind.__source__ = source_of(node)
        for member in node.body:
            if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef)) and member.name in vars(kind):
                # smolagents wraps the constructor: what is wrapped is asked for its source.
                function = inspect.unwrap(getattr(kind, member.name))
                function.__source__ = source_of(member)
