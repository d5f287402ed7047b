"""Modules of ours, on their way into a kernel."""

from __future__ import annotations

import importlib.resources

__all__ = ["MODULES", "load"]

# What they are called in the kernel, and where their texts are; each after those that it imports.
MODULES = {
    "_sandkernel_shell": ("sandkernel.kernel", "shell.py"),
    "_sandkernel_event_loop": ("sandkernel.gateway.kernel_tuning", "event_loop.py"),
    "_sandkernel_exits": ("sandkernel.gateway.kernel_tuning", "exits.py"),
    "_sandkernel_background": ("sandkernel.kernel", "background.py"),
    "_sandkernel_shipments": ("sandkernel.kernel", "shipments.py"),
    "_sandkernel_standard": ("sandkernel.serialization", "standard.py"),
    "_sandkernel_texts": ("sandkernel.serialization", "texts.py"),
    "_sandkernel_numpy_values": ("sandkernel.serialization", "numpy_values.py"),
    "_sandkernel_pandas_values": ("sandkernel.serialization", "pandas_values.py"),
    "_sandkernel_polars_values": ("sandkernel.serialization", "polars_values.py"),
    "_sandkernel_arrow_values": ("sandkernel.serialization", "arrow_values.py"),
    "_sandkernel_encoder": ("sandkernel.serialization", "encoder.py"),
    "_sandkernel_decoder": ("sandkernel.kernel", "decoder.py"),
    "_sandkernel_calls": ("sandkernel.kernel", "calls.py"),
    "_sandkernel": ("sandkernel.kernel", "prelude.py"),
    "_sandkernel_replay": ("sandkernel.kernel", "replay.py"),
    "_sandkernel_tree": ("sandkernel.files", "tree.py"),
    "_sandkernel_files": ("sandkernel.kernel", "files.py"),
}

_LOAD = (
    "(lambda m, source: (exec(compile(source, '<sandkernel>', 'exec'), m.__dict__), "
    "__import__('sys').modules.__setitem__(m.__name__, m)))"
)


def load(*names: str) -> str:
    """Return the code, one expression that binds no name, that makes modules of the kernel."""
    loads = []
    for name in names:
        package, file = MODULES[name]
        source = importlib.resources.files(package).joinpath(file).read_text(encoding="utf-8")
        loads.append(f"load(__import__('types').ModuleType({name!r}), {source!r})")
    return f"(lambda load: ({', '.join(loads)},))({_LOAD})"
