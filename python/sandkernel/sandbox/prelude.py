"""Puts the modules that the executor relies on into a kernel."""

from __future__ import annotations

from sandkernel import kernel_modules

__all__ = ["load"]

# The modules up to the prelude itself: those after it are for others.
NAMES = list(kernel_modules.MODULES)[: list(kernel_modules.MODULES).index("_sandkernel") + 1]


# What the kernel replies that keeps what it sends.
KEEPS_RECORD = "on"
# What it replies that is no ipykernel.
NO_IPYKERNEL = "no ipykernel"


def load(*, allow_pickle: bool, record: bool = False) -> str:
    """Return the code that makes them modules of the kernel, and binds no name. It may be run again.

    Args:
        allow_pickle: Whether values without a safe form travel as pickles.
        record: Whether the kernel is to keep what it sends, for a connection that breaks. It replies
            `KEEPS_RECORD`, or why it can't.
    """
    steps = [
        kernel_modules.load(*NAMES),
        f"setattr(__import__('_sandkernel'), 'allow_pickle', {allow_pickle!r})",
        # Where there is no IPython to tell it.
        "setattr(__import__('_sandkernel_shell'), 'namespace', globals())",
    ]
    if record:
        steps.append(kernel_modules.load("_sandkernel_replay"))
        steps.append("__import__('_sandkernel').reply(__import__('_sandkernel_replay').start())")
    return f"({', '.join(steps)})"
