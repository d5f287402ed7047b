"""The bootstrap as it runs in an image: from its text, with what is not secret in an argument."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from kernel_client import KernelClient, request, run
from sandkernel import Session
from sandkernel.exceptions import KernelDied
from sandkernel.gateway.program import program
from sandkernel.providers.endpoint import Endpoint
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = program()
KERNEL = "11111111-2222-3333-4444-555555555555"
TOKEN = "a-token-of-the-tests"


def changed(before: str, after: str) -> str:
    """The program's text with something in it replaced."""
    source = SOURCE.replace(before, after)
    assert source != SOURCE
    return source


def of_another_version(module: str) -> str:
    """The program's text where a module does not fit."""
    return changed(f'import_module("{module}")', f'import_module("{module}.of_another_version")')


@contextmanager
def gateway(source: str, directory: Path, **configuration: Any) -> Iterator[tuple[Endpoint, Path]]:
    """A gateway started the way an image does it, and the file of its stderr."""
    log = directory / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", source, json.dumps({"kernel_id": KERNEL, **configuration})],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "KG_AUTH_TOKEN": TOKEN},
            cwd=directory,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield Endpoint(f"http://127.0.0.1:{json.loads(line)['port']}", TOKEN, KERNEL), log
        finally:
            process.terminate()
            process.wait(60)


def test_it_runs_from_its_text_with_the_token_in_the_environment(nothing_left_behind: Path) -> None:
    # What the agent writes where it works is not imported by the gateway.
    work = nothing_left_behind / "root" / "work"
    work.mkdir(parents=True)
    (work / "kernel_gateway.py").write_text("raise SystemError('imported')")
    with gateway(SOURCE, nothing_left_behind, root=str(nothing_left_behind / "root")) as (endpoint, log):
        assert run(endpoint, "import os; os.environ.get('KG_AUTH_TOKEN')").result is None
        assert run(endpoint, "1 + 1").result == "2"
        assert request(endpoint, "GET", "/api/kernels", token="wrong")[0] in {401, 403}
        assert TOKEN not in log.read_text()
    assert not (nothing_left_behind / "root").exists()


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tune_deaths", "jupyter_client.ioloop.restarter"),
        ("tune_provisioner", "jupyter_client.provisioning"),
        ("tune_websocket", "jupyter_server.services.kernels.websocket"),
        ("tune_nudge", "jupyter_server.services.kernels.connection.channels"),
        ("tune_activity", "jupyter_server.services.kernels.kernelmanager"),
    ],
)
def test_a_gateway_of_another_version_serves_without_what_does_not_fit(
    name: str, module: str, nothing_left_behind: Path
) -> None:
    source = of_another_version(module)
    with gateway(source, nothing_left_behind, root=str(nothing_left_behind / "root")) as (endpoint, log):
        assert f"{name} does not fit" in log.read_text()
        with KernelClient(endpoint) as client:
            assert client.run("1 + 1").result == "2"
        with Session.connect(endpoint.url, endpoint.token, kernel_id=KERNEL) as session:
            assert session.run("1 + 1", timeout=60).text == "2"
        assert len(request(endpoint, "GET", "/api/kernels")[1]) == 1


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("flush_what_there_is", "ipykernel.iostream"),
        ("take_requests_at_once", "ipykernel.kernelapp"),
        ("reply_at_once", "ipykernel.kernelbase"),
        ("log_what_is_shown", "ipykernel.kernelapp"),
        ("publish_at_once", "ipykernel.iostream"),
        ("trust_the_thread", "ipykernel.iostream"),
        ("encode_with_one_encoder", "jupyter_client.session"),
        ("answer_at_once", "ipykernel.kernelbase"),
        ("look_once_at_signatures", "ipykernel.ipkernel"),
        ("transform_once", "IPython.core.interactiveshell"),
    ],
)
def test_a_kernel_of_another_version_runs_without_what_does_not_fit(
    name: str, module: str, nothing_left_behind: Path
) -> None:
    source = of_another_version(module)
    with gateway(source, nothing_left_behind, root=str(nothing_left_behind / "root")) as (endpoint, log):
        outcome = run(endpoint, "print('output')\n1 + 1")
        assert (outcome.stdout, outcome.result) == ("output\n", "2")
        assert f"launch: {name} does not fit" in log.read_text()


def test_a_kernel_sends_the_usual_way_where_pyzmq_is_built_otherwise(nothing_left_behind: Path) -> None:
    source = changed(").zmq_send", ").zmq_send_of_another_version")
    with gateway(source, nothing_left_behind, root=str(nothing_left_behind / "root")) as (endpoint, log):
        outcome = run(endpoint, "print('output')\n1 + 1")
        assert (outcome.stdout, outcome.result) == ("output\n", "2")
        for name in ("publish_at_once", "answer_at_once"):
            assert f"launch: {name} does not fit" in log.read_text()


def test_a_death_is_noticed_without_asking(nothing_left_behind: Path) -> None:
    source = changed("3.0 if tune(tune_deaths", "3600.0 if tune(tune_deaths")
    with gateway(source, nothing_left_behind, root=str(nothing_left_behind / "root")) as (endpoint, _):
        for _ in range(3):
            with Session.connect(endpoint.url, endpoint.token, kernel_id=KERNEL) as session:
                with pytest.raises(KernelDied):
                    session.run("import os, subprocess\nsubprocess.run('true')\nos._exit(1)", timeout=60)
                assert session.run("1 + 1", timeout=60).text == "2"


def test_a_gateway_that_needs_the_deferred_modules_gets_them(nothing_left_behind: Path) -> None:
    source = changed('Deferred("jupyter_events", EventLogger=NoEvents)', 'types.ModuleType("jupyter_events")')
    with gateway(source, nothing_left_behind, root=str(nothing_left_behind / "root")) as (endpoint, _):
        assert run(endpoint, "1 + 1").result == "2"


def test_without_a_token_it_does_not_start() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KG_AUTH_TOKEN"}
    command = [sys.executable, "-c", SOURCE, json.dumps({"token": "in an argument"})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode != 0
    assert "no token" in done.stderr


def test_a_port_that_is_taken_is_reported(nothing_left_behind: Path) -> None:
    with gateway(SOURCE, nothing_left_behind) as (endpoint, _):
        port = int(endpoint.url.rpartition(":")[2])
        command = [sys.executable, "-c", SOURCE, json.dumps({"port": port})]
        environment = {**os.environ, "KG_AUTH_TOKEN": TOKEN}
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode != 0
        assert "in use" in json.loads(done.stdout)["error"]
    assert wait_until(lambda: not list(nothing_left_behind.glob("sandkernel-*")))
