"""Programs as one text: the sources of their modules, which are imported from it wherever it runs."""

from __future__ import annotations

from typing import Dict

# The modules keep their names, whatever `sandkernel` may lie where they run.
IMPORTER = """
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
"""


def program(sources: Dict[str, str], end: str) -> str:
    """The text of a program.

    Args:
        sources: The text of each module; of a package, nothing.
        end: What is done once the modules can be imported. The finder is `Sources`.
    """
    begin = "import sys\nfrom importlib.machinery import ModuleSpec\n\n"
    return "%sSOURCES = %r\n%s%s" % (begin, sources, IMPORTER, end)
