"""Runs cases with the version of Sandkernel that its interpreter has: `versions.py` starts one for each.

A line with the name of a case runs the case once; the answer is a line with the seconds that it took.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from smolagents import FinalAnswerTool, Tool

from cloud import cloud
from gateways import stock_gateway
from sandkernel import GatewayExecutor, LocalExecutor, ModalExecutor, Session

try:
    from sandkernel.providers.local import LocalSandbox
except ModuleNotFoundError:
    # A version before the providers had that name.
    from sandkernel.sandboxes.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Callable

MEBIBYTE = 1 << 20


class Echo(Tool):
    name = "echo"
    description = "Returns the value."
    inputs = {"value": {"type": "any", "description": "Anything"}}  # noqa: RUF012
    output_type = "any"

    def forward(self, value: Any) -> Any:
        return value


def boot() -> None:
    with LocalExecutor() as executor:
        executor("x = 1")


def cases(stack: ExitStack) -> dict[str, Callable[[], object]]:
    """The cases by name; what they need ends with the stack."""
    endpoint = stack.enter_context(LocalSandbox()).endpoint
    session = stack.enter_context(
        Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id, max_output_bytes=64 << 20)
    )
    local = stack.enter_context(LocalExecutor(["numpy"], timeout=600, tools=["echo"]))
    local.send_tools({"echo": Echo(), "final_answer": FinalAnswerTool()})
    local("import numpy; array = numpy.zeros(1_000_000)")
    twin = stack.enter_context(LocalExecutor())
    gateway = stack.enter_context(stock_gateway())
    stock = stack.enter_context(GatewayExecutor(url=gateway.url, token=gateway.token))
    stack.enter_context(cloud())
    # Its own default is 5 minutes, which the other cases may take.
    modal = stack.enter_context(ModalExecutor(create_kwargs={"timeout": 3600}))
    array = np.zeros(1_000_000)
    loop = asyncio.new_event_loop()
    stack.callback(loop.close)
    return {
        "session: x = 1": lambda: session.run("x = 1"),
        "session: 1 + 1": lambda: session.run("1 + 1"),
        "session: 100 prints, flushed": lambda: session.run("for _ in range(100): print('x', flush=True)"),
        "session: 20 MB of output": lambda: session.run("for _ in range(20): print('x' * 1_000_000)"),
        "local: x = 1": lambda: local("x = 1"),
        "local: a print and an expression": lambda: local("print('x' * 1000)\n1 + 1"),
        "local: x = 1, by arun": lambda: loop.run_until_complete(twin.arun("x = 1")),
        "local: a call of a tool on the host": lambda: local("echo('x')"),
        "local: an array of 8 MB to the kernel": lambda: local.send_variables({"sent": array}),
        "local: an array of 8 MB back": lambda: local("final_answer(array)"),
        "stock gateway: x = 1": lambda: stock("x = 1"),
        "stock gateway: 5 prints, flushed": lambda: stock("for _ in range(5): print('x', flush=True)"),
        "Modal's stand-in: x = 1": lambda: modal("x = 1"),
        "local: boot to the first result": boot,
    }


def main() -> None:
    with ExitStack() as stack:
        known = cases(stack)
        print(json.dumps(list(known)), flush=True)
        for line in sys.stdin:
            case = known[line.rstrip("\n")]
            gc.collect()
            began = time.perf_counter()
            case()
            print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
