"""Two versions of Sandkernel beside each other, in one run: no change may cost what nobody asked for.

Each version has a process of its own, started by its own interpreter, and the two take turns, run by run. To
compare with an older version, install its wheel with the extras `local`, `modal`, `smolagents` and `testing`
into an environment of its own. Run it with
`.venv/bin/python benches/python/versions.py --old OTHER/bin/python`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from measure import Table, quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKER = Path(__file__).parent / "versions_worker.py"
LIMIT = 1.05
# Of these the machine's noise is small; what takes longer is run less often.
RUNS = 400
RUNS_OF_SLOW = 40
SLOW_SECONDS = 0.1
WARM_UP = 5


class Version:
    """A process that runs cases with one version."""

    def __init__(self, interpreter: str) -> None:
        self._process = subprocess.Popen(
            [interpreter, WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.cases: list[str] = json.loads(self._line())

    def run(self, case: str) -> float:
        """Run a case once; return its seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{case}\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("A version's process ended; its error stands above")
        return line


def compare(old: Version, new: Version, case: str, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of each run of a case, by the old and by the new version."""
    trial = max(version.run(case) for _ in range(WARM_UP) for version in (old, new))
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs if trial < SLOW_SECONDS else min(runs, RUNS_OF_SLOW)):
        # The second one finds other caches than the first: the two swap places each time.
        order = (0, 1) if turn % 2 else (1, 0)
        for index in order:
            taken[index].append((old, new)[index].run(case))
    return taken


def measure(old: Version, new: Version, runs: int, only: Sequence[str]) -> tuple[Table, list[str]]:
    """The table of all cases, and the names of those that the new version is slower in."""
    rows, slower = [], []
    for case in (case for case in new.cases if case in old.cases):
        if only and not any(part in case for part in only):
            continue
        before, after = compare(old, new, case, runs)
        median, p95 = (quantile(after, share) / quantile(before, share) for share in (0.5, 0.95))
        rows.append(
            (case, quantile(before, 0.5) * 1000, quantile(after, 0.5) * 1000, median, p95, str(len(after)))
        )
        # Said at once: a later case may fail.
        print(f"{case}: {median:.3f}", file=sys.stderr)
        if median > LIMIT:
            slower.append(case)
    head = ("", "old: median, ms", "new: median, ms", "ratio", "ratio of p95", "runs")
    return Table("The new version beside the old one, in turns", head, rows), slower


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--old", required=True, help="the interpreter that has the old version")
    parser.add_argument("--new", default=sys.executable, help="the one that has the new version; this one")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", nargs="*", default=(), help="parts of the names of the cases to run")
    arguments = parser.parse_args()
    old = Version(arguments.old)
    try:
        new = Version(arguments.new)
        try:
            table, slower = measure(old, new, arguments.runs, arguments.only)
        finally:
            new.close()
    finally:
        old.close()
    print(table.markdown())
    if slower:
        raise SystemExit(f"The new version takes more than {LIMIT} times as long: {'; '.join(slower)}")


if __name__ == "__main__":
    main()
