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
import json
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandkernel.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from sandkernel.integrations.smolagents.executor import KernelExecutor

__all__ = ["bind", "bind_caller", "load"]


def bind(agent: Any, executor_type: str, executor_kwargs: dict[str, Any]) -> None:  # noqa: ANN401 a CodeAgent
    """Make `agent.to_dict()` name this executor."""
    agent.executor_type = executor_type
    agent.executor_kwargs = dict(executor_kwargs)


def bind_caller(
    frame: FrameType | None, executor: object, executor_type: str, settings: dict[str, Any]
) -> bool:
    """Bind the agent whose constructor runs in a frame, if one does and is given this executor.

    Returns:
        True where one does.
    """
    if frame is None or frame.f_code.co_name != "__init__":
        return False
    from smolagents import CodeAgent  # noqa: PLC0415 a cycle while smolagents itself is imported

    if frame.f_code is not CodeAgent.__init__.__code__:
        return False
    agent = frame.f_locals.get("self")
    if not isinstance(agent, CodeAgent) or frame.f_locals.get("executor") is not executor:
        return False
    bind(agent, executor_type, settings)
    return True


def load(saved: Mapping[str, Any] | str | os.PathLike[str], executor: KernelExecutor, **options: Any) -> Any:  # noqa: ANN401 a CodeAgent
    """Load a saved agent so that its tools can be sent to a kernel.

    smolagents' own `from_dict` is not asked: it looks up the class of the model by its name, also where a
    model is given, and hands the executor on to managed agents of every kind.

    Raises:
        ConfigurationError: It is no saved agent, or names a class that smolagents does not know.
    """
    from smolagents import CodeAgent  # noqa: PLC0415 a cycle while smolagents itself is imported

    record = _of_folder(Path(saved)) if isinstance(saved, (str, os.PathLike)) else saved
    return _load(CodeAgent, record, executor, options)


def _load(
    kind: type[Any], saved: Mapping[str, Any], executor: KernelExecutor, options: Mapping[str, Any]
) -> Any:  # noqa: ANN401 an agent
    try:
        given = _arguments(kind, saved, executor, options)
    except (AttributeError, KeyError, TypeError) as error:
        message = f"This is no agent as CodeAgent.to_dict() saves it: {error!r:.200}"
        raise ConfigurationError(message) from error
    return kind(**given)


def _arguments(
    kind: type[Any], saved: Mapping[str, Any], executor: KernelExecutor, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of an agent's constructor: those that are given, and else what was saved."""
    from smolagents import CodeAgent  # noqa: PLC0415

    given = dict(options)
    names = _SETTINGS
    if issubclass(kind, CodeAgent):
        names = {**names, **_SETTINGS_OF_CODE_AGENTS}
        if "executor" not in given:
            given["executor"] = executor
    for name, key in names.items():
        if name not in given and saved.get(key) is not None:
            given[name] = saved[key]
    if "model" not in given:
        given["model"] = _model(saved["model"])
    if "tools" not in given:
        given["tools"] = [_tool(record) for record in saved["tools"]]
    if "managed_agents" not in given:
        given["managed_agents"] = [
            _managed(record, executor, options.get("model")) for record in saved["managed_agents"]
        ]
    return given


_SETTINGS = {
    name: name
    for name in (
        "prompt_templates",
        "max_steps",
        "verbosity_level",
        "planning_interval",
        "name",
        "description",
    )
}
_SETTINGS_OF_CODE_AGENTS = {
    "additional_authorized_imports": "authorized_imports",
    "max_print_outputs_length": "max_print_outputs_length",
    "code_block_tags": "code_block_tags",
}


def _model(record: Mapping[str, Any]) -> Any:  # noqa: ANN401 a model
    from smolagents import agents  # noqa: PLC0415

    kind = agents.MODEL_REGISTRY.get(record["class"])
    if kind is None:
        raise ConfigurationError(
            f"The saved agent has a model of the class {record['class']!r:.100}, which smolagents does not "
            "find by its name: give load_agent a model=, which is used for its managed agents too"
        )
    return kind.from_dict(record["data"])


def _tool(record: Mapping[str, Any]) -> Any:  # noqa: ANN401 a Tool
    """Make a tool of its source.

    smolagents makes its class by `exec`, which keeps no source; without one it can be neither sent nor saved
    again. So the source goes to where smolagents looks for it first.
    """
    from smolagents import Tool  # noqa: PLC0415

    tool = Tool.from_code(record["code"])
    if type(tool).__module__ == "dynamic_tool":
        _attach_source(type(tool), record["code"])
    return tool


def _managed(record: Mapping[str, Any], executor: KernelExecutor, model: object) -> Any:  # noqa: ANN401 an agent
    from smolagents import CodeAgent, agents  # noqa: PLC0415

    kind = agents.AGENT_REGISTRY.get(record["class"])
    if kind is None:
        raise ConfigurationError(
            f"The saved agent has a managed agent of the class {record['class']!r:.100}, which smolagents "
            "does not find by its name: give load_agent managed_agents=[...], made by you"
        )
    options: dict[str, Any] = {} if model is None else {"model": model}
    if issubclass(kind, CodeAgent):
        if str(record.get("executor_type", "")).startswith("sandkernel."):
            # Not the same kernel: it waits for this agent's answer.
            kernel = options["executor"] = executor.new_kernel()
            try:
                return _load(kind, record, executor, options)
            except BaseException:
                kernel.cleanup()
                raise
        options |= {"executor": None, "executor_type": record.get("executor_type")}
        options |= {"executor_kwargs": record.get("executor_kwargs")}
    return _load(kind, record, executor, options)


def _of_folder(folder: Path) -> dict[str, Any]:
    """Return the dictionary of an agent that `agent.save()` wrote into a folder."""
    try:
        record: dict[str, Any] = json.loads((folder / "agent.json").read_text(encoding="utf-8"))
        record["tools"] = [
            {"name": name, "code": (folder / "tools" / f"{name}.py").read_text(encoding="utf-8")}
            for name in record["tools"]
        ]
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder} has no agent as CodeAgent.save() writes it: {error}") from error
    record["managed_agents"] = [
        _of_folder(folder / "managed_agents" / name) for name in record["managed_agents"]
    ]
    return record


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
