"""Kernels of our gateways reach no process outside of their sandbox, and leave none behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kernel_client import KernelClient, request, run
from sandkernel import LocalExecutor
from sandkernel.gateway.confinement import Confinement
from sandkernel.providers.local import LocalSandbox
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE = Confinement().state
confined = pytest.mark.skipif(STATE != "on", reason=f"Landlock confines no process here: {STATE}")
# Without a subreaper, who wiped its environment and lost its parent is not found by anybody.
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are found by means of Linux")

# Each attempt that is not refused is named.
REACH = """
import ctypes, os, signal, socket, subprocess, sys
def tries(target):
    for number in (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
        yield "signal %d" % number, lambda number=number: os.kill(target, number)
    for name in ("environ", "maps"):
        yield name, lambda name=name: open("/proc/%d/%s" % (target, name), "rb").read()
    for mode in ("rb", "r+b"):
        yield "memory, " + mode, lambda mode=mode: open("/proc/%d/mem" % target, mode).close()
    for name in ("fd/0", "cwd", "exe", "root"):
        yield name, lambda name=name: os.readlink("/proc/%d/%s" % (target, name))
    if hasattr(signal, "pidfd_send_signal"):
        yield "pidfd", lambda: signal.pidfd_send_signal(os.pidfd_open(target), 0)
    library = ctypes.CDLL(None, use_errno=True)
    def attach():
        if library.ptrace(16, target, None, None) != 0:
            raise OSError(ctypes.get_errno(), "refused")
    yield "debugger", attach
def reached(*targets):
    found = []
    for target in targets:
        for name, attempt in tries(target):
            try:
                attempt()
            except PermissionError:
                continue
            found.append((target, name))
    return found
"""

# A process that does what it can to stay: no environment, no parent, a session of its own, no descriptors.
STAY = """
import ctypes, os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
with open(sys.argv[1], "a") as file:
    file.write("%d\\n" % os.getpid())
os.closerange(0, 64)
time.sleep(600)
"""
# The kernel does not end with its parent either, and is busy for ever.
START = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
parent = os.getppid()
os.getppid = lambda: parent
subprocess.run([sys.executable, "-S", "-E", "-c", {stay!r}, {file!r}], env={{}}, cwd="/")
with open({file!r}, "a") as file:
    file.write("%d\\n" % os.getpid())
while True:
    pass
"""
# Each process lives for less than a look at all processes takes. It ends by itself, should this test fail.
CHAIN = """
import os, sys, time
end, number = time.monotonic() + 60, 0
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


def alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def parent_of(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])


def all_gone(process_ids: list[int]) -> bool:
    return wait_until(lambda: not any(map(alive, process_ids)))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[LocalSandbox]:
    with LocalSandbox() as sandbox:
        yield sandbox


def outside_of(sandbox: LocalSandbox) -> list[int]:
    """The host, the gateway, and the process between."""
    return [os.getpid(), sandbox.process_id, parent_of(sandbox.process_id)]


@confined
def test_code_reaches_neither_host_nor_gateway_nor_another_kernel(sandbox: LocalSandbox) -> None:
    assert sandbox.confinement == "on"
    _, other = request(sandbox.endpoint, "POST", "/api/kernels")
    with KernelClient(sandbox.endpoint, other["id"]) as client:
        neighbour = int(client.run("import os; os.getpid()").result or 0)
        targets = [*outside_of(sandbox), neighbour]
        assert len(set(targets)) == 4
        attempt = f"{REACH}\nprint(reached(*{targets!r}))"
        assert run(sandbox.endpoint, attempt).stdout == "[]\n"
        assert client.run(attempt.replace(str(neighbour), str(os.getpid()))).stdout == "[]\n"
    assert request(sandbox.endpoint, "DELETE", f"/api/kernels/{other['id']}")[0] == 204


@confined
@pytest.mark.parametrize(
    "way",
    [
        pytest.param("subprocess.run([sys.executable, '-c', code], stdout=-1).stdout.decode()", id="child"),
        pytest.param(
            "subprocess.run(['setsid', 'env', '-i', sys.executable, '-c', code], stdout=-1).stdout.decode()",
            id="another session, no environment",
        ),
        pytest.param("asked_in_a_thread()", id="thread"),
    ],
)
def test_what_code_starts_reaches_no_more(sandbox: LocalSandbox, way: str) -> None:
    attempt = f"{REACH}\nprint(reached(*{outside_of(sandbox)!r}))"
    thread = """
def asked_in_a_thread():
    import threading
    found = []
    def ask():
        exec(code.replace("print(", "found.append("), {"found": found})
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return "%r\\n" % (found[0],)
"""
    code = f"import subprocess, sys\ncode = {attempt!r}\n{thread}\nprint({way}, end='')"
    assert run(sandbox.endpoint, code).stdout == "[]\n"


@confined
@pytest.mark.parametrize("way", ["restarted", "replaced", "further"])
def test_a_kernel_is_confined_whichever_way_it_came(way: str) -> None:
    with LocalSandbox() as sandbox:
        endpoint, kernel_id = sandbox.endpoint, sandbox.endpoint.kernel_id
        if way == "further":
            kernel_id = request(endpoint, "POST", "/api/kernels")[1]["id"]
        with KernelClient(endpoint, kernel_id) as client:
            before = client.run("import os; os.getpid()").result
            if way == "replaced":
                client.send("os._exit(1)")
                while client.receive()["content"].get("execution_state") != "restarting":
                    pass
        if way == "restarted":
            assert request(endpoint, "POST", f"/api/kernels/{kernel_id}/restart")[0] == 200
        with KernelClient(endpoint, kernel_id) as client:
            assert (client.run("import os; os.getpid()").result == before) == (way == "further")
            attempt = f"{REACH}\nprint(reached(*{outside_of(sandbox)!r}))"
            assert client.run(attempt).stdout == "[]\n"


@confined
def test_code_ends_and_looks_into_what_it_started_itself(sandbox: LocalSandbox) -> None:
    code = """
import os, signal, subprocess, sys, time
children = [subprocess.Popen(["sleep", "600"], start_new_session=new) for new in (False, True)]
for child in children:
    # It has none for a moment, as its program begins.
    while b"PATH=" not in open("/proc/%d/environ" % child.pid, "rb").read():
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGSTOP)
    child.send_signal(signal.SIGCONT)
