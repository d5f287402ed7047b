"""How a sandbox on Modal comes up, and what is said when it does not."""

from __future__ import annotations

import ast
import asyncio
import io
import logging
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import modal
import numpy as np
import pytest
from rich.console import Console
from smolagents.monitoring import AgentLogger, LogLevel

import sandkernel
from loop_watch import the_loop_goes_on
from sandkernel.exceptions import (
    BootError,
    ConfigurationError,
    CredentialsError,
    PackageInstallError,
    SandkernelError,
)
from sandkernel.integrations.smolagents import ModalExecutor
from sandkernel.providers.modal import entrypoint
from sandkernel.providers.modal.code import code_alone
from sandkernel.providers.modal.definition import EXPIRES_TAG, Definition
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandkernel.testing import LocalModal


def recorded() -> tuple[Any, Callable[[], str]]:
    """A logger of smolagents', and what was logged."""
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=False)
    return AgentLogger(level=LogLevel.INFO, console=console), file.getvalue


def test_boot_is_reported_and_the_sandbox_is_tagged(cloud: LocalModal) -> None:
    logger, logged = recorded()
    before = time.time()
    with ModalExecutor(["boto3", "os", "PIL"], logger, name="named", tags={"team": "red"}) as executor:
        assert executor("6 * 7").output == "42"
        (record,) = cloud.sandboxes
        assert list(executor.boot_report.stages) == ["app", "image", "sandbox", "tunnel", "gateway", "kernel"]
        assert executor.boot_report.total == pytest.approx(sum(executor.boot_report.stages.values()))
        assert executor.sandbox_id == record.id == executor.sandbox.object_id
        assert record.id in executor.dashboard_url
        assert executor.dashboard_url in logged()
        for stage in executor.boot_report.stages:
            assert f"Modal: {stage}" in logged()
        assert executor.expires_at is not None
        assert before + 299 <= executor.expires_at.timestamp() <= time.time() + 301
        assert executor.installed_packages == ["boto3", "pillow"]
    assert (record.name, record.app_name, record.backend) == ("named", "smolagent-executor", "V2")
    assert record.tags["team"] == "red"
    assert record.tags["made-by"] == "sandkernel"
    assert record.definition.timeout_secs == 300
    assert record.definition.idle_timeout_secs == 60
    commands = "\n".join(record.image.commands)
    for package in ("boto3", "pillow", "ipykernel", "jupyter_kernel_gateway"):
        assert package in commands
    assert record.end_reason == "terminated"


def test_a_terminal_shows_what_is_waited_for(cloud: LocalModal) -> None:
    file = io.StringIO()
    console = Console(file=file, width=200, force_terminal=True)
    with ModalExecutor([], AgentLogger(level=LogLevel.INFO, console=console)) as executor:
        # Nothing moves any more.
        shown = file.getvalue()
        assert executor("1").output == "1"
        assert file.getvalue() == shown
    assert "waiting for the gateway ..." in shown
    assert len(cloud.sandboxes) == 1


def test_the_token_is_nowhere_but_in_the_environment(cloud: LocalModal) -> None:
    logger, logged = recorded()
    with ModalExecutor([], logger) as executor:
        token = executor._modal.endpoint.token
        executor("1")
        (record,) = cloud.sandboxes
        assert record.environment_names == ["KG_AUTH_TOKEN"]
        shown = [
            repr(executor),
            repr(executor._modal),
            repr(executor.boot_report),
            logged(),
            *record.entrypoint,
            *record.tags.values(),
            record.stdout,
            record.stderr,
            record.definition.SerializeToString().decode(errors="replace"),
        ]
        assert not [text for text in shown if token in text]
        # Nor has the agent's code it in its environment.
        assert executor("__import__('os').environ.get('KG_AUTH_TOKEN')").output is None


