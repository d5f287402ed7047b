"""One execution with and without the gateway's journal, taking turns in one run: what safety costs.

Run it with `.venv/bin/python benches/python/journal.py`.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

from measure import Section, interleaved, latency_table, main
from sandkernel import Session
from sandkernel.gateway.program import program
from sandkernel.providers.local import LocalSandbox, process

WITHOUT = "without a journal"


def without_journal() -> str:
    """The same program, whose gateway keeps no journal."""
    text, call = program(), "tune(tune_resuming, application.web_app)"
    assert text.count(call) == 1
    return text.replace(call, "pass")


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("The journal")
    with ExitStack() as stack:
        sessions = {}
        for name, text in ((WITHOUT, without_journal), ("with a journal", program)):
            with patch.object(process, "program", text):
                endpoint = stack.enter_context(LocalSandbox()).endpoint
            sessions[name] = stack.enter_context(
                Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id)
            )
        for code in ("x = 1", "for i in range(100): print(i, flush=True)"):
            cases = {name: lambda run=session.run, code=code: run(code) for name, session in sessions.items()}
            taken = interleaved(cases, 3 if quick else 200, warm_up=20)
            section.tables.append(latency_table(f"`{code}`", taken, WITHOUT))
    return section


if __name__ == "__main__":
    main(measure, __doc__, "journal")
