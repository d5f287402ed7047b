"""Sources without what only readers need: a command has no room for it."""

from __future__ import annotations

import ast
import io
import tokenize

__all__ = ["code_alone"]

EMPTY = frozenset({tokenize.NL, tokenize.COMMENT})


def code_alone(source: str) -> str:
    """Return a Python source without its docstrings, comments and blank lines; the code stays as it is."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        first = node.body[0] if node.body else None
        if first is not None and ast.get_docstring(node, clean=False) is not None:
            # The body of a function may have nothing else; nothing may stand before a module's `__future__`.
            instead = "" if isinstance(node, ast.Module) else " " * first.col_offset + "0"
            lines[first.lineno - 1] = instead
            lines[first.lineno : first.end_lineno] = [""] * ((first.end_lineno or 0) - first.lineno)
    return _without_comments("\n".join(lines) + "\n")


def _without_comments(source: str) -> str:
    lines = source.splitlines()
    said, commented = set[int](), dict[int, int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            commented[token.start[0]] = token.start[1]
        if token.type not in EMPTY:
            said.update(range(token.start[0], token.end[0] + 1))
    kept = [
        line[: commented[number]].rstrip() if number in commented else line
        for number, line in enumerate(lines, 1)
        if number in said
    ]
    return "\n".join(kept) + "\n"
