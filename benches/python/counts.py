"""What 10,000 messages of 100 bytes cost, in figures that do not depend on the machine's load.

valgrind counts instructions, allocations and copied bytes of `benches/counted.rs`. The instructions are kept
in the repository (`benches/results/instructions.json`), so that a regression shows; `--accept` writes them.
Run it with `.venv/bin/python benches/python/counts.py`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from measure import Goal, Section, Table, main

KEPT = Path(__file__).parent.parent / "results" / "instructions.json"
MESSAGES = 10_000
CASES = {
    "v1, kept whole": ("v1", 64 << 20),
    "v1, kept to 100 kB": ("v1", 100_000),
    "JSON, kept whole": ("json", 64 << 20),
}
BUILD = ["cargo", "bench", "--quiet", "--no-default-features", "--bench", "counted", "--no-run"]
TOOLS = {
    "instructions": (["--tool=callgrind", "--callgrind-out-file=/dev/null"], r"Collected : (\d+)"),
    "allocations": (
        ["--tool=dhat", "--mode=heap", "--dhat-out-file=/dev/null"],
        r"Total: +[\d,]+ bytes in ([\d,]+) blocks",
    ),
    "bytes copied": (["--tool=dhat", "--mode=copy", "--dhat-out-file=/dev/null"], r"Total: +([\d,]+) bytes"),
}
ACCEPT = "--accept"


def built() -> str:
    """The path of the program that is counted."""
    done = subprocess.run([*BUILD, "--message-format=json"], stdout=subprocess.PIPE, check=True, text=True)
    artifacts = [json.loads(line) for line in done.stdout.splitlines()]
    return next(
        artifact["executable"]
        for artifact in artifacts
        if artifact.get("target", {}).get("name") == "counted" and artifact.get("executable")
    )


def count(program: str, tool: str, subprotocol: str, limit: int) -> int:
    """What folding the stream once takes: the difference between once and not at all."""
    options, pattern = TOOLS[tool]
    totals = []
    for times in ("0", "1"):
        command = ["valgrind", *options, program, subprotocol, str(limit), times]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(pattern, done.stderr)
        assert found, done.stderr
        totals.append(int(found[1].replace(",", "")))
    return totals[1] - totals[0]


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("Counted, in Rust")
    if shutil.which("valgrind") is None or shutil.which("cargo") is None:
        missing = "valgrind or cargo is not there: apt-get install valgrind"
        section.goals.append(Goal(8, "instructions for 10,000 messages", None, 1.02, shortfall=missing))
        return section
    program = built()
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    found = {}
    rows = []
    for name, (subprotocol, limit) in list(CASES.items())[: 1 if quick else None]:
        counts = {tool: count(program, tool, subprotocol, limit) for tool in TOOLS}
        found[name] = counts["instructions"]
        rows.append(
            (
                name,
                f"{found[name]:,}",
                found[name] / MESSAGES,
                counts["allocations"] / MESSAGES,
                counts["bytes copied"] / MESSAGES,
            )
        )
        if name in kept.get("instructions", {}):
            what = f"instructions for 10,000 messages, {name}, of those kept in the repository"
            shortfall = f"Those were counted with {kept['rustc']}."
            ratio = found[name] / kept["instructions"][name]
            section.goals.append(Goal(8, what, ratio, 1.02, shortfall=shortfall))
    head = ("", "instructions", "for one message", "allocations for one", "bytes copied for one")
    note = (
        "From the frame on, whose header and parent header are 400 bytes: what the socket and the websocket "
        "library take before is not in it. The text itself is copied once; the rest are structures that move."
    )
    section.tables.append(
        Table("10,000 messages of one line of 100 bytes, decoded and folded", head, rows, note)
    )
    if ACCEPT in sys.argv:
        rustc = subprocess.run(
            ["rustc", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()
        KEPT.write_text(
            json.dumps({"rustc": rustc, "instructions": found}, indent=1) + "\n", encoding="utf-8"
        )
    return section


if __name__ == "__main__":
    main(measure, __doc__, "counts")
