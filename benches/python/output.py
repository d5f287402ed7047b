"""A flood of output, kept whole and kept to 1 MB, beside a client that throws the bytes away.

Run it with `.venv/bin/python benches/python/output.py`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from clients import websocket_client
from measure import OURS, WEBSOCKET, Chart, Goal, Section, Table, interleaved, main, quantile
from sandkernel import Session
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from sandkernel import Execution

MEGABYTE = 1_000_000
KERNEL_NOTE = (
    "The time is the kernel's and the gateway's. A client's own processor time is 1 to 3 hundredths of it "
    "for the lines, 1 to 2 tenths for the pieces, whichever the client and however much it keeps: what "
    "differs is when the others were given a core."
)
WHOLE = f"{OURS}, kept whole"
READ = "what was kept, read as one str"
CUT = f"{OURS}, kept to 1 MB"
READ_CUT = "of that, what was kept, read as one str"


def codes(megabytes: int) -> dict[str, str]:
    return {
        f"{megabytes} MB in lines of 100 bytes": f"for i in range({megabytes * 10_000}): print(f'{{i:099}}')",
        f"{megabytes} MB in pieces of 1 MB": (
            "import sys\n"
            f"for i in range({megabytes}): _ = sys.stdout.write('x' * 1_000_000); sys.stdout.flush()"
        ),
    }


class Kept:
    """Runs code, and then reads what was kept of its output as one `str`."""

    def __init__(self, session: Session, written: int, kept: int) -> None:
        self._session = session
        self._written, self._kept = written, kept
        self._execution: Execution | None = None

    def run(self, code: str) -> None:
        self._execution = self._session.run(code)

    def read(self) -> None:
        """Read it, and see that nothing is lost that was to be kept."""
        execution, self._execution = self._execution, None
        assert execution is not None
        assert execution.complete
        assert execution.omitted_output_bytes == max(0, self._written - self._kept)
        assert len(execution.stdout) >= min(self._written, self._kept)


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("Output")
    megabytes = 2 if quick else 100
    written = megabytes * MEGABYTE
    with ExitStack() as stack:
        endpoint = stack.enter_context(LocalSandbox()).endpoint

        def keep(kept: int) -> Kept:
            session = Session.connect(endpoint.url, endpoint.token, max_output_bytes=kept)
            return Kept(stack.enter_context(session), written, kept)

        whole, cut = keep(2 * written), keep(MEGABYTE)
        minimal = stack.enter_context(websocket_client(endpoint))
        for (name, code), runs in zip(codes(megabytes).items(), (1, 1) if quick else (3, 9), strict=True):
            taken = interleaved(
                {
                    WEBSOCKET: lambda code=code: minimal(code),
                    WHOLE: lambda code=code: whole.run(code),
                    READ: whole.read,
                    CUT: lambda code=code: cut.run(code),
                    READ_CUT: cut.read,
                },
                runs,
                warm_up=1,
            )
            medians = {who: quantile(values, 0.5) for who, values in taken.items()}
            rows = [
                (
                    who,
                    medians[who],
                    max(values),
                    written / medians[who] / MEGABYTE,
                    medians[who] / medians[WEBSOCKET],
                )
                for who, values in taken.items()
            ]
            head = ("", "median, s", "worst, s", "MB/s", "of the minimal client's")
            section.tables.append(Table(f"{name}, {runs} runs", head, rows))
            section.charts.append(Chart(name, "s", {who: medians[who] for who in (WEBSOCKET, WHOLE, CUT)}))
            section.goals += [
                Goal(
                    4,
                    f"{who}: {name}, of the minimal client's time",
                    medians[who] / medians[WEBSOCKET],
                    1.2,
                    shortfall=KERNEL_NOTE,
                )
                for who in (WHOLE, CUT)
            ]
    return section


if __name__ == "__main__":
    main(measure, __doc__, "output")