children[0].terminate()
os.killpg(children[1].pid, signal.SIGKILL)
print([child.wait() for child in children])
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    outcome = run(sandbox.endpoint, code)
    assert outcome.stdout == "[-15, -9]\ninterrupted\n", outcome.error


MULTIPROCESSING = """
import multiprocessing, sys
def work(queue, number):
    queue.put(number)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    processes = [context.Process(target=work, args=(queue, number)) for number in range(2)]
    for process in processes:
        process.start()
    print(sorted(queue.get(timeout=60) for _ in processes))
    for process in processes:
        process.join()
    sleeping = context.Process(target=__import__("time").sleep, args=(600,))
    sleeping.start()
    sleeping.terminate()
    sleeping.join()
    print(sleeping.exitcode)
"""


@confined
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_code_work_together(sandbox: LocalSandbox, method: str) -> None:
    code = f"""
import pathlib, subprocess, sys
pathlib.Path("together.py").write_text({MULTIPROCESSING!r})
done = subprocess.run([sys.executable, "together.py", {method!r}], stdout=-1, stderr=-2, text=True)
print(done.stdout, end="")
"""
    assert run(sandbox.endpoint, code).stdout == "[0, 1]\n-15\n"


@confined
def test_an_abstract_socket_of_the_host_is_out_of_reach_and_the_codes_own_is_not(
    sandbox: LocalSandbox,
) -> None:
    name = f"\0sandkernel-{os.getpid()}"
    code = f"""
import socket
def connected(name):
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(name)
        except PermissionError:
            return False
        return True
own = socket.socket(socket.AF_UNIX)
own.bind({name!r} + "-own")
own.listen()
print(connected({name!r}), connected({name!r} + "-own"))
own.close()
"""
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(name)
        ours.listen()
        assert run(sandbox.endpoint, code).stdout == "False True\n"


