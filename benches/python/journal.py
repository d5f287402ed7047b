"""One execution with and without the gateway's journal, taking turns in one run: what safety costs.

Run with `make bench`.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from unittest.mock import patch

from execution import WARM_UP, quantile

from sandkernel import Session
from sandkernel.gateway.program import program
from sandkernel.sandboxes import process
from sandkernel.sandboxes.local import LocalSandbox


def without_journal() -> str:
    """The same program, whose gateway keeps no journal."""
    text, call = program(), "tune(tune_resuming, application.web_app)"
    assert text.count(call) == 1
    return text.replace(call, "pass")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500, help="executions of each kind (default: 500)")
    runs = parser.parse_args().runs
    with ExitStack() as stack:
        sessions = {}
        for name, text in (("with", program), ("without", without_journal)):
            with patch.object(process, "program", text):
                endpoint = stack.enter_context(LocalSandbox()).endpoint
            sessions[name] = stack.enter_context(
                Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id)
            )
        for code in ("x = 1", "for i in range(100): print(i, flush=True)"):
            times: dict[str, list[float]] = {name: [] for name in sessions}
            for turn in range(WARM_UP + runs):
                for name, session in sessions.items():
                    began = time.perf_counter()
                    session.run(code)
                    if turn >= WARM_UP:
                        times[name].append((time.perf_counter() - began) * 1000)
            median = {name: quantile(values, 0.5) for name, values in times.items()}
            print(
                f"{code!r}: median {median['with']:.2f} ms with the journal, {median['without']:.2f} ms "
                f"without, ratio {median['with'] / median['without']:.3f} ({runs} runs each)"
            )


if __name__ == "__main__":
    main()
