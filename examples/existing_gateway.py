"""An executor on a kernel gateway or Jupyter server that already runs.

Start one, in a container or on another machine:

    KG_AUTH_TOKEN=secret jupyter kernelgateway --port 8888

Then tell this program where it is:

    GATEWAY_URL=http://127.0.0.1:8888 GATEWAY_TOKEN=secret python examples/existing_gateway.py
"""

from __future__ import annotations

import os
import sys

from smolagents import FinalAnswerTool

from sandkernel import GatewayExecutor
from sandkernel.exceptions import AuthError, BootError


def main() -> None:
    url = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8888")
    try:
        executor = GatewayExecutor(
            url=url, token=os.environ.get("GATEWAY_TOKEN"), timeout=60, connect_timeout=5
        )
    except (AuthError, BootError) as error:
        sys.exit(f"{error}\n\nSee the head of {__file__} for how to start a gateway.")
    # A kernel is made for the executor, and deleted at the end; the gateway stays.
    with executor:
        executor.send_tools({"final_answer": FinalAnswerTool()})
        executor.send_variables({"limit": 30})
        executor("primes = [n for n in range(2, limit) if all(n % d for d in range(2, n))]")
        result = executor("print(len(primes), 'primes')\nfinal_answer(primes)")
        print(result.logs, result.output, sep="")


if __name__ == "__main__":
    main()