@confined
def test_a_program_gains_no_privileges(sandbox: LocalSandbox) -> None:
    status = run(sandbox.endpoint, "print(open('/proc/self/status').read())").stdout
    assert "NoNewPrivs:\t1\n" in status


def start_what_stays(sandbox: LocalSandbox, file: Path) -> list[int]:
    """Have code start what stays; return the ids of the gateway and of what stays, the kernel last."""
    file.touch()
    with KernelClient(sandbox.endpoint) as client:
        client.send(START.format(stay=STAY, file=str(file)))
        assert wait_until(lambda: len(file.read_text().splitlines()) == 2, 60)
    ids = [sandbox.process_id, *map(int, file.read_text().split())]
    assert all(map(alive, ids))
    return ids


@linux
@pytest.mark.parametrize("end", ["terminate", "gateway killed", "gateway stopped", "first process killed"])
def test_what_hides_ends_with_the_sandbox(end: str, tmp_path: Path) -> None:
    with LocalSandbox() as sandbox:
        ids = start_what_stays(sandbox, tmp_path / "ids")
        first = parent_of(sandbox.process_id)
        if end == "gateway stopped":
            os.kill(sandbox.process_id, signal.SIGSTOP)
        elif end == "gateway killed":
            os.kill(sandbox.process_id, signal.SIGKILL)
            # As the system does that has no memory left. Nobody is asked to clean up.
            assert all_gone([*ids, first])
        elif end == "first process killed":
            os.kill(first, signal.SIGKILL)
            assert all_gone(ids)
    assert all_gone([*ids, first])
    assert not sandbox.directory.parent.exists()


HOST = """
import os, sys, time
sys.path.insert(0, {tests!r})
import test_confinement
from pathlib import Path
sandbox = test_confinement.LocalSandbox()
test_confinement.run(sandbox.endpoint, {code!r})
ids = test_confinement.start_what_stays(sandbox, Path({file!r}))
print(sandbox.confinement, *ids, test_confinement.parent_of(sandbox.process_id), flush=True, sep="|")
sys.stdin.read()
"""


@contextlib.contextmanager
def host(
    tmp_path: Path, before: str = "", code: str = ""
) -> Iterator[tuple[subprocess.Popen[str], str, list[int]]]:
    """A process of its own with a sandbox in which something hides: it, the state, and the ids."""
    tests = str(Path(__file__).parent)
    program = before + HOST.format(tests=tests, file=str(tmp_path / "ids"), code=code)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        state, *ids = process.stdout.readline().split("|")
        try:
            yield process, state, [int(word) for word in ids]
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


@linux
@pytest.mark.parametrize("also", ["nobody else", "gateway stopped", "gateway killed", "first process killed"])
def test_what_hides_ends_where_the_host_is_killed(
    also: str, tmp_path: Path, nothing_left_behind: Path
) -> None:
    with host(tmp_path) as (process, _, ids):
        gateway, first = ids[0], ids[-1]
        # Together with the host: nobody has the time to end anything between.
        for target, name, number in (
            (gateway, "gateway stopped", signal.SIGSTOP),
            (gateway, "gateway killed", signal.SIGKILL),
            (first, "first process killed", signal.SIGKILL),
            (process.pid, also, signal.SIGKILL),
        ):
            if name == also:
                os.kill(target, number)
        assert all_gone(ids)
        assert wait_until(lambda: not list(nothing_left_behind.glob("sandkernel-*")))


def goes_on(progress: Path, seconds: float) -> bool:
    """Whether a chain of processes gets further in time."""
    before = progress.read_text()
    return wait_until(lambda: progress.read_text() != before, seconds)


@confined
@pytest.mark.parametrize("killed", ["host", "gateway"])
def test_a_chain_that_forks_anew_all_the_time_ends_where_somebody_is_killed(
    killed: str, tmp_path: Path
) -> None:
    progress = tmp_path / "progress"
    progress.touch()
    code = START_CHAIN.format(chain=CHAIN, progress=str(progress))
    with host(tmp_path, code=code) as (process, _, ids):
        assert wait_until(progress.read_text, 60)
        assert goes_on(progress, 20)
        os.kill(process.pid if killed == "host" else ids[0], signal.SIGKILL)
        assert all_gone(ids)
    # A time in which it makes many steps.
    assert not goes_on(progress, 1)


