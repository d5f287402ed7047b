"""Fuzzes what reads final answers: whatever comes is a value or a `PayloadError`, soon, in little memory.

    python tests/python/fuzz_answers.py --seconds 60

An input is the form, then the document, then its buffers, with `--` on a line between them. What is found is
written into `fuzz/artifacts/answers`; `--input FILE` reads it again.
"""

from __future__ import annotations

import atheris

# What branches are taken in these is what the fuzzer goes by.
with atheris.instrument_imports(include=["sandkernel.serialization"]):
    from sandkernel.serialization import decode

from fuzz_support import SEPARATOR, fuzz
from payloads import seeds
from sandkernel import PayloadLimits
from sandkernel.exceptions import PayloadError

FORMS = {b"safe": "safe"}
# Small, so that inputs reach them.
LIMITS = PayloadLimits(depth=12, items=2000, image_pixels=20_000, array_items=5000, array_bytes=40_000)
LONGEST_MESSAGE = 3000


def read(data: bytes) -> None:
    """Read one input."""
    form, *buffers = data.split(SEPARATOR)
    try:
        decode(FORMS.get(form, "buffers-1"), buffers, limits=LIMITS)
    except PayloadError as error:
        if len(str(error)) > LONGEST_MESSAGE:
            raise


if __name__ == "__main__":
    fuzz("answers", __doc__, read, (SEPARATOR.join([form.encode(), *buffers]) for form, buffers in seeds()))
