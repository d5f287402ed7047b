"""What Sandkernel weighs: the wheel, the import, a build after a change.

Run it with `.venv/bin/python benches/python/weight.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Goal, Section, Table, interleaved, main, quantile

ROOT = Path(__file__).parent.parent.parent
CHANGED = ROOT / "src" / "session" / "worker.rs"
IMPORT_NOTE = (
    "One file is imported, which imports nothing: 3 ms of processor time, with finding it. What is beyond "
    "was waited, for a core or for the disk."
)
MEGABYTE = 1_000_000


def interpreter(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], check=True)


def imported(section: Section, runs: int) -> None:
    cases = {"python -c pass": "pass", "python -c 'import sandkernel'": "import sandkernel"}
    taken = interleaved({name: lambda code=code: interpreter(code) for name, code in cases.items()}, runs)
    bare, ours = (quantile(values, 0.5) * 1000 for values in taken.values())
    rows = [
        (name, *(quantile(values, share) * 1000 for share in (0.5, 0.95))) for name, values in taken.items()
    ]
    section.tables.append(Table(f"Import, {runs} runs", ("", "median, ms", "p95, ms"), rows))
    section.goals.append(
        Goal(7, "import sandkernel, over bare Python", ours - bare, 20, "ms", shortfall=IMPORT_NOTE)
    )


def wheel(section: Section) -> None:
    with tempfile.TemporaryDirectory() as directory:
        command = ["maturin", "build", "--quiet", "--release", "--out", directory]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (path,) = Path(directory).glob("*.whl")
        size = path.stat().st_size / MEGABYTE
    section.tables.append(Table("The wheel", ("", "MB"), [(path.name, size)]))
    section.goals.append(Goal(7, "the wheel", size, 5, "MB"))


def incremental_build(section: Section) -> None:
    """Builds after a change to one file of the core; the first of each only brings it up to date."""
    commands = {
        "cargo check --no-default-features": ["cargo", "check", "--quiet", "--no-default-features"],
        "maturin develop --release": ["maturin", "develop", "--quiet", "--release", "--uv"],
    }
    rows = []
    for name, command in commands.items():
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        os.utime(CHANGED)
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        rows.append((name, time.perf_counter() - began))
    section.tables.append(Table(f"Build after a change to {CHANGED.relative_to(ROOT)}", ("", "s"), rows))


def measure(quick: bool) -> Section:  # noqa: FBT001
    section = Section("Weight")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["VIRTUAL_ENV"] = sys.prefix
    imported(section, 3 if quick else 40)
    if not quick and shutil.which("cargo"):
        wheel(section)
        incremental_build(section)
    return section


if __name__ == "__main__":
    main(measure, __doc__, "weight")
