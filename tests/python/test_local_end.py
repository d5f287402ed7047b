"""The end of a local sandbox whose code does what it can to stay: nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandkernel import Session
from sandkernel.gateway.removal import remove_tree
from sandkernel.providers.local import LocalSandbox
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

DEPTH = 3000

# Goes down step by step: no path is that long.
NEST = f"""
import os
here = os.getcwd()
for _ in range({DEPTH}):
    os.mkdir("nested")
    os.chdir("nested")
os.chdir(here)
"""

# Each process lives for less than a look at all processes takes. It ends by itself, should this test fail.
CHAIN = """
import os, sys, time
end, number = time.monotonic() + 30, 0
while time.monotonic() < end:
    number += 1
    if number % 20 == 0:
        with open(sys.argv[1], "w") as file:
            file.write(str(number))
    if os.fork():
        os._exit(0)
    os.setsid()
"""
START_CHAIN = """
import subprocess, sys
nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
command = [sys.executable, "-S", "-E", "-c", {chain!r}, {progress!r}]
subprocess.Popen(command, env={{}}, cwd="/", start_new_session=True, **nothing)
"""


def run(sandbox: LocalSandbox, code: str) -> None:
    endpoint = sandbox.endpoint
    with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id) as session:
        execution = session.run(code)
        assert execution.error is None, execution.error


def goes_on(progress: Path, seconds: float) -> bool:
    """Whether a chain of processes gets further in time."""
    before = progress.read_text()
    return wait_until(lambda: progress.read_text() != before, seconds)


def leave_running(_: LocalSandbox) -> None:
    pass


def stop(sandbox: LocalSandbox) -> None:
    os.kill(sandbox.process_id, signal.SIGSTOP)


@pytest.mark.parametrize("treat", [leave_running, stop])
def test_a_chain_that_forks_anew_all_the_time_ends_with_the_sandbox(
    treat: Callable[[LocalSandbox], None], tmp_path: Path
) -> None:
    progress = tmp_path / "progress"
    progress.touch()
    with LocalSandbox() as sandbox:
        run(sandbox, START_CHAIN.format(chain=CHAIN, progress=str(progress)))
        assert wait_until(progress.read_text)
        assert goes_on(progress, 20)
        treat(sandbox)
    # A time in which it makes many steps.
    assert not goes_on(progress, 1)


def test_directories_nested_deeper_than_python_recurses_are_removed() -> None:
    with LocalSandbox() as sandbox:
        run(sandbox, NEST)
        assert (sandbox.directory / "nested" / "nested").exists()
    assert not sandbox.directory.parent.exists()


def test_a_host_that_is_killed_leaves_no_nested_directories(tmp_path: Path) -> None:
    code = """
import os, signal
from test_local_end import NEST, LocalSandbox, run
sandbox = LocalSandbox()
run(sandbox, NEST)
print(sandbox.directory, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert wait_until(lambda: not Path(done.stdout.strip()).parent.exists(), 60.0)


def test_a_tree_is_removed_whatever_it_holds(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    root = tmp_path / "root"
    closed = root / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    (root / "link").symlink_to(kept)
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(closed / "pipe")
    (root / "\udcff\n").touch()
    for directory in (closed, closed.parent, root):
        directory.chmod(0)
    remove_tree(str(root))
    assert not root.exists()
    assert (kept / "file").exists()


def test_what_can_not_be_removed_raises_nothing(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "missing"))
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    remove_tree(str(link))
    assert link.is_symlink()


# In a process of its own, since `Processes` adopts orphans. The files are made by the clock of the removal.
END_BESIDE_AN_EVENT_LOOP = """
import os, pathlib, subprocess, sys, threading
from sandkernel.gateway import processes, removal

root = pathlib.Path(sys.argv[1])
ours = processes.Processes()
watcher = processes.Watcher({"root": str(root), "runtime": str(root / "runtime")}, ours)
command = [sys.executable, "-S", "-E", "-c", "import time; time.sleep(60)"]
before = subprocess.Popen(command, preexec_fn=ours.tie)

remaining, remove_tree = 3, removal.remove_tree
def remove_beside_the_event_loop(directory):
    global remaining
    # After the look at what is in the directory, and before the directory goes.
    rmdir = os.rmdir
    def rmdir_late(path, **options):
        global remaining
        if remaining and not options:
            remaining -= 1
            (root / "runtime").mkdir(exist_ok=True)
            (root / "runtime" / "kernel.json").touch()
        rmdir(path, **options)
    os.rmdir = rmdir_late
    try:
        remove_tree(directory)
    finally:
        os.rmdir = rmdir

removal.remove_tree = remove_beside_the_event_loop
ours.kill_all()
after = subprocess.Popen(command, preexec_fn=ours.tie)
print(before.poll() is None, after.wait(30), flush=True)
watcher.remove("root", "runtime")
print(root.exists(), remaining)
"""


def test_a_kernel_that_the_event_loop_restarts_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "runtime").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", END_BESIDE_AN_EVENT_LOOP, root],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=90,
    )
    assert done.stdout == "False 1\nFalse 0\n"
