"""What the programs share that fuzz Python's side: their corpora, their limits, their command line."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["SEPARATOR", "fuzz"]

SEPARATOR = b"\n--\n"
FUZZ = Path(__file__).parents[2] / "fuzz"
# What the host may take for one input, in megabytes and seconds; all of the libraries are in it.
MEMORY, TIME = 2048, 10


def fuzz(name: str, description: str, read: Callable[[bytes], object], seeds: Iterable[bytes]) -> None:
    """Fuzz for a while, or run one input again.

    Args:
        name: The folder of the corpus, and of what is found, in `fuzz/corpus` and `fuzz/artifacts`.
        description: What the program does, for its help.
        read: Reads one input. What it raises is a finding.
        seeds: Inputs to begin with.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--input", type=Path)
    arguments = parser.parse_args()
    # What PIL and pandas say of odd values that they read all the same.
    warnings.simplefilter("ignore")
    corpus, artifacts = FUZZ / "corpus" / name, FUZZ / "artifacts" / name
    for directory in (corpus, artifacts):
        directory.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        corpus.joinpath(f"seed-{number}").write_bytes(seed)
    options = [
        f"-artifact_prefix={artifacts}/",
        f"-max_total_time={arguments.seconds}",
        f"-rss_limit_mb={MEMORY}",
        f"-malloc_limit_mb={MEMORY // 8}",
        f"-timeout={TIME}",
        "-max_len=65536",
    ]
    atheris.Setup([sys.argv[0], *options, str(arguments.input or corpus)], read)
    atheris.Fuzz()
