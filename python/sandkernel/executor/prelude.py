"""Puts the modules that the executor relies on into a kernel."""

from __future__ import annotations

import importlib.resources

__all__ = ["load"]

# Each after those that it imports.
MODULES = (
    ("_sandkernel_encoder", "sandkernel.serialization", "encoder.py"),
    ("_sandkernel_decoder", "sandkernel.kernel", "decoder.py"),
    ("_sandkernel_shipments", "sandkernel.kernel", "shipments.py"),
    ("_sandkernel", "sandkernel.kernel", "prelude.py"),
)


def load(*, allow_pickle: bool) -> str:
    """Return the code that makes modules of the kernel of them, and binds no name."""
    sources = {
        name: importlib.resources.files(package).joinpath(file).read_text(encoding="utf-8")
        for name, package, file in MODULES
    }
    load = (
        "(lambda m, source: (exec(compile(source, '<sandkernel>', 'exec'), m.__dict__), "
        "__import__('sys').modules.__setitem__(m.__name__, m)))"
    )
    loads = ", ".join(
        f"load(__import__('types').ModuleType({name!r}), {source!r})" for name, source in sources.items()
    )
    allow = f"setattr(__import__('_sandkernel'), 'allow_pickle', {allow_pickle!r})"
    return f"(lambda load: ({loads}, {allow}))({load})"
