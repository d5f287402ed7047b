"""The local control plane, through the unmodified modal package."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal
import modal.exception
import psutil
import pytest
import requests
from smolagents import ChatMessage, CodeAgent, Model
from smolagents.models import MessageRole
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import ModalExecutor

from leaks import nothing_left
from sandkernel.testing import LocalModal
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sandkernel.testing import SandboxRecord

SERVER = ["python", "-u", "-m", "http.server", "8000"]
HELLO = ["sh", "-c", "echo out; echo err >&2; exit 3"]
PREFIX = "sandkernel-modal-"


@pytest.fixture(scope="module")
def local_modal() -> Iterator[LocalModal]:
    with nothing_left(PREFIX), LocalModal() as cloud, cloud.activate():
        yield cloud


@pytest.fixture
def cloud(local_modal: LocalModal) -> Iterator[LocalModal]:
    yield local_modal
    running = local_modal.running_sandboxes()
    local_modal.reset()
    assert not running


@pytest.fixture
def app(cloud: LocalModal) -> modal.App:  # noqa: ARG001 it is for the order
    return modal.App.lookup("tests", create_if_missing=True)


@pytest.fixture
def create(app: modal.App) -> Iterator[Callable[..., modal.Sandbox]]:
    """Create sandboxes that are terminated afterwards."""
    made = []

    def call(*entrypoint: str, **options: Any) -> modal.Sandbox:
        made.append(modal.Sandbox.create(*entrypoint, **{"app": app, "timeout": 60, **options}))
        return made[-1]

    yield call
    for sandbox in made:
        sandbox.terminate()


def alive(pid: int) -> bool:
    try:
        return str(psutil.Process(pid).status()) != "zombie"
    except psutil.NoSuchProcess:
        return False


def served(url: str) -> requests.Response:
    """Get an answer as soon as there is one."""

    def get() -> requests.Response | None:
        try:
            return requests.get(url, timeout=20)
        except requests.ConnectionError:
            return None

    response: requests.Response = until(get)
    return response


def record(cloud: LocalModal) -> SandboxRecord:
    return cloud.sandboxes[-1]


# What the SDK does


def test_it_is_asked_by_the_sdk_and_records_it(
    cloud: LocalModal, create: Callable[..., modal.Sandbox]
) -> None:
    image = modal.Image.debian_slim().pip_install("boto3").env({"FROM_IMAGE": "yes"})
    sandbox = create(*HELLO, image=image, name="named", tags={"made-by": "test"}, cpu=0.5, memory=512)
    sandbox.wait()
    seen = record(cloud)
    assert (seen.id, seen.name, seen.app_name, seen.backend) == (sandbox.object_id, "named", "tests", "V2")
    assert (seen.state, seen.returncode, seen.end_reason) == ("ended", 3, "exited")
    assert seen.created_at <= seen.started_at <= seen.ended_at
    assert seen.tags == {"made-by": "test"}
    assert seen.entrypoint == HELLO
    assert "pip install boto3" in "\n".join(seen.image.commands)
    assert "debian" in seen.image.layers[0][0] or "python" in seen.image.layers[0][0]
    assert seen.definition.resources.memory_mb == 512
    methods = [call.method for call in cloud.calls]
    assert (
        methods.index("AppGetOrCreate") < methods.index("ImageGetOrCreate") < methods.index("SandboxCreateV2")
    )


@pytest.mark.parametrize("options", [{}, {"gpu": "T4"}], ids=["V2", "V1"])
def test_output_and_exit_code(create: Callable[..., modal.Sandbox], options: dict[str, Any]) -> None:
    sandbox = create(*HELLO, **options)
    sandbox.wait()
    assert sandbox.returncode == sandbox.poll() == 3
    assert sandbox.stdout.read() == "out\n"
    assert sandbox.stderr.read() == "err\n"


@pytest.mark.parametrize("options", [{}, {"gpu": "T4"}], ids=["V2", "V1"])
def test_input_reaches_the_entrypoint(create: Callable[..., modal.Sandbox], options: dict[str, Any]) -> None:
    sandbox = create("cat", **options)
    sandbox.stdin.write("line one\n")
    sandbox.stdin.drain()
    assert next(iter(sandbox.stdout)) == "line one\n"
    assert sandbox.poll() is None
    sandbox.stdin.write_eof()
    sandbox.stdin.drain()
    sandbox.wait()
    assert sandbox.returncode == 0


@pytest.mark.parametrize("options", [{}, {"gpu": "T4"}], ids=["V2", "V1"])
def test_a_tunnel_is_a_tls_endpoint(
    cloud: LocalModal, create: Callable[..., modal.Sandbox], options: dict[str, Any]
) -> None:
    sandbox = create(*SERVER, encrypted_ports=[8000], **options)
    tunnel = sandbox.tunnels()[8000]
    assert served(f"https://{tunnel.host}/").status_code == 200
    assert served(tunnel.url).status_code == 200
    assert record(cloud).tunnels[8000].local_port != 8000
    assert record(cloud).backend == ("V1" if options else "V2")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(tunnel.url, verify=requests.certs.where(), timeout=20)
    trusting = ssl.create_default_context(cafile=cloud.ca_certificates)
    with urllib.request.urlopen(tunnel.url, timeout=20, context=trusting) as response:
        assert response.status == 200


def test_two_sandboxes_use_the_same_port(create: Callable[..., modal.Sandbox], tmp_path: Path) -> None:
    sandboxes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        sandboxes.append(create(*SERVER, "--directory", str(tmp_path / name), encrypted_ports=[8000]))
    assert [served(f"{each.tunnels()[8000].url}/file").text for each in sandboxes] == ["one", "two"]


def test_tunnels_without_privileges() -> None:
    with LocalModal(addressing="port") as cloud, cloud.activate():
        app = modal.App.lookup("tests", create_if_missing=True)
        sandbox = modal.Sandbox.create(*SERVER, app=app, encrypted_ports=[8000])
        tunnel = sandbox.tunnels()[8000]
        assert tunnel.host.startswith("127.0.0.1:")
        assert tunnel.url == f"https://{tunnel.host}"
        assert served(f"https://{tunnel.host}/").status_code == 200
        sandbox.terminate()


def test_unencrypted_tunnel(create: Callable[..., modal.Sandbox]) -> None:
    sandbox = create(*SERVER, unencrypted_ports=[8000])
    host, port = sandbox.tunnels()[8000].tcp_socket
    assert served(f"http://{host}:{port}/").status_code == 200


def test_secrets_and_environment(
    cloud: LocalModal, create: Callable[..., modal.Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_HOST", "not to be seen")
    cloud.add_secret("named", {"FROM_NAMED": "1"})
    token = uuid.uuid4().hex
    sandbox = create(
        "env",
        secrets=[modal.Secret.from_dict({"TOKEN": token}), modal.Secret.from_name("named")],
        env={"FROM_ENV": "2"},
        image=modal.Image.debian_slim().env({"FROM_IMAGE": "a b"}),
    )
    sandbox.wait()
    lines = sandbox.stdout.read().splitlines()
    assert {f"TOKEN={token}", "FROM_NAMED=1", "FROM_ENV=2", "FROM_IMAGE=a b"} <= set(lines)
    assert f"MODAL_SANDBOX_ID={sandbox.object_id}" in lines
    assert not any(line.startswith("OF_THE_HOST") for line in lines)
    assert record(cloud).environment_names == ["FROM_ENV", "FROM_NAMED", "TOKEN"]
    assert token not in repr(cloud.calls) + repr(cloud.sandboxes)


def test_an_unknown_secret_is_an_error(create: Callable[..., modal.Sandbox]) -> None:
    with pytest.raises(modal.exception.NotFoundError, match="nowhere"):
        create("true", secrets=[modal.Secret.from_name("nowhere")])


def test_volumes_are_recorded(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    volume = modal.Volume.from_name("data", create_if_missing=True)
    create("true", volumes={"/data": volume}).wait()
    (mount,) = record(cloud).definition.volume_mounts
    assert (mount.mount_path, mount.volume_id) == ("/data", volume.object_id)


def test_look_up_by_id_name_and_tags(create: Callable[..., modal.Sandbox], app: modal.App) -> None:
    sandbox = create("sleep", "60", name="worker", tags={"pool": "a"})
    other = create("sleep", "60")
    other.set_tags({"pool": "b"})
    assert other.get_tags() == {"pool": "b"}
    assert modal.Sandbox.from_id(sandbox.object_id).poll() is None
    assert modal.Sandbox.from_name("tests", "worker").object_id == sandbox.object_id
    listed = [each.object_id for each in modal.Sandbox.list(app_id=app.app_id, tags={"pool": "a"})]
    assert listed == [sandbox.object_id]
    assert len(list(modal.Sandbox.list(app_id=app.app_id))) == 2
    with pytest.raises(modal.exception.AlreadyExistsError):
        create("sleep", "60", name="worker")
    sandbox.terminate()
    with pytest.raises(modal.exception.NotFoundError):
        modal.Sandbox.from_name("tests", "worker")
    with pytest.raises(modal.exception.NotFoundError):
        modal.Sandbox.from_id("sb-nothing")


@pytest.mark.parametrize("options", [{}, {"gpu": "T4"}], ids=["V2", "V1"])
def test_commands(create: Callable[..., modal.Sandbox], options: dict[str, Any], tmp_path: Path) -> None:
    sandbox = create("sleep", "60", env={"FROM_ENV": "1"}, **options)
    process = sandbox.exec(
        "sh", "-c", "read line; echo $line $FROM_ENV $MORE; echo err >&2; exit 4", env={"MORE": "2"}
    )
    process.stdin.write("typed\n")
    process.stdin.write_eof()
    process.stdin.drain()
    assert process.stdout.read() == "typed 1 2\n"
    assert process.stderr.read() == "err\n"
    assert process.wait() == 4
    assert sandbox.exec("no-such-program").wait() == 127
    assert sandbox.exec("sleep", "60", timeout=1).wait() in {-1, 137}
    file = f"{tmp_path}/deep/file.txt"
    sandbox.filesystem.write_text("content", file)
    assert sandbox.filesystem.read_text(file) == "content"
    assert [each.name for each in sandbox.filesystem.list_files(str(tmp_path))] == ["deep"]
    assert sandbox.filesystem.stat(file).size == 7
    with pytest.raises(modal.exception.SandboxFilesystemDirectoryNotEmptyError):
        sandbox.filesystem.remove(f"{tmp_path}/deep")
    sandbox.filesystem.remove(f"{tmp_path}/deep", recursive=True)
    with pytest.raises(modal.exception.SandboxFilesystemNotFoundError):
        sandbox.filesystem.read_text(file)


def test_readiness_probe(create: Callable[..., modal.Sandbox]) -> None:
    sandbox = create(
        *SERVER, encrypted_ports=[8000], readiness_probe=modal.Probe.with_tcp(8000, interval_ms=10)
    )
    sandbox.wait_until_ready(timeout=60)
    assert requests.get(sandbox.tunnels()[8000].url, timeout=20).status_code == 200
    never = create("sleep", "60", readiness_probe=modal.Probe.with_exec("false", interval_ms=10))
    with pytest.raises(modal.exception.TimeoutError):
        never.wait_until_ready(timeout=1)


@pytest.mark.usefixtures("cloud")
async def test_asynchronously() -> None:
    app = await modal.App.lookup.aio("tests", create_if_missing=True)
    sandbox = await modal.Sandbox.create.aio(*SERVER, app=app, encrypted_ports=[8000], name="aio")
    assert (await sandbox.tunnels.aio())[8000].host
    assert await sandbox.poll.aio() is None
    process = await sandbox.exec.aio("echo", "hello")
    assert await process.stdout.read.aio() == "hello\n"
    assert await process.wait.aio() == 0
    again = await modal.Sandbox.from_name.aio("tests", "aio")
    assert [each.object_id async for each in modal.Sandbox.list.aio(app_id=app.app_id)] == [again.object_id]
    await again.terminate.aio()
    assert await sandbox.wait.aio(raise_on_termination=False) is None
    assert sandbox.returncode == 137


def test_an_app_that_stops_ends_its_sandboxes(cloud: LocalModal) -> None:
    app = modal.App("ephemeral")
    with app.run():
        modal.Sandbox.create("sleep", "60", app=app)
        assert record(cloud).state != "ended"
    assert record(cloud).end_reason == "app_stopped"


@pytest.mark.usefixtures("cloud")
def test_only_its_own_tokens_are_accepted() -> None:
    with (
        modal.Client.from_credentials("ak-other", "as-other") as client,
        pytest.raises(modal.exception.AuthError),
    ):
        client.hello()


# smolagents


class Scripted(Model):
    """A model that says what it was told to."""

    def __init__(self, *steps: str) -> None:
        super().__init__(model_id="scripted")
        self.steps = iter(steps)

    def generate(self, *_: object, **__: object) -> ChatMessage:
        content = f"Thought: go on\n<code>\n{next(self.steps)}\n</code>"
        return ChatMessage(role=MessageRole.ASSISTANT, content=content)


def test_the_executor_of_smolagents() -> None:
    # What smolagents wants to install is there already, or isn't needed here.
    no_index = {"PIP_NO_INDEX": "1"}
    with (
        nothing_left(f"{PREFIX}none"),
        LocalModal(environment=no_index) as cloud,
        cloud.activate(),
    ):
        executor = ModalExecutor([], AgentLogger(level=LogLevel.OFF))
        model = Scripted("x = 20 + 1\nprint('x is', x)", "final_answer(x * 2)")
        agent = CodeAgent([], model, executor=executor, verbosity_level=LogLevel.OFF)
        assert agent.run("Compute.") == 42
        assert "x is 21" in agent.memory.steps[1].observations
        (seen,) = cloud.running_sandboxes()
        assert (seen.app_name, seen.environment_names) == ("smolagent-executor", ["KG_AUTH_TOKEN"])
        assert len(seen.processes()) >= 2
        agent.cleanup()
        assert seen.processes() == []
        cloud.assert_no_running_sandboxes(within=0)


# How a sandbox ends


def test_terminate_ends_the_whole_tree(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    # A child in a session of its own, as kernels are, and one that has lost its parent.
    sandbox = create("sh", "-c", "setsid sleep 61 & (setsid sh -c 'sleep 62 & exec sleep 63' &) ; sleep 64")
    processes = until(lambda: len(pids := record(cloud).processes()) >= 5 and pids)
    assert sandbox.terminate(wait=True) == 137
    assert record(cloud).processes() == []
    assert not any(map(alive, processes))
    assert sandbox.terminate() is None
    with pytest.raises(modal.exception.SandboxTerminatedError):
        sandbox.wait()


def test_timeout(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    sandbox = create("sleep", "60", timeout=1)
    with pytest.raises(modal.exception.SandboxTimeoutError):
        sandbox.wait()
    assert (sandbox.returncode, record(cloud).end_reason) == (124, "timeout")
    early = create("sleep", "60")
    record(cloud).expire()
    with pytest.raises(modal.exception.SandboxTimeoutError):
        early.wait()


def test_idle_timeout_waits_for_open_connections(
    cloud: LocalModal, create: Callable[..., modal.Sandbox]
) -> None:
    sandbox = create("sleep", "60", encrypted_ports=[8000], idle_timeout=2)
    with until(lambda: _hold(sandbox)):
        time.sleep(3)
        assert sandbox.poll() is None
    until(lambda: sandbox.poll() is not None)
    assert record(cloud).end_reason == "idle_timeout"


def test_an_entrypoint_that_dies(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    sandbox = create(*SERVER, encrypted_ports=[8000])
    assert served(sandbox.tunnels()[8000].url)
    record(cloud).kill()
    sandbox.wait()
    assert sandbox.returncode == 137
    with pytest.raises(requests.ConnectionError):
        requests.get(sandbox.tunnels()[8000].url, timeout=20)


def test_a_missing_program(create: Callable[..., modal.Sandbox]) -> None:
    sandbox = create("jupyter-not-there")
    sandbox.wait()
    assert sandbox.returncode == 127
    assert "No such file" in sandbox.stderr.read()


def test_running_sandboxes_are_found(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    sandbox = create("sleep", "60", name="forgotten")
    assert [each.id for each in cloud.running_sandboxes()] == [sandbox.object_id]
    with pytest.raises(AssertionError, match="forgotten"):
        cloud.assert_no_running_sandboxes(within=0.05)
    sandbox.terminate()
    cloud.assert_no_running_sandboxes()


# Faults


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("PERMISSION_DENIED", modal.exception.PermissionDeniedError),
        ("RESOURCE_EXHAUSTED", modal.exception.ResourceExhaustedError),
        ("UNAUTHENTICATED", modal.exception.AuthError),
    ],
)
def test_create_fails(
    cloud: LocalModal, create: Callable[..., modal.Sandbox], status: str, error: type[Exception]
) -> None:
    cloud.faults.create_fails(status, "no more of those")
    with pytest.raises(error, match="no more of those"):
        create("sleep", "60")
    assert [call.error for call in cloud.calls if call.method == "SandboxCreateV2"] == [[status]]
    assert cloud.sandboxes == []
    create("true").wait()


def test_the_answer_to_create_is_lost(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    cloud.faults.create_answer_lost()
    with pytest.raises(modal.exception.ServiceError):
        create("sleep", "60", name="lost")
    assert len([call for call in cloud.calls if call.method == "SandboxCreateV2"]) > 1
    (seen,) = cloud.running_sandboxes()
    assert seen.name == "lost"
    modal.Sandbox.from_name("tests", "lost").terminate()


def test_a_call_that_gets_through_in_the_end(cloud: LocalModal) -> None:
    cloud.faults.call_fails("AppGetOrCreate", "UNAVAILABLE", attempts=2)
    assert modal.App.lookup("tests").app_id
    assert [call.error for call in cloud.calls] == [["UNAVAILABLE"], ["UNAVAILABLE"], []]


def test_slow_create_and_slow_boot(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    cloud.faults.create_takes(0.3)
    cloud.faults.slow_boot(1)
    begin = time.monotonic()
    sandbox = create(*HELLO)
    assert time.monotonic() - begin >= 0.3
    sandbox.wait()
    assert record(cloud).started_at - record(cloud).created_at >= 1


def test_a_sandbox_can_be_terminated_before_it_has_started(
    cloud: LocalModal, create: Callable[..., modal.Sandbox]
) -> None:
    cloud.faults.slow_boot(60)
    sandbox = create(*HELLO)
    assert record(cloud).state == "starting"
    sandbox.terminate()
    assert sandbox.poll() == 137
    assert record(cloud).started_at is None


def test_a_tunnel_that_never_opens(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    cloud.faults.tunnel_never_opens()
    with pytest.raises(modal.exception.SandboxTimeoutError):
        create(*SERVER, encrypted_ports=[8000]).tunnels(timeout=1)


def test_refused_connections(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    cloud.faults.refuse_connections()
    sandbox = create(*SERVER, encrypted_ports=[8000])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(_address(sandbox))
    cloud.faults.refuse_connections(0.5)
    # For so long after its start, which only the next one's is.
    assert served(create(*SERVER, encrypted_ports=[8000]).tunnels()[8000].url).status_code == 200


def test_bad_gateway(cloud: LocalModal, create: Callable[..., modal.Sandbox], tmp_path: Path) -> None:
    cloud.faults.bad_gateway(0, while_booting=True)
    waits = [
        "sh",
        "-c",
        f'while [ ! -e "$0" ]; do sleep 0.01; done; exec {" ".join(SERVER)}',
        tmp_path / "go",
    ]
    url = create(*map(str, waits), encrypted_ports=[8000]).tunnels()[8000].url
    seen = {requests.get(url, timeout=20).status_code}
    assert seen == {502}
    (tmp_path / "go").touch()
    until(lambda: seen.add(requests.get(url, timeout=20).status_code) or 200 in seen)
    assert seen == {200, 502}
    cloud.faults.bad_gateway(2)
    assert [requests.get(url, timeout=20).status_code for _ in range(3)] == [502, 502, 200]


def test_latency(cloud: LocalModal, create: Callable[..., modal.Sandbox]) -> None:
    url = create(*SERVER, encrypted_ports=[8000]).tunnels()[8000].url
    assert served(url)
    cloud.faults.latency(0.2)
    begin = time.monotonic()
    requests.get(url, timeout=20)
    # TCP, TLS 1.3, and the request.
    assert time.monotonic() - begin >= 0.6


def test_throttle(cloud: LocalModal, create: Callable[..., modal.Sandbox], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(200_000))
    url = create(*SERVER, "--directory", str(tmp_path), encrypted_ports=[8000]).tunnels()[8000].url + "/file"
    assert len(served(url).content) == 200_000
    cloud.faults.throttle(200_000)
    begin = time.monotonic()
    assert len(requests.get(url, timeout=20).content) == 200_000
    assert time.monotonic() - begin >= 0.9


def test_cut_after_some_bytes(
    cloud: LocalModal, create: Callable[..., modal.Sandbox], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(os.urandom(2_000_000))
    url = create(*SERVER, "--directory", str(tmp_path), encrypted_ports=[8000]).tunnels()[8000].url + "/file"
    assert served(url)
    cloud.faults.cut_after(100_000)
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        requests.get(url, timeout=20)


@pytest.mark.parametrize("how", ["close", "reset", "silence"])
def test_cut_connections(cloud: LocalModal, create: Callable[..., modal.Sandbox], how: Any) -> None:
    sandbox = create("python", "-c", ECHO, "8000", encrypted_ports=[8000])
    host, port = _address(sandbox)
    context = ssl.create_default_context(cafile=cloud.ca_certificates)

    def connect() -> ssl.SSLSocket | None:
        plain = socket.create_connection((host, port))
        try:
            connection = context.wrap_socket(plain, server_hostname=host)
            connection.settimeout(20)
            connection.sendall(b"one")
            if connection.recv(10) == b"one":
                return connection
            connection.close()
        except OSError:
            plain.close()
        return None

    # Below TLS, since Python's does not tell a reset from an orderly end.
    with until(connect) as connection, socket.socket(fileno=os.dup(connection.fileno())) as below:
        below.settimeout(20)
        tunnel = record(cloud).tunnels[8000]
        assert tunnel.connections >= 1
        # The handshake, with its certificate, is more than that.
        assert tunnel.bytes_passed > 1000
        assert record(cloud).cut(how) >= 1
        if how == "reset":
            with pytest.raises(ConnectionResetError):
                below.recv(10)
        elif how == "close":
            assert below.recv(10) == b""
        else:
            below.settimeout(0.5)
            connection.sendall(b"two")
            with pytest.raises(TimeoutError):
                below.recv(10)
    with until(connect):
        pass


# Nothing is left


@pytest.mark.usefixtures("local_modal")
def test_nothing_is_left_by_stop() -> None:
    files = psutil.Process().num_fds()
    with nothing_left(PREFIX):
        with LocalModal() as cloud, cloud.activate():
            app = modal.App.lookup("tests", create_if_missing=True)
            sandbox = modal.Sandbox.create(*SERVER, app=app, encrypted_ports=[8000])
            assert served(sandbox.tunnels()[8000].url)
            modal.Sandbox.create("sh", "-c", "setsid sleep 60 & sleep 60", app=app)
            open_connection = socket.create_connection(_address(sandbox))
        open_connection.close()
        with pytest.raises(RuntimeError, match="make another"):
            cloud.start()
        assert [each.end_reason for each in cloud.sandboxes] == ["closed", "closed"]
    until(lambda: psutil.Process().num_fds() <= files)


def test_activation_is_undone(cloud: LocalModal) -> None:
    before = dict(os.environ)
    client = modal.Client.from_env()
    with LocalModal() as other:
        with other.activate():
            assert os.environ["MODAL_SERVER_URL"] != before["MODAL_SERVER_URL"]
            modal.App.lookup("of-the-other", create_if_missing=True)
        assert dict(os.environ) == before
        assert modal.Client.from_env() is client
        assert "AppGetOrCreate" in [call.method for call in other.calls]
    assert cloud.calls == []


def test_nothing_is_left_by_a_killed_process() -> None:
    program = """
import modal, sys, time
from sandkernel.testing import LocalModal
cloud = LocalModal().start()
activation = cloud.activate()
activation.__enter__()
app = modal.App.lookup("tests", create_if_missing=True)
modal.Sandbox.create("sh", "-c", "setsid sleep 60 & sleep 60", app=app)
while len(pids := cloud.sandboxes[0].processes()) < 3:
    time.sleep(0.01)
print(*pids, cloud.ca_certificates, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        line = child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    *pids, path = line.split()
    until(lambda: not any(alive(int(pid)) for pid in pids))
    until(lambda: not Path(path).exists())


ECHO = """
import socket, sys, threading
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
def echo(connection):
    while data := connection.recv(100):
        connection.sendall(data)
while True:
    threading.Thread(target=echo, args=server.accept()[:1], daemon=True).start()
"""


def _address(sandbox: modal.Sandbox) -> tuple[str, int]:
    host, _, port = sandbox.tunnels()[8000].host.partition(":")
    return host, int(port or 443)


def _hold(sandbox: modal.Sandbox) -> socket.socket | None:
    """A connection that the tunnel keeps, in the middle of its handshake."""
    try:
        return socket.create_connection(_address(sandbox))
    except ConnectionRefusedError:
        return None
