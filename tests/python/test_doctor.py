"""The command `python -m sandkernel`, in processes of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, NamedTuple

import packaging
import pytest
from grpclib import GRPCError
from grpclib.const import Status
from grpclib.server import Server
from modal_proto.api_grpc import ModalClientBase
from modal_proto.api_pb2 import ClientHelloResponse

import sandkernel
from sandkernel.providers.local.installer import find_uv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES = Path(sandkernel.__file__).parents[1]
ID, SECRET = "ak-1234567890abcdef", "as-fedcba0987654321"
GROUPS = ["System", "Packages", "Local executor", "Modal (for ModalExecutor only)"]


class Machine:
    """Runs the command with a home and a temporary directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.temporary = home / "temporary"
        self.temporary.mkdir()

    def run(
        self, *arguments: str, python: str | Path = sys.executable, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "PYTHON"))
        }
        done = subprocess.run(
            [str(python), "-m", "sandkernel", *arguments],
            env={**environment, "HOME": str(self.home), "TMPDIR": str(self.temporary), **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.stderr == ""
        assert "Traceback" not in done.stdout
        assert ID not in done.stdout
        assert SECRET not in done.stdout
        assert list(self.temporary.glob("sandkernel-*")) == []
        return done

    def checks(self, *arguments: str, status: int = 0, **options: Any) -> dict[str, Any]:
        done = self.run("doctor", "--json", *arguments, **options)
        assert done.returncode == status
        document = json.loads(done.stdout)
        assert document["works"] is (status == 0)
        return {check["name"]: check for check in document["checks"]}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def assert_readable(text: str) -> None:
    """As on a screen: ASCII, nothing at a line's end, the groups in order, the columns below one another."""
    assert text.isascii()
    assert text.endswith("\n")
    lines = text.splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert [line for line in lines if line in GROUPS] == GROUPS
    checks = [line for line in lines if re.match(r"  (ok|failed|note)\b", line)]
    assert len(checks) >= 10
    # A column begins where each line has a blank before it and at least one has a character.
    width = max(map(len, checks))
    blank = [all(line[column : column + 1] in ("", " ") for line in checks) for column in range(width)]
    starts = [
        column for column in range(2, width) if blank[column - 1] and blank[column - 2] and not blank[column]
    ]
    assert len(starts) >= 4
    assert starts[:2] == [2, 10]
    for line in lines:
        if line not in checks and line.startswith(" "):
            assert line.startswith("          -> ")


def test_all_is_well(machine: Machine) -> None:
    done = machine.run("doctor")
    assert done.returncode == 0
    assert_readable(done.stdout)
    assert "failed" not in done.stdout
    assert done.stdout.endswith("\nEverything that the local executor needs works.\n")
    assert re.search(r"^  ok +smolagents +\d\S+ +wanted: >=1\.26$", done.stdout, re.MULTILINE)
    assert re.search(r"^  ok +round trip +\d+\.\d ms +median of 50 runs", done.stdout, re.MULTILINE)
    assert re.search(
        r"^  note +credentials +missing .*\n +-> .* -m modal token new$", done.stdout, re.MULTILINE
    )


def test_json_has_what_was_measured(machine: Machine) -> None:
    checks = machine.checks()
    boot = checks["boot"]["seconds"]
    assert boot.keys() == {"environment", "gateway", "connection", "first run", "total"}
    assert 0 < sum(boot.values()) - boot["total"] <= boot["total"]
    trip = checks["round trip"]["seconds"]
    assert 0 < trip["median"] <= trip["slowest"]
    assert checks["ipykernel"]["found"] == distribution("ipykernel").version
    assert checks["sandkernel"]["found"] == sandkernel.__version__


def test_version(machine: Machine) -> None:
    done = machine.run("--version")
    assert (done.returncode, done.stdout) == (0, f"sandkernel {sandkernel.__version__}\n")


def test_no_command_shows_the_help(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 2
    assert "doctor" in done.stdout


# Environments that lack something.


def make_environment(directory: Path) -> Path:
    """A venv with the sources of sandkernel in it, and nothing else."""
    uv = find_uv()
    assert uv is not None
    command = [uv, "venv", "--quiet", "--offline", "--python", sys.executable, str(directory)]
    subprocess.run(command, check=True, timeout=60)
    packages_of(directory).joinpath("sources.pth").write_text(f"{SOURCES}\n")
    return directory / "bin" / "python"


def packages_of(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))


def add_metadata(environment: Path) -> None:
    """What an installation without dependencies leaves, and the one package that knows of versions."""
    packages = packages_of(environment)
    shutil.copytree(Path(packaging.__file__).parent, packages / "packaging")
    for name in ("packaging", "sandkernel"):
        copy = packages / f"{name}-{distribution(name).version}.dist-info"
        copy.mkdir()
        copy.joinpath("METADATA").write_text(distribution(name).read_text("METADATA") or "")


def test_an_environment_with_nothing(machine: Machine, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "bare")
    done = machine.run("doctor", python=python, PATH=os.defpath)
    assert done.returncode == 1
    assert_readable(done.stdout)
    checks = machine.checks(python=python, status=1)
    for name in ("packaging", "smolagents", "jupyter_kernel_gateway", "jupyter_server", "ipykernel"):
        assert (checks[name]["status"], checks[name]["found"]) == ("failed", "missing")
        assert re.search(rf"install .*{name.replace('_', '-')}", checks[name]["remedy"])
    for name in ("uv", "modal", "credentials"):
        assert checks[name]["status"] == "note"
    for name in ("import", "boot"):
        assert checks[name]["status"] == "failed"
        assert checks[name]["detail"].startswith("no module ")
    assert done.stdout.splitlines()[-1].startswith("The local executor does not work here: packaging, ")
    assert machine.run("--version", python=python).stdout == f"sandkernel {sandkernel.__version__}\n"


def test_an_environment_without_the_extras(machine: Machine, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "bare")
    add_metadata(tmp_path / "bare")
    old = packages_of(tmp_path / "bare") / "smolagents-1.2.0.dist-info"
    old.mkdir()
    old.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: smolagents\nVersion: 1.2.0\n")
    done = machine.run("doctor", python=python)
    assert done.returncode == 1
    assert_readable(done.stdout)
    checks = machine.checks(python=python, status=1)
    assert checks["packaging"]["status"] == "ok"
    assert checks["smolagents"]["status"] == "failed"
    assert checks["smolagents"]["found"] == "1.2.0"
    assert shlex.split(checks["smolagents"]["remedy"])[-1] == "smolagents>=1.26"
    assert shlex.split(checks["jupyter_kernel_gateway"]["remedy"])[-1] == "jupyter-kernel-gateway>=3"
    assert str(python) in shlex.split(checks["ipykernel"]["remedy"])
    # Here it came as far as the gateway's own process.
    assert checks["boot"]["status"] == "failed"
    assert "pip install 'sandkernel[local]'" in checks["boot"]["detail"]
    assert (checks["modal"]["status"], checks["modal"]["found"]) == ("note", "missing")


# Credentials.


@contextmanager
def control_plane() -> Iterator[tuple[str, list[str]]]:
    """Serves Modal's protocol as far as the greeting, and keeps the ids of the tokens that greeted."""
    greeted: list[str] = []

    async def hello(_: ModalClientBase, stream: Any) -> None:
        await stream.recv_message()
        greeted.append(stream.metadata["x-modal-token-id"])
        if (stream.metadata["x-modal-token-id"], stream.metadata["x-modal-token-secret"]) != (ID, SECRET):
            raise GRPCError(Status.UNAUTHENTICATED, "Token ID not found")
        await stream.send_message(ClientHelloResponse())

    async def refuse(_: ModalClientBase, __: Any) -> None:
        raise GRPCError(Status.UNIMPLEMENTED, "only the greeting is served")

    methods = dict.fromkeys(ModalClientBase.__abstractmethods__, refuse) | {"ClientHello": hello}
    service = type("ControlPlane", (ModalClientBase,), methods)()
    stops: Queue[Callable[[], object]] = Queue()

    async def serve(listener: socket.socket) -> None:
        stop = asyncio.Event()
        server = Server([service])
        await server.start(sock=listener)
        loop = asyncio.get_running_loop()
        stops.put(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        server.close()
        await server.wait_closed()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=asyncio.run, args=(serve(listener),))
        thread.start()
        end = stops.get(timeout=60)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", greeted
        finally:
            end()
            thread.join(10)


def test_modal_is_asked_only_when_wanted(machine: Machine) -> None:
    with control_plane() as (url, greeted):
        variables = {"MODAL_SERVER_URL": url, "MODAL_TOKEN_ID": ID, "MODAL_TOKEN_SECRET": SECRET}
        checks = machine.checks(**variables)
        assert (checks["credentials"]["status"], greeted) == ("ok", [])
        assert "account" not in checks
        checks = machine.checks("--online", **variables)
        assert checks["account"]["status"] == "ok"
        assert set(greeted) == {ID}
        checks = machine.checks("--online", **{**variables, "MODAL_TOKEN_SECRET": "as-wrong"})
        assert (checks["account"]["status"], checks["account"]["found"]) == ("note", "refused")
        assert "Token ID not found" in checks["account"]["detail"]
        assert checks["account"]["remedy"].endswith("modal token new")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment where nothing is booted: the tests of credentials need none."""
    return make_environment(tmp_path_factory.mktemp("quick") / "bare")


class Case(NamedTuple):
    text: str | None
    variables: dict[str, str]
    state: str
    detail: str


TWO_PROFILES = f"[a]\n[b]\nactive = true\ntoken_id = '{ID}'\ntoken_secret = '{SECRET}'"
CASES = [
    Case(None, {"MODAL_TOKEN_ID": ID, "MODAL_TOKEN_SECRET": SECRET}, "found", "in MODAL_TOKEN_ID and"),
    Case(None, {"MODAL_TOKEN_ID": ID}, "incomplete", "MODAL_TOKEN_SECRET is not set"),
    Case(None, {}, "missing", "there is no "),
    Case(f"[default]\ntoken_id = '{ID}'\ntoken_secret = '{SECRET}'", {}, "found", "profile 'default'"),
    Case(TWO_PROFILES, {}, "found", "profile 'b'"),
    Case(TWO_PROFILES, {"MODAL_PROFILE": "a"}, "missing", "none for the profile 'a'"),
    Case(f"[default]\ntoken_id = '{ID}'", {}, "missing", "none for the profile 'default'"),
    Case(f"[default]\ntoken_secret = '{SECRET}' oops", {}, "unreadable", "TOMLDecodeError"),
    Case("default = 1", {}, "missing", "none for the profile 'default'"),
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [".modal.toml", "elsewhere.toml"])
def test_credentials_are_found_and_never_shown(machine: Machine, quick: Path, case: Case, name: str) -> None:
    path = machine.home / name
    variables = dict(case.variables)
    if name != ".modal.toml":
        variables["MODAL_CONFIG_PATH"] = str(path)
    state, detail = case.state, case.detail
    if case.text is not None:
        path.write_text(case.text)
        if sys.version_info < (3, 11):
            state, detail = "unreadable", "ImportError"
    check = machine.checks(python=quick, status=1, **variables)["credentials"]
    assert check["found"] == state
    assert check["status"] == ("ok" if state == "found" else "note")
    assert detail in check["detail"]
    if case.text is not None:
        assert str(path) in check["detail"]
    assert bool(check["remedy"]) is (state != "found")
