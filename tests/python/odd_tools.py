"""Tools whose source names more than a kernel has, and what each is to give, wherever it runs."""

import abc
import dataclasses
import decimal
import enum
import functools
import math
import sys
import types
import warnings
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import smolagents
from smolagents import Tool, tool
from smolagents import tool as function_tool

# Without `from __future__ import annotations`: they are evaluated where the source is run.
# ruff: noqa: RUF012, PLC0415, DOC

LIMIT = 5
LIST = list[int]


class Unit(enum.Enum):
    CELSIUS = "C"


class Level(enum.IntEnum):
    LOW = 1


class Point(TypedDict):
    x: int


@dataclasses.dataclass
class Size:
    width: int = 7


def helper(number: int) -> int:
    return number + LIMIT


def seven(_: Any) -> Callable[..., int]:
    return lambda *_: 7


def marked(kind: type[Any]) -> type[Any]:
    kind.mark = 9
    return kind


@tool
def literal(unit: Literal["C", "F"]) -> str:
    """Do it.

    Args:
        unit: What with.
    """
    return unit


@tool
def array(x: list[int], dtype: np.dtype | None = None) -> LIST:
    """Do it.

    Args:
        x: What with.
        dtype: What of.
    """
    return [*x, dtype]


@tool
def enum_default(unit: str = Unit.CELSIUS) -> str:
    """Do it.

    Args:
        unit: What with.
    """
    return unit.value


@tool
def int_enum_default(level: int = Level.LOW) -> int:
    """Do it.

    Args:
        level: What with.
    """
    return int(level)


@tool
def constant_default(number: int = LIMIT) -> int:
    """Do it.

    Args:
        number: What with.
    """
    return number


@tool
def infinite_default(number: float = math.inf) -> float:
    """Do it.

    Args:
        number: What with.
    """
    return number


@tool
def decimal_default(number: float = decimal.Decimal("1.5")) -> float:
    """Do it.

    Args:
        number: What with.
    """
    return float(number)


@tool
def dataclass_default(size: Any = Size()) -> int:  # noqa: B008
    """Do it.

    Args:
        size: What with.
    """
    return size.width


@tool
def typed_dict(point: Point) -> int:
    """Do it.

    Args:
        point: What with.
    """
    return point["x"]


@tool
def class_of_a_modules_name() -> int:
    """Do it."""
    return datetime(2020, 1, 2).day  # noqa: DTZ001


with warnings.catch_warnings():
    # smolagents says itself that it may not be sent.
    warnings.simplefilter("ignore")

    @tool
    @functools.lru_cache
    def cached(number: int) -> int:
        """Do it.

        Args:
            number: What with.
        """
        return number

    @smolagents.tool
    def dotted_decorator(number: int) -> int:
        """Do it.

        Args:
            number: What with.
        """
        return number

    @function_tool
    def renamed_decorator(number: int) -> int:
        """Do it.

        Args:
            number: What with.
        """
        return number


@tool
def with_a_helper(number: int) -> int:
    """Do it.

    Args:
        number: What with.
    """
    return helper(number)


@tool
def recursive(number: int) -> int:
    """Do it.

    Args:
        number: What with.
    """
    return 1 if number < 2 else number * recursive(number - 1)


@tool
def with_an_inner_function(number: int) -> int:
    """Do it.

    Args:
        number: What with.
    """

    def inner(numbers: LIST) -> int:
        return numbers[0]

    return inner([number])


def closure_over(offset: int, sum: Any) -> tuple[Tool, Tool]:  # noqa: A002
    @tool
    def closure(number: int) -> int:
        """Do it.

        Args:
            number: What with.
        """
        return number + offset

    @tool
    def closure_over_the_name_of_a_builtin(number: int) -> int:
        """Do it.

        Args:
            number: What with.
        """
        return sum([number])

    return closure, closure_over_the_name_of_a_builtin


closure, closure_over_the_name_of_a_builtin = closure_over(3, lambda _: -1)


class Odd(Tool):
    name = "odd"
    description = "Does it."
    inputs = {"number": {"type": "integer", "description": "What with", "nullable": True}}
    output_type = "any"

    def forward(self, number: int | None = None) -> Any:
        return number


class ConstantDefault(Odd):
    def forward(self, number: int | None = LIMIT) -> Any:
        return number


class OneLine(Odd):
    # fmt: off
    def forward(self, number: Annotated[int, Size] | None = 5) -> Literal[5]: return number or 5
    # fmt: on


class Long(Odd):
    def forward(
        self,
        number: Annotated[
            int,
            # Between the lines.
            Size,
        ]
        | None = None,  # and behind one
    ) -> Point:
        # The body begins with é and a nested function.
        @staticmethod
        def ä(é: int) -> int:  # noqa: PLC2401
            return é

        return ä(number)


class Backslashes(Odd):
    description = """Two
lines, and a \\n."""

    def forward(self, number: int | None = None) -> Any:  # noqa: ARG002
        return self.description


class UnwrappedDecorator(Odd):
    @seven
    def other(self, number: int) -> int:
        return number

    def forward(self, number: int | None = None) -> Any:
        return self.other(number)


