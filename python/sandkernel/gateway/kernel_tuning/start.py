"""Starts a kernel: ipykernel, with each change to it that fits its version."""

from __future__ import annotations

import runpy
import sys
from typing import Any

from sandkernel.gateway.kernel_tuning import (
    event_loop,
    execution,
    exits,
    failures,
    publishing,
    requests,
    sending,
)

PARTS = (publishing, requests, execution, event_loop, exits, sending, failures)


def start(finder: Any) -> None:
    """Start the kernel that the arguments of this process tell of, until it ends.

    Args:
        finder: What the modules of this folder were imported by, which the code that runs here does not see.
    """
    for part in PARTS:
        for tuning in part.TUNINGS:
            try:
                tuning()
            except Exception as error:
                # It runs all the same, only slower.
                print(
                    "launch: %s does not fit this ipykernel: %r" % (tuning.__name__, error), file=sys.stderr
                )
    sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name.split(".")[0] == "sandkernel"]:
        del sys.modules[name]
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
