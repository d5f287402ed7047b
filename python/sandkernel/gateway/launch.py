"""The program that runs in a kernel's process, as one text: ipykernel without what it waits for in vain.

It is run by the interpreter of the kernels, so it imports nothing of ours. Each change is guarded: with
another version of ipykernel a kernel starts too, only slower.
"""

from __future__ import annotations

import importlib.util
from typing import Any

PARTS = ("publishing", "requests", "execution")

START = """
import sys

# Where it starts there may be files of the agent's: nothing is imported from there.
sys.path[0] or sys.path.pop(0)

import runpy

for name, text in PARTS.items():
    part = {"__name__": name}
    exec(compile(text, name, "exec"), part)
    for tuning in part["TUNINGS"]:
        try:
            tuning()
        except Exception as error:
            print("launch: %s does not fit this ipykernel: %r" % (tuning.__name__, error), file=sys.stderr)
runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
"""


def program() -> str:
    """Return the text of the program: the parts, and what starts a kernel with them."""
    parts = {}
    for name in PARTS:
        specification: Any = importlib.util.find_spec("sandkernel.gateway.kernel_tuning." + name)
        parts[specification.name] = specification.loader.get_source(specification.name)
    return "PARTS = %r\n%s" % (parts, START)