def test_everything_of_create_passes_through_and_the_callers_dict_is_left_alone(cloud: LocalModal) -> None:
    cloud.add_secret("mine", {"FROM_SECRET": "s3"})
    image = modal.Image.debian_slim().uv_pip_install("jupyter_kernel_gateway", "ipykernel")
    secrets, ports = [modal.Secret.from_name("mine")], [9000]
    create_kwargs = {
        "image": image,
        "secrets": secrets,
        "encrypted_ports": ports,
        "tags": {"team": "red"},
        "cpu": 0.5,
        "memory": 512,
        "timeout": 200,
        "idle_timeout": 77,
        "env": {"FROM_ENV": "e"},
        "volumes": {"/data": modal.Volume.from_name("data", create_if_missing=True)},
        "region": "eu",
    }
    before = dict(create_kwargs)
    with ModalExecutor(["numpy"], None, False, "other-app", 8123, create_kwargs) as executor:  # noqa: FBT003
        code = "import os; [os.environ[name] for name in ('FROM_SECRET', 'FROM_ENV')]"
        assert executor(code).output == "['s3', 'e']"
    assert create_kwargs == before
    assert (secrets[1:], ports, create_kwargs["tags"]) == ([], [9000], {"team": "red"})
    (record,) = cloud.sandboxes
    assert record.app_name == "other-app"
    assert sorted(record.tunnels) == [8123, 9000]
    assert record.definition.timeout_secs == 200
    assert record.definition.idle_timeout_secs == 77
    assert record.definition.resources.memory_mb == 512
    assert [mount.mount_path for mount in record.definition.volume_mounts] == ["/data"]
    assert list(record.definition.scheduler_placement.regions) == ["eu"]
    # A layer on the user's image: what Modal has built of it already is used again.
    assert "numpy" in "\n".join(record.image.layers[-1])
    assert "ipykernel" not in "\n".join(record.image.layers[-1])


