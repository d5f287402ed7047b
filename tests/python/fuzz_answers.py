"""Fuzzes what reads final answers: whatever comes is a value or a `PayloadError`, soon, in little memory.

    python tests/python/fuzz_answers.py --seconds 60

An input is the form, then the document, then its buffers, with `--` on a line between them. What is found is
written into `fuzz/artifacts/answers`; `--input FILE` reads it again.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import atheris

# What branches are taken in these is what the fuzzer goes by.
with atheris.instrument_imports(include=["sandkernel.serialization"]):
    from sandkernel.serialization import decode

from payloads import seeds
from sandkernel import PayloadLimits
from sandkernel.exceptions import PayloadError

SEPARATOR = b"\n--\n"
FORMS = {b"safe": "safe"}
# Small, so that inputs reach them.
LIMITS = PayloadLimits(depth=12, items=2000, image_pixels=20_000, array_items=5000, array_bytes=40_000)
LONGEST_MESSAGE = 3000
FUZZ = Path(__file__).parents[2] / "fuzz"
# What the host may take for one input, in megabytes and seconds; all of the libraries are in it.
MEMORY, TIME = 2048, 10


def read(data: bytes) -> None:
    """Read one input."""
    form, *buffers = data.split(SEPARATOR)
    try:
        decode(FORMS.get(form, "buffers-1"), buffers, limits=LIMITS)
    except PayloadError as error:
        if len(str(error)) > LONGEST_MESSAGE:
            raise


def main() -> None:
    """Fuzz for a while, or run one input again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--input", type=Path)
    arguments = parser.parse_args()
    # What PIL and pandas say of odd values that they read all the same.
    warnings.simplefilter("ignore")
    corpus, artifacts = FUZZ / "corpus" / "answers", FUZZ / "artifacts" / "answers"
    for directory in (corpus, artifacts):
        directory.mkdir(parents=True, exist_ok=True)
    for number, (form, buffers) in enumerate(seeds()):
        corpus.joinpath(f"seed-{number}").write_bytes(SEPARATOR.join([form.encode(), *buffers]))
    options = [
        f"-artifact_prefix={artifacts}/",
        f"-max_total_time={arguments.seconds}",
        f"-rss_limit_mb={MEMORY}",
        f"-malloc_limit_mb={MEMORY // 8}",
        f"-timeout={TIME}",
        "-max_len=65536",
    ]
    inputs = [str(arguments.input or corpus)]
    atheris.Setup([sys.argv[0], *options, *inputs], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
