"""Tools on their way to the kernel: as source code, or as the description of one on the host."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from sandkernel.exceptions import SandkernelError
from sandkernel.sandbox import kernel_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandkernel._sandkernel import Execution

__all__ = ["FINAL_ANSWER", "Definition", "Described", "Placement", "Stub", "document", "failures"]

# Of what a kernel says of the tools that it could not make.
_FAILURES_CHARACTERS = 1 << 20
FINAL_ANSWER = "final_answer"


@dataclass(frozen=True)
class Definition:
    """What the kernel needs to make a tool of its own.

    Attributes:
        name: What the agent calls it by.
        code: The source of its class and of the classes that it derives from.
        class_name: The class to make it of.
        arguments: The constructor's arguments, in JSON.
        imports: The modules that the code imports, without those of the standard library.
    """

    name: str
    code: str
    class_name: str
    arguments: str
    imports: tuple[str, ...]

    def described(self) -> dict[str, Any]:
        """Return what the kernel makes it of."""
        arguments = json.loads(self.arguments)
        return {"code": self.code, "class_name": self.class_name, "arguments": arguments}


@dataclass(frozen=True)
class Stub:
    """What the kernel is told of a tool that stays on the host.

    Attributes:
        name: What the agent calls it by.
        description: What it does.
        inputs: What it takes, in JSON.
        output_type: What it returns.
        imports: Nothing: the kernel needs no module for it.
    """

    name: str
    description: str
    inputs: str
    output_type: str
    imports: tuple[str, ...] = ()

    def described(self) -> dict[str, Any]:
        """Return what the kernel shows of it."""
        inputs = json.loads(self.inputs)
        return {"description": self.description, "inputs": inputs, "output_type": self.output_type}


# What the kernel is told of a tool.
Described: TypeAlias = Definition | Stub


class Placement(Protocol):
    """Decides where each tool runs: in the kernel, made of a `Definition`, or on the host, behind a `Stub`.

    Attributes:
        failed: Why definitions could not be made in a kernel.
    """

    failed: dict[Described, str]

    def define(self, given: Mapping[str, Any]) -> list[Described]:
        """Return what the kernel is told of tools.

        Raises:
            ConfigurationError: A tool can't be described, or can't be where it is to be.
        """

    def may_stay(self, name: str) -> bool:
        """Whether a tool that can't be made in the kernel may run on the host instead."""

    def tell_broken(self, name: str, reason: str) -> None:
        """Tell that a tool is neither here nor there."""


def document(
    definitions: Iterable[Described],
    known: Mapping[str, Described],
    former: Iterable[str],
    *,
    with_modules: bool,
) -> bytes:
    """Return the document that makes tools in the kernel.

    Args:
        definitions: The tools that are to be there.
        known: Those that the kernel has: only their names are sent.
        former: The names of those that are not to be there any more.
        with_modules: Whether the modules that smolagents imports are bound beside the tools.
    """
    entries = []
    for definition in definitions:
        key = hashlib.sha256(repr(definition).encode(errors="backslashreplace")).hexdigest()
        entry: dict[str, Any] = {"name": definition.name, "key": key}
        if known.get(definition.name) != definition:
            entry["is_final_answer"] = definition.name == FINAL_ANSWER
            entry["definition"] = definition.described()
        entries.append(entry)
    return json.dumps({"tools": entries, "former": sorted(former), "with_modules": with_modules}).encode()


def failures(execution: Execution, definitions: Mapping[str, Described]) -> dict[str, str]:
    """Return why a kernel could not make tools, by their names, as it says: it may be hostile."""
    error = execution.error
    if error is None:
        return {}
    said = kernel_json.parse(error.value, _FAILURES_CHARACTERS)
    if not isinstance(said, dict):
        raise SandkernelError(f"The kernel could not take the tools: {error.value:.500}")
    return {
        name: f"{said[name]:.2000}" for name in definitions if name in said and isinstance(said[name], str)
    }
