"""Files to and from the sandbox, and several kernels in it: numbers are summed up in parallel.

It runs on this machine, so this needs neither an account nor a network. `ModalExecutor` has the same methods.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from sandkernel import LocalExecutor
from sandkernel.exceptions import SandboxFileError

SUM_UP = """
from pathlib import Path
numbers = [int(line) for line in Path("data", {name!r}).read_text().splitlines()]
Path("sums").mkdir(exist_ok=True)
Path("sums", {name!r}).write_text(str(sum(numbers)))
sum(numbers)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as here, LocalExecutor(timeout=30) as executor:
        data = Path(here, "data")
        data.mkdir()
        for first in (1, 10, 100):
            (data / f"from {first}.txt").write_text("\n".join(map(str, range(first, first + 5))))

        files = executor.files
        files.upload(data, "data", on_progress=lambda done, total: print(f"uploaded {done} of {total} bytes"))
        files.write("data/no numbers.txt", "five\nsix")

        names = [entry.name for entry in files.list("data")]
        # Each in a kernel of its own, three at a time. An error of one is data, and stops no other.
        outcomes = executor.run_many([SUM_UP.format(name=name) for name in names], max_kernels=3)
        for name, outcome in zip(names, outcomes, strict=True):
            error = str(outcome.error).splitlines()[-1] if outcome.error else None
            print(f"{name}: {error or outcome.result().output}")

        files.download("sums", Path(here, "sums"))
        print("downloaded:", sorted(path.name for path in Path(here, "sums").iterdir()))
        try:
            files.read("sums/no numbers.txt")
        except SandboxFileError as error:
            print(type(error).__name__, isinstance(error, FileNotFoundError))

        # A kernel that stays, with a state of its own.
        with executor.new_kernel() as kernel:
            executor("where = 'the first kernel'")
            kernel("where = 'the second kernel'")
            print(executor("where").output, "and", kernel("where").output)


if __name__ == "__main__":
    main()