LIMITS = """
import resource
for target in {targets!r}:
    for number in range(16):
        resource.prlimit(target, number, (0, 0))
print("lowered")
"""


@confined
def test_a_gateway_without_any_resources_left_leaves_nothing(tmp_path: Path) -> None:
    """Limits are no signals: code may lower those of the processes above it."""
    with LocalSandbox() as sandbox:
        first = parent_of(sandbox.process_id)
        limits = LIMITS.format(targets=[first, sandbox.process_id])
        file = tmp_path / "ids"
        file.touch()
        # The gateway may end at once; what hides is there before.
        code = START.format(stay=STAY, file=str(file)).replace("while True:\n", f"{limits}\nwhile True:\n")
        with KernelClient(sandbox.endpoint) as client:
            client.send(code)
            assert wait_until(lambda: len(file.read_text().splitlines()) == 2, 60)
        ids = [sandbox.process_id, *map(int, file.read_text().split())]
    assert all_gone([*ids, first])
    assert not sandbox.directory.parent.exists()


# A system without Landlock: the call is unknown to it.
WITHOUT_LANDLOCK = """
import ctypes, struct
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)]
text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("rules", ctypes.c_void_p)]
library = ctypes.CDLL(None, use_errno=True)
assert library.prctl(38, 1, 0, 0, 0) == 0
assert library.prctl(22, 2, ctypes.byref(Program(len(rules), ctypes.addressof(text))), 0, 0) == 0
"""
# A system that takes no further domain: sandboxes in sandboxes.
WITHOUT_ROOM = """
from sandkernel.gateway.confinement import RESTRICT_SELF, Confinement
confinement = Confinement()
confinement.library.prctl(38, 1, 0, 0, 0)
for _ in range({taken}):
    confinement.call(RESTRICT_SELF, confinement.descriptor, 0)
"""


@linux
@pytest.mark.parametrize(
    ("before", "reason"),
    [
        pytest.param(WITHOUT_LANDLOCK, "off: this system has no Landlock", id="no Landlock"),
        pytest.param(
            WITHOUT_ROOM.format(taken=16), "off: Landlock takes no further domain", id="16", marks=confined
        ),
        pytest.param(
            WITHOUT_ROOM.format(taken=15), "off: Landlock takes no further domain", id="15", marks=confined
        ),
        pytest.param(
            WITHOUT_ROOM.format(taken=14), "off: Landlock takes no further domain", id="14", marks=confined
        ),
        pytest.param(WITHOUT_ROOM.format(taken=13), "on", id="13", marks=confined),
    ],
)
@pytest.mark.parametrize("killed", ["host", "gateway"])
def test_without_it_the_host_is_told_and_what_hides_still_ends(
    before: str, reason: str, killed: str, tmp_path: Path, nothing_left_behind: Path
) -> None:
    """What is not promised then: that the code can't kill the host, the gateway and the process between."""
    with host(tmp_path, before) as (process, state, ids):
        assert state.startswith(reason)
        os.kill(process.pid if killed == "host" else ids[0], signal.SIGKILL)
        assert all_gone(ids)
        if killed == "host":
            assert wait_until(lambda: not list(nothing_left_behind.glob("sandkernel-*")))


def test_doctor_says_whether_kernels_are_confined() -> None:
    command = [sys.executable, "-c", "import sandkernel.__main__ as m; m.main()", "doctor", "--json"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=100)
    [check] = [each for each in json.loads(told.stdout)["checks"] if each["name"] == "confinement"]
    assert check["found"] == STATE.partition(":")[0]
    assert check["status"] == ("ok" if STATE == "on" else "note")


@confined
def test_an_executor_ends_what_its_code_left_behind(tmp_path: Path) -> None:
    file = tmp_path / "ids"
    file.touch()
    with LocalExecutor(timeout=60) as executor:
        executor(START.format(stay=STAY, file=str(file)).replace("while True:\n    pass\n", ""))
        assert wait_until(lambda: len(file.read_text().splitlines()) == 2, 60)
        ids = [int(line) for line in file.read_text().split()]
    assert all_gone(ids)
