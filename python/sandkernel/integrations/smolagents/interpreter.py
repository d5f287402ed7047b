"""Takes the place of smolagents' `PythonInterpreterTool`, which runs code in the process that calls it."""

from __future__ import annotations

from typing import Any

from smolagents.tools import Tool

__all__ = ["PythonInterpreter"]


class PythonInterpreter(Tool):  # type: ignore[misc] # smolagents has no types
    """Runs code where the agent's own runs: its source is sent there, and needs nothing of this module."""

    name = "python_interpreter"
    description = "This is a tool that evaluates python code. It can be used to perform calculations."
    inputs = {"code": {"type": "string", "description": "The python code to run in interpreter"}}  # noqa: RUF012
    output_type = "string"

    def forward(self, code: str) -> Any:  # noqa: ANN401 as smolagents has it
        """Return what the code prints, and the value of its last statement if that is an expression."""
        import ast  # noqa: PLC0415
        import contextlib  # noqa: PLC0415
        import io  # noqa: PLC0415

        tree = ast.parse(code)
        last = tree.body[-1] if tree.body else None
        names = {"__name__": "__main__"}
        output = None
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if isinstance(last, ast.Expr):
                tree.body.pop()
            exec(compile(tree, "<python_interpreter>", "exec"), names)  # noqa: S102 what it is for
            if isinstance(last, ast.Expr):
                expression = ast.Expression(last.value)
                output = eval(compile(expression, "<python_interpreter>", "eval"), names)  # noqa: S307
        return f"Stdout:\n{printed.getvalue()}\nOutput: {output}"