class WrappedDecorator(Odd):
    @functools.lru_cache  # noqa: B019
    def forward(self, number: int | None = None) -> Any:
        return number


@marked
class DecoratedClass(Odd):
    mark = 1

    def forward(self, number: int | None = None) -> Any:  # noqa: ARG002
        return self.mark


class AttributeOfAConstant(Odd):
    limit = LIMIT

    def forward(self, number: int | None = None) -> Any:  # noqa: ARG002
        return self.limit


class GlobalOfAnAttributesName(Odd):
    LIMIT = 3

    def forward(self, number: int | None = None) -> Any:  # noqa: ARG002
        return LIMIT


class Mixin:
    def four(self) -> int:
        return 4


class Mixed(Mixin, Odd):
    def forward(self, number: int | None = None) -> Any:  # noqa: ARG002
        return self.four()


class WithProperty(Odd):
    @property
    def eight(self) -> int:
        return 8

    def forward(self, number: int | None = None) -> Any:  # noqa: ARG002
        return self.eight


class WithPartial(Odd):
    most = functools.partial(max, 3)

    def forward(self, number: int | None = None) -> Any:
        return self.most(number)


class Meta(abc.ABCMeta):
    pass


class WithMetaclass(Odd, metaclass=Meta):
    pass


class WithStaticMethod(Odd):
    @staticmethod
    def twice(number: int) -> LIST:
        return number * 2

    def forward(self, number: int | None = None) -> Any:
        return self.twice(number)


class FailsElsewhere(Odd):
    """Can be described, and its names are all there; its constructor finds out."""

    def __init__(self) -> None:
        super().__init__()
        import sys

        if "_sandkernel" in sys.modules:
            raise RuntimeError("not here")


class ExitsElsewhere(Odd):
    def __init__(self) -> None:
        super().__init__()
        import sys

        if "_sandkernel" in sys.modules:
            sys.exit(3)


class ImportsWhatIsHere(Odd):
    def forward(self, number: int | None = None) -> Any:
        import module_of_this_machine

        return module_of_this_machine.__name__ + str(number)


# A module that no package has, and no kernel.
sys.modules["module_of_this_machine"] = types.ModuleType("module_of_this_machine")
sys.modules["module_of_this_machine"].__spec__ = types.SimpleNamespace(
    origin=__file__, submodule_search_locations=None
)


def with_own_forward() -> Tool:
    odd = Odd()
    odd.forward = lambda number=None: number + 100
    return odd


# By the tests' names: the tool, the call's arguments, what comes of it, and whether the kernel has the tool.
CASES: dict[str, tuple[Tool, str, Any, bool]] = {
    "literal": (literal, "'C'", "C", True),
    "array": (array, "[1]", [1, None], True),
    "enum_default": (enum_default, "", "C", False),
    "int_enum_default": (int_enum_default, "", 1, False),
    "constant_default": (constant_default, "", 5, True),
    "infinite_default": (infinite_default, "", math.inf, False),
    "decimal_default": (decimal_default, "", 1.5, False),
    "dataclass_default": (dataclass_default, "", 7, False),
    "typed_dict": (typed_dict, "{'x': 4}", 4, True),
    "class_of_a_modules_name": (class_of_a_modules_name, "", 2, False),
    "cached": (cached, "6", 6, False),
    "dotted_decorator": (dotted_decorator, "6", 6, True),
    "renamed_decorator": (renamed_decorator, "6", 6, True),
    "with_a_helper": (with_a_helper, "6", 11, False),
    "recursive": (recursive, "4", 24, False),
    "with_an_inner_function": (with_an_inner_function, "6", 6, False),
    "closure": (closure, "6", 9, False),
    "closure_over_the_name_of_a_builtin": (closure_over_the_name_of_a_builtin, "6", -1, False),
    "class_constant_default": (ConstantDefault(), "", 5, False),
    "one_line": (OneLine(), "", 5, True),
    "long": (Long(), "6", 6, True),
    "backslashes": (Backslashes(), "", Backslashes.description, True),
    "unwrapped_decorator": (UnwrappedDecorator(), "6", 7, False),
    "wrapped_decorator": (WrappedDecorator(), "6", 6, False),
    "decorated_class": (DecoratedClass(), "", 9, False),
    "attribute_of_a_constant": (AttributeOfAConstant(), "", 5, False),
    "global_of_an_attributes_name": (GlobalOfAnAttributesName(), "", 5, False),
    "mixin": (Mixed(), "", 4, False),
    "property": (WithProperty(), "", 8, False),
    "partial": (WithPartial(), "2", 3, False),
    "metaclass": (WithMetaclass(), "2", 2, False),
    "static_method": (WithStaticMethod(), "2", 4, True),
    "own_forward": (with_own_forward(), "2", 102, False),
    "fails_elsewhere": (FailsElsewhere(), "2", 2, False),
    "exits_elsewhere": (ExitsElsewhere(), "2", 2, False),
    "imports_what_is_here": (ImportsWhatIsHere(), "2", "module_of_this_machine2", False),
}