def test_conveniences_and_a_gpu(cloud: LocalModal) -> None:
    with ModalExecutor(gpu="T4", lifetime=120, memory=1024, env={"A": "1"}) as executor:
        assert executor("__import__('os').environ['A']").output == "'1'"
    (record,) = cloud.sandboxes
    assert record.backend == "V1"
    assert record.definition.resources.gpu_config.gpu_type == "T4"
    assert record.definition.timeout_secs == 120


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": "T4", "create_kwargs": {"gpu": "T4"}}, "given twice"),
        ({"create_kwargs": {"h2_ports": [8888]}}, "HTTP/1.1"),
        ({"create_kwargs": {"unencrypted_ports": [8888]}}, "encrypted"),
        ({"port": 0}, "1 to 65535"),
        ({"create_kwargs": {"block_network": True}}, "block_network"),
        ({"additional_imports": ["no/package"]}, "no/package"),
        ({"secrets": [modal.Secret.from_name("none-such")]}, "none-such"),
        ({"create_kwargs": {"timeout": None}}, "timeout=None"),
        ({"create_kwargs": {"timeout": "300"}}, "timeout is a whole number of seconds, not '300'"),
        ({"create_kwargs": {"timeout": 300.0}}, "timeout is a whole number of seconds, not 300.0"),
        ({"lifetime": "300"}, "timeout is a whole number of seconds"),
        ({"create_kwargs": {"idle_timeout": "60"}}, "idle_timeout is a whole number"),
        ({"create_kwargs": {"timout": 300}}, "'timout'.* did you mean 'timeout'"),
        ({"create_kwargs": {3: 300}}, "takes no such argument"),
        ({"create_kwargs": ["timeout"]}, "create_kwargs is a mapping"),
        ({"create_kwargs": {"image": "debian"}}, "image is a modal.Image, not str"),
        ({"image": 3}, "image is a modal.Image, not int"),
        ({"create_kwargs": {"secrets": "key"}}, "secrets is a sequence, not str"),
        ({"create_kwargs": {"secrets": 3}}, "secrets is a sequence, not int"),
        ({"create_kwargs": {"secrets": ["key"]}}, "reating the sandbox"),
        ({"create_kwargs": {"encrypted_ports": 9000}}, "encrypted_ports is a sequence, not int"),
        ({"create_kwargs": {"encrypted_ports": ["9000"]}}, "reating the sandbox"),
        ({"create_kwargs": {"h2_ports": "8888"}}, "h2_ports is a sequence"),
        ({"create_kwargs": {"tags": ["a"]}}, "tags is a mapping"),
        ({"create_kwargs": {"env": {"A": 1}}}, "reating the sandbox"),
        ({"create_kwargs": {"workdir": 3}}, "reating the sandbox"),
        ({"region": 3}, "reating the sandbox"),
        ({"create_kwargs": {"volumes": {"/data": 3}}}, "reating the sandbox"),
        ({"create_kwargs": {"app": "name"}}, "building the image"),
        ({"create_kwargs": {"client": "mine"}}, "looking up the app"),
        ({"volumes": "data"}, "volumes is a mapping"),
        ({"env": ["A"]}, "env is a mapping"),
        ({"tags": "red"}, "tags is a mapping"),
        ({"session_options": "x"}, "session_options is a mapping"),
        ({"logger": logging.getLogger()}, "logger is a logger of smolagents"),
        ({"logger": "INFO"}, "logger is a logger of smolagents"),
    ],
)
def test_arguments_that_cannot_work(cloud: LocalModal, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ModalExecutor(**options)
    assert cloud.sandboxes == []


@pytest.mark.parametrize(
    "create_kwargs",
    [
        {"image": None, "secrets": None, "tags": None, "env": None, "app": None, "client": None},
        {"idle_timeout": None, "timeout": np.int64(200), "cpu": None, "memory": None, "region": None},
        {"timeout": 30, "encrypted_ports": (), "h2_ports": (), "unencrypted_ports": ()},
    ],
)
def test_what_modal_takes_is_taken(cloud: LocalModal, create_kwargs: dict[str, Any]) -> None:
    with ModalExecutor(create_kwargs=create_kwargs) as executor:
        assert executor("6 * 7").output == "42"
    (record,) = cloud.sandboxes
    assert record.definition.timeout_secs == create_kwargs.get("timeout", 300)


def test_a_persistent_sandbox_has_no_end() -> None:
    options = {"timeout": None, "_experimental_persistent": True}
    definition = Definition.of(options, {}, [], app_name="app", port=8888)
    assert definition.lifetime is None
    assert EXPIRES_TAG not in definition.arguments()["tags"]


@pytest.mark.parametrize("kind", [MagicMock, lambda: MagicMock(spec=AgentLogger)])
def test_a_mock_is_a_logger(cloud: LocalModal, kind: Callable[[], Any]) -> None:  # noqa: ARG001
    logger = kind()
    with ModalExecutor(logger=logger) as executor:
        assert executor("6 * 7").output == "42"
        executor.stream_logs = True
        executor("print(1)")
    assert any("The sandbox is ready" in str(call) for call in logger.log.mock_calls)


def test_the_given_client_does_everything(cloud: LocalModal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what comes before the sandbox, such as the look-up of its app."""
    variables = cloud.environment()
    identity = variables["MODAL_TOKEN_ID"], variables["MODAL_TOKEN_SECRET"]
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "of nobody")
    with pytest.raises(CredentialsError):
        ModalExecutor()
    client = modal.Client.from_credentials(*identity)
    with ModalExecutor(["numpy"], create_kwargs={"client": client}) as executor:
        assert executor("6 * 7").output == "42"
        sandbox_id = executor.detach()
    with ModalExecutor.from_id(sandbox_id, client=client) as executor:
        assert executor("6 * 7").output == "42"


def test_a_missing_gateway_is_told_at_once(cloud: LocalModal, tmp_path: Path) -> None:
    # A module of this name that can't be imported, before the real one.
    (tmp_path / "kernel_gateway").mkdir()
    (tmp_path / "kernel_gateway" / "__init__.py").write_text(
        "raise ModuleNotFoundError('No module named kernel_gateway', name='kernel_gateway')"
    )
    # Nobody waits for its time to be over: the test would not end.
    with pytest.raises(BootError, match=r"no module 'kernel_gateway': add \.uv_pip_install") as raised:
        ModalExecutor(env={"PYTHONPATH": str(tmp_path)}, boot_timeout=1000)
    assert "ModuleNotFoundError" in raised.value.output
    (record,) = cloud.sandboxes
    assert record.end_reason == "exited"


def test_an_image_without_python(cloud: LocalModal, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    with pytest.raises(BootError, match="The image has no python: take one"):
        ModalExecutor(env={"PATH": str(tmp_path)}, boot_timeout=60)
    assert [record.end_reason for record in cloud.sandboxes] == ["exited"]


def test_python_may_be_called_python3(cloud: LocalModal, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    with ModalExecutor(env={"PATH": str(tmp_path)}) as executor:
        assert executor("2").output == "2"
    assert len(cloud.sandboxes) == 1


def test_modules_in_the_working_directory_do_not_replace_the_standard_library(tmp_path: Path) -> None:
    for name in ("json", "base64", "zlib", "socket", "tornado"):
        (tmp_path / f"{name}.py").write_text("1 / 0")
    # Without a token it ends, but not before its own imports.
    done = subprocess.run(entrypoint.command(8888, "kernel"), cwd=tmp_path, capture_output=True, check=False)
    assert done.stderr.decode().strip() == "bootstrap: no token: it would let everyone in"


def statements(source: str) -> str:
    """What a source does: docstrings do nothing, and neither does a number that stands in their place."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [
                each
                for each in node.body
                if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
    return ast.dump(tree)


def test_code_without_comments_does_the_same() -> None:
    for path in (Path(sandkernel.__file__).parent / "gateway").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        shortened = code_alone(source)
        compile(shortened, path.name, "exec", dont_inherit=True)
        assert statements(shortened) == statements(source), path
    kept = "def shown():\n    return '''\n# shown\n\n'''"
    assert code_alone(f"'Doc.'\n\n{kept}  # why\n\n    # why\n") == f"{kept}\n"


def test_the_entrypoint_is_short_enough_for_modal() -> None:
    # The SDK refuses 2**16 bytes in all, the arguments of the user's included; Linux 2**17 for one argument.
    assert sum(map(len, entrypoint.command(8888, "0" * 36))) < 1 << 15


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        ("UNAUTHENTICATED", CredentialsError, "modal token new"),
        ("PERMISSION_DENIED", CredentialsError, "modal profile current"),
        ("RESOURCE_EXHAUSTED", BootError, "out of capacity"),
        ("ALREADY_EXISTS", ConfigurationError, "from_name"),
        ("INVALID_ARGUMENT", ConfigurationError, "made to fail"),
        ("UNAVAILABLE", BootError, "Creating the sandbox failed on Modal"),
    ],
)
def test_a_create_that_fails(
    cloud: LocalModal, status: str, kind: type[SandkernelError], message: str
) -> None:
    cloud.faults.create_fails(status)
    with pytest.raises(kind, match=message) as raised:
        ModalExecutor()
    assert type(raised.value) is kind
    assert cloud.sandboxes == []


