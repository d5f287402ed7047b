"""A kernel of one's own that runs Python with neither IPython's shell nor its names: a program."""

from __future__ import annotations

import ast
import sys
import traceback
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel


class _Stream:
    def __init__(self, kernel: PlainKernel, name: str) -> None:
        self.kernel, self.name = kernel, name

    def write(self, text: str) -> int:
        content = {"name": self.name, "text": text}
        self.kernel.send_response(self.kernel.iopub_socket, "stream", content)
        return len(text)

    def flush(self) -> None:
        pass


class PlainKernel(Kernel):  # type: ignore[misc] # ipykernel has no types here
    """Runs each cell by `exec`, and shows the value of its last expression."""

    implementation = "plain"
    implementation_version = "1"
    language_info = {"name": "python", "mimetype": "text/x-python", "file_extension": ".py"}  # noqa: RUF012
    banner = "Python"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.names: dict[str, Any] = {"__name__": "__plain__"}

    def do_execute(
        self,
        code: str,
        silent: bool,  # noqa: FBT001 the base's signature
        store_history: bool = True,  # noqa: ARG002, FBT001, FBT002
        user_expressions: Any = None,  # noqa: ARG002
        allow_stdin: bool = False,  # noqa: ARG002, FBT001, FBT002
        **_: Any,
    ) -> dict[str, Any]:
        sys.stdout, sys.stderr = _Stream(self, "stdout"), _Stream(self, "stderr")
        number = self.execution_count
        try:
            cell = ast.parse(code)
            last = cell.body.pop() if cell.body and isinstance(cell.body[-1], ast.Expr) else None
            exec(compile(cell, "<cell>", "exec"), self.names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), self.names)  # type: ignore[attr-defined]
                if value is not None and not silent:
                    content = {"execution_count": number, "data": {"text/plain": repr(value)}, "metadata": {}}
                    self.send_response(self.iopub_socket, "execute_result", content)
        except BaseException as error:  # noqa: BLE001 the code may raise anything
            told = {
                "ename": type(error).__name__,
                "evalue": str(error),
                "traceback": traceback.format_exception(error),
            }
            if not silent:
                self.send_response(self.iopub_socket, "error", told)
            return {"status": "error", "execution_count": number, **told}
        return {"status": "ok", "execution_count": number, "payload": [], "user_expressions": {}}


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=PlainKernel)
