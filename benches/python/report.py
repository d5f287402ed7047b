"""Runs every subject, each in a process of its own, and saves what they found: `make bench`.

Writes `latest.json`, `latest.md` and `latest.svg` into `benches/results`. `--only` takes subjects, whose
sections replace those saved; `--draw` measures nothing, and writes table and drawing of what is saved.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chart import draw
from measure import Section, Table, goals_table, shortfalls

RESULTS = Path(__file__).parent.parent / "results"
# In the order of the report. The name of a subject is that of its file.
SUBJECTS = ("execution", "boot", "output", "values", "many", "tools", "hops", "journal", "counts", "weight")
PACKAGES = (
    "sandkernel",
    "smolagents",
    "modal",
    "jupyter-kernel-client",
    "websocket-client",
    "websockets",
    "jupyter-kernel-gateway",
    "jupyter-server",
    "jupyter-client",
    "ipykernel",
    "ipython",
    "pyzmq",
    "numpy",
    "pandas",
)

TRIAL = (
    "**A few runs of some subjects only (`--quick`): they show that it works, and nothing about speed.** "
    "`make bench` takes all."
)


def processor() -> str:
    """The processor's own name, where Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def machine() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.platform()}",
        "Python": platform.python_version(),
        "rustc": subprocess.run(
            ["rustc", "--version"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "packages": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def measured(subject: str, *, quick: bool) -> dict[str, Any]:
    """The section of a subject, measured in a process of its own."""
    began = time.monotonic()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "section.json")
        program = Path(__file__).with_name(f"{subject}.py")
        command = [sys.executable, str(program), "--json", str(path), *(["--quick"] if quick else [])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        section: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    print(f"{subject}: {time.monotonic() - began:.0f} s", flush=True)
    return {
        **section,
        "measured": time.strftime("%Y-%m-%d %H:%M"),
        "load": round(load, 1),
        "runs": "a few" if quick else "all",
    }


def markdown(saved: dict[str, Any]) -> str:
    sections = {name: Section.of(section) for name, section in saved["sections"].items()}
    goals = [goal for section in sections.values() for goal in section.goals]
    goals.sort(key=lambda goal: goal.item)
    met = sum(goal.met for goal in goals)
    environment = Table("Where", ("", ""), list(saved["environment"].items()))
    times = [
        (section["title"], section["measured"], section["runs"], f"{section['load']}", section["command"])
        for section in saved["sections"].values()
    ]
    parts = [
        "# What was measured",
        (
            "Written by `make bench`: do not edit. All clients of a table took turns, in one run here: "
            "trust ratios before times. A quantile is of all runs; nothing is left out."
        ),
        "![the main figures, drawn](latest.svg)",
        environment.markdown(),
        Table(
            "When, and the machine's load before", ("", "when", "runs", "load", "command"), times
        ).markdown(),
        *([TRIAL] if any(section["runs"] != "all" for section in saved["sections"].values()) else []),
        f"## Goals: {met} of {len(goals)} met",
        goals_table(goals).markdown(),
        *(f"- {line}" for line in shortfalls(goals)),
        *(section.markdown() for section in sections.values()),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few runs of each: whether it works")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument(
        "--draw", action="store_true", help="write the table and the drawing of what is saved"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the directory to write into")
    arguments = parser.parse_args()
    path = arguments.results / "latest.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"sections": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    for subject in () if arguments.draw else arguments.only:
        merged = {**saved["sections"], subject: measured(subject, quick=arguments.quick)}
        saved = {
            "environment": machine(),
            "sections": {name: merged[name] for name in SUBJECTS if name in merged},
        }
        # At once: what comes next may fail, and this took minutes.
        path.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    (arguments.results / "latest.md").write_text(markdown(saved), encoding="utf-8")
    draw(
        [chart for section in saved["sections"].values() for chart in Section.of(section).charts],
        arguments.results / "latest.svg",
    )
    print(f"written: {arguments.results}/latest.json, latest.md, latest.svg")


if __name__ == "__main__":
    main()
