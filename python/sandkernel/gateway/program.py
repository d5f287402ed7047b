"""The program that runs in a gateway's process, as one text: it needs no file of ours where it runs."""

from __future__ import annotations

from pathlib import Path

__all__ = ["program"]

MODULES = (
    "activity",
    "bootstrap",
    "deaths",
    "imports",
    "journal",
    "kernel_tuning.execution",
    "kernel_tuning.publishing",
    "kernel_tuning.requests",
    "kernels",
    "launch",
    "processes",
    "relay",
    "shortening",
    "tuning",
)

# The modules keep their names, and are imported from the text, wherever a `sandkernel` may lie.
LOAD = """
class Sources:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in SOURCES:
            return ModuleSpec(name, Sources, is_package=not SOURCES[name])

    @staticmethod
    def create_module(specification):
        return None

    @staticmethod
    def get_source(name):
        return SOURCES[name]

    @staticmethod
    def exec_module(module):
        text = SOURCES[module.__name__]
        exec(compile(text, module.__name__, "exec"), module.__dict__)


sys.meta_path.insert(0, Sources)
from sandkernel.gateway.bootstrap import main

main()
"""


def program() -> str:
    """Return the text of the program: the sources of this folder, and what imports them."""
    folder = Path(__file__).parent
    sources = {"sandkernel": "", "sandkernel.gateway": "", "sandkernel.gateway.kernel_tuning": ""}
    for name in MODULES:
        sources[f"sandkernel.gateway.{name}"] = (folder / f"{name.replace('.', '/')}.py").read_text(
            encoding="utf-8"
        )
    return f"import sys\nfrom importlib.machinery import ModuleSpec\n\nSOURCES = {sources!r}\n{LOAD}"
