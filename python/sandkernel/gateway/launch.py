"""The program that runs in a kernel's process, as one text: ipykernel without what it waits for in vain.

The interpreter of the kernels may be another one, which has nothing of ours.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from sandkernel.gateway import sources

TUNING = "sandkernel.gateway.kernel_tuning"
MODULES = ("event_loop", "execution", "exits", "failures", "publishing", "requests", "sending", "start")
# Where it starts there may be files of the agent's: nothing is imported from there.
BEGIN = "import sys\nsys.path[0] or sys.path.pop(0)\n"
END = "from %s.start import start\n\nstart(Sources)\n" % TUNING


def program() -> str:
    """Return the text of the program."""
    texts = {"sandkernel": "", "sandkernel.gateway": "", TUNING: ""}
    for name in MODULES:
        specification: Any = importlib.util.find_spec("%s.%s" % (TUNING, name))
        texts[specification.name] = specification.loader.get_source(specification.name)
    return BEGIN + sources.program(texts, END)
