"""Kernels that run another language than Python: what they can't do is refused at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from sandkernel.exceptions import UnsupportedKernelError

if TYPE_CHECKING:
    from sandkernel.plans import Plan
    from sandkernel.session import Session

__all__ = ["FILES", "in_python", "require_python", "runs_python"]

T = TypeVar("T")

FILES = "Working with files"

_PYTHON = re.compile(r"python[\d.]*", re.IGNORECASE)


def runs_python(session: Session) -> bool:
    """Whether the kernel of a session runs Python, or does not say what it runs."""
    language = session.language
    return language is None or _PYTHON.fullmatch(language) is not None


def require_python(session: Session, purpose: str) -> None:
    """Refuse what is done in the kernel by code of ours where the kernel runs another language.

    Args:
        session: The session to the kernel.
        purpose: What is to be done, as the subject of a sentence.

    Raises:
        UnsupportedKernelError: It does.
    """
    if not runs_python(session):
        raise UnsupportedKernelError(
            f"{purpose} takes a kernel that runs Python, and this one runs {session.language!r}. Code of "
            "that language works, by Session.run or executor(code); variables, tools, packages, environment "
            "variables, files, and so a CodeAgent, take Python: choose another kernel_name, or the kernel_id "
            "of such a kernel",
            language=session.language,
        )


def in_python(session: Session | None, purpose: str, plan: Plan[T]) -> Plan[T]:
    """Carry out a plan of ours, or refuse it before anything is begun."""
    if session is not None:
        require_python(session, purpose)
    return (yield from plan)
