"""Runs code under random faults, and counts what is lost, doubled or left behind.

    python tests/python/soak.py --seconds 60 --seed 1

Several executors run at once, each with a sandbox and a fault proxy of its own. Every step notes in a file
that it began, so that one that runs twice is found; prints on both streams; and uses a variable and a tool
that were sent at the very beginning. A fault that a connection survives must leave no trace. After one that
it can't survive, the caller gets the error that belongs to it, with a part of the output, and the next step
has its variable and its tool.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from leaks import left_since, present
from soak_worker import Counts, Worker

WORKERS = 2
PREFIX = "sandkernel-"


def soak(seed: int, *, seconds: float = math.inf, steps: float = math.inf) -> Counts:
    """Run for so long, or so many steps of each worker, and look at what is left."""
    counts = Counts()
    before = present(PREFIX)
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        workers = [
            Worker(f"{seed}-{each}", counts, Path(directory), deadline, steps) for each in range(WORKERS)
        ]

        def run(worker: Worker) -> None:
            try:
                worker.run()
            except BaseException:  # noqa: BLE001 it is reported
                counts.losses.append(f"worker {worker.seed} ended: {traceback.format_exc()}")

        threads = [threading.Thread(target=run, args=(worker,)) for worker in workers[1:]]
        for thread in threads:
            thread.start()
        # In the main thread, which alone gets Ctrl-C.
        run(workers[0])
        for thread in threads:
            thread.join()
    counts.leaks = left_since(before, PREFIX)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    counts = soak(arguments.seed, seconds=arguments.seconds)
    print(counts)
    return 0 if counts.clean else 1


if __name__ == "__main__":
    sys.exit(main())