def test_nothing_listens_where_modal_should(cloud: LocalModal, monkeypatch: pytest.MonkeyPatch) -> None:
    # Bound and not listened on: nobody else takes it.
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MODAL_SERVER_URL", f"http://127.0.0.1:{unheard.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(BootError, match=r"looking up the app.*network"):
            ModalExecutor(boot_timeout=1.5)
    # The SDK by itself tries for a minute.
    assert time.monotonic() - began < 30
    assert cloud.sandboxes == []


def test_a_tunnel_that_never_opens(cloud: LocalModal) -> None:
    cloud.faults.tunnel_never_opens()
    with pytest.raises(BootError, match="opening the tunnel"):
        ModalExecutor(boot_timeout=3)
    assert [record.end_reason for record in cloud.sandboxes] == ["terminated"]


def test_a_gateway_that_is_never_reached(cloud: LocalModal) -> None:
    cloud.faults.refuse_connections()
    for seconds in (3, 12, 48):
        with pytest.raises(BootError, match="not ready") as raised:
            ModalExecutor(boot_timeout=seconds)
        # The gateway itself came up, in time on any but a loaded machine: its report is its output.
        if '"port"' in raised.value.output:
            break
    assert '"port"' in raised.value.output
    assert {record.end_reason for record in cloud.sandboxes} == {"terminated"}


def test_a_slow_rough_start_is_waited_out(cloud: LocalModal) -> None:
    cloud.faults.slow_boot(0.5)
    cloud.faults.bad_gateway(3, while_booting=True)
    cloud.faults.refuse_connections(0.3)
    with ModalExecutor() as executor:
        assert executor("1").output == "1"


def test_a_sandbox_whose_lifetime_is_over_before_it_is_ready(cloud: LocalModal) -> None:
    cloud.faults.refuse_connections()
    with pytest.raises(BootError, match="lifetime of 1 s"):
        ModalExecutor(lifetime=1, boot_timeout=60)
    assert [record.end_reason for record in cloud.sandboxes] == ["timeout"]


def test_a_sandbox_that_dies_while_it_boots(cloud: LocalModal) -> None:
    cloud.faults.refuse_connections()

    async def run() -> None:
        boot = asyncio.create_task(ModalExecutor.acreate(boot_timeout=1000))
        await asyncio.to_thread(until, lambda: [record for record in cloud.sandboxes if record.pid])
        cloud.sandboxes[0].kill()
        with pytest.raises(BootError, match="ended with return code"):
            await boot

    asyncio.run(run())


def test_later_packages_are_installed_in_the_sandbox_and_failures_raised(cloud: LocalModal) -> None:
    with ModalExecutor() as executor:
        assert executor.install_packages(["json", "numpy"]) == []
        with pytest.raises(PackageInstallError, match="no-such-package-of-ours"):
            executor.install_packages(["no-such-package-of-ours"])
        assert executor("1").output == "1"
    assert len(cloud.sandboxes) == 1


async def test_in_an_event_loop_nothing_warns_and_nothing_waits(cloud: LocalModal) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with the_loop_goes_on():
            async with await ModalExecutor.acreate([], None) as executor:
                assert (await executor.arun("6 * 7")).output == "42"
                events = [event async for event in executor.astream("print('x'); 1")]
                assert events[-1].output == "1"
        # The sync ones, called here, hold the loop up as they must, but warn no more than anything else.
        with ModalExecutor([], None) as executor:
            assert executor("3").output == "3"
    assert [record.end_reason for record in cloud.sandboxes] == ["terminated", "terminated"]
