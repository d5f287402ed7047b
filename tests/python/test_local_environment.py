"""The environment variables of a local sandbox: what programs need of the host's, and none of its keys."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kernel_client import KernelClient, request, run
from sandkernel import LocalExecutor, Sandbox, SandboxPool
from sandkernel.exceptions import ConfigurationError, SandboxGone
from sandkernel.providers.local import LocalSandbox, inheritance

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "canary-in-the-mine"
# By their names, keys; by their beginnings, some of them like variables that are taken.
KEYS = (
    "OPENAI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "HF_TOKEN",
    "NVIDIA_API_KEY",
    "CUDA_LICENSE_KEY",
    "PYTHON_REGISTRY_TOKEN",
    "LC_MY_SECRET",
    "PIP_INDEX_URL",
    "UV_INDEX_URL",
    "UV_INDEX_PRIVATE_PASSWORD",
    "KG_AUTH_TOKEN",
    "JUPYTER_TOKEN",
    "SSH_AUTH_SOCK",
    "DATABASE_URL",
)
WITH_CREDENTIALS = {
    "http_proxy": f"http://user:{CANARY}@127.0.0.1:9",
    "HTTPS_PROXY": f"http://us%40er:{CANARY}@{CANARY}@127.0.0.1:9/",
    # Without a scheme, and with a slash where none may be.
    "ALL_PROXY": f"user:{CANARY}@127.0.0.1:9",
    "ftp_proxy": f"http://user:{CANARY}/{CANARY}@127.0.0.1:9",
}
# What a kernel and its children have, the directory of their home, and whatever holds the canary.
LOOK = f"""
import json, os, subprocess, sys
def look():
    found = ["%s=%s" % pair for pair in os.environ.items()]
    found += subprocess.run(["env"], stdout=-1, text=True).stdout.splitlines()
    for name in ("self", str(os.getppid()), {{first}}):
        try:
            found += open("/proc/%s/environ" % name).read().split("\\0")
        except OSError:
            pass
    return sorted({{{{line.partition("=")[0] for line in found if {CANARY!r} in line}}}})
print(json.dumps([look(), os.path.expanduser("~")]))
"""


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, CANARY)
    for name, value in WITH_CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    # The clients of these tests have no use for those.
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def parent_of(process_id: int) -> int:
    return int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])


def look(sandbox: LocalSandbox) -> str:
    return LOOK.format(first=repr(str(parent_of(sandbox.process_id))))


@pytest.mark.parametrize("way", ["first", "further", "restarted", "replaced"])
def test_no_key_of_the_hosts_is_in_a_kernel_or_above_it(way: str) -> None:
    with LocalSandbox() as sandbox:
        endpoint, kernel_id = sandbox.endpoint, sandbox.endpoint.kernel_id
        if way == "further":
            kernel_id = request(endpoint, "POST", "/api/kernels")[1]["id"]
        elif way == "restarted":
            run(endpoint, "1")
            assert request(endpoint, "POST", f"/api/kernels/{kernel_id}/restart")[0] == 200
        elif way == "replaced":
            with KernelClient(endpoint) as client:
                client.send("import os; os._exit(1)")
                while client.receive()["content"].get("execution_state") != "restarting":
                    pass
        with KernelClient(endpoint, kernel_id) as client:
            outcome = client.run(look(sandbox))
            assert outcome.stdout == f'[[], "{sandbox.directory.parent}/home"]\n', outcome.error
        # As the host sees them, which may look.
        for process_id in (sandbox.process_id, parent_of(sandbox.process_id)):
            assert CANARY.encode() not in Path(f"/proc/{process_id}/environ").read_bytes()


def test_all_of_the_hosts_is_there_where_it_is_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the host's gateway, if any: it is taken out.
    monkeypatch.delenv("KG_AUTH_TOKEN")
    with LocalSandbox(inherit_environment=True) as sandbox:
        outcome = run(sandbox.endpoint, look(sandbox))
        assert outcome.stdout.startswith("[[")
        for name in {*KEYS, *WITH_CREDENTIALS} - {"KG_AUTH_TOKEN"}:
            assert f'"{name}"' in outcome.stdout
        assert outcome.stdout.endswith(f'"{Path.home()}"]\n')


def test_what_programs_need_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "TZ": "Asia/Kolkata",
        "LC_TIME": "C.UTF-8",
        "SSL_CERT_FILE": "/etc/some/authorities.pem",
        "REQUESTS_CA_BUNDLE": "/etc/some/authorities.pem",
        "CUDA_VISIBLE_DEVICES": "1",
        "PYTHONPATH": "/somewhere",
        "OMP_NUM_THREADS": "1",
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wanted = {
        **given,
        "TMPDIR": os.environ["TMPDIR"],
        "http_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9/",
    }
    with LocalSandbox() as sandbox:
        outcome = run(sandbox.endpoint, "import os, json; print(json.dumps(dict(os.environ)))")
        for name, value in wanted.items():
            assert f'"{name}": "{value}"' in outcome.stdout
        assert '"ALL_PROXY"' not in outcome.stdout
        assert '"ftp_proxy"' not in outcome.stdout
        assert os.environ["PATH"] in outcome.stdout


def test_what_the_host_gives_goes_before_what_it_has() -> None:
    environment = {
        "OPENAI_API_KEY": "given",
        "http_proxy": WITH_CREDENTIALS["http_proxy"],
        "HOME": "/somewhere/else",
        "LANG": None,
        "HTTPS_PROXY": None,
    }
    code = f"import os; print([os.environ.get(name) for name in {list(environment)!r}])"
    with LocalSandbox(environment=environment) as sandbox:
        assert run(sandbox.endpoint, code).stdout == f"{list(environment.values())!r}\n"
        # In no environment that others than the kernels' processes have.
        for process_id in (sandbox.process_id, parent_of(sandbox.process_id)):
            assert CANARY.encode() not in Path(f"/proc/{process_id}/environ").read_bytes()


def test_the_home_directory_goes_with_the_sandbox() -> None:
    code = (
        "from pathlib import Path; (Path.home() / '.cache').mkdir(); print(oct(Path.home().stat().st_mode))"
    )
    with LocalSandbox() as sandbox:
        home = sandbox.directory.parent / "home"
        assert run(sandbox.endpoint, code).stdout == "0o40700\n"
        assert [path.name for path in home.iterdir()] == [".cache"]
        assert list(sandbox.directory.iterdir()) == []
    assert not home.exists()


def executor(**options: Any) -> LocalExecutor:
    return LocalExecutor(timeout=60, **options)


def of_a_pool(**options: Any) -> Any:
    class Pooled:
        def __enter__(self) -> LocalExecutor:
            self.pool = SandboxPool(1, lambda: executor(**options)).__enter__()
            self.executor = self.pool.acquire(60)
            return self.executor

        def __exit__(self, *_: object) -> None:
            self.executor.cleanup()
            self.pool.__exit__(None, None, None)

    return Pooled()


@pytest.mark.parametrize("make", [executor, of_a_pool])
def test_executors_of_every_making_take_it(make: Callable[..., Any]) -> None:
    code = "import os; os.environ.get('OPENAI_API_KEY')"
    with make() as kernel:
        assert kernel(code).output is None
        with kernel.new_kernel() as further:
            assert further(code).output is None
    with make(inherit_environment=True) as kernel:
        assert kernel(code).output == repr(CANARY)
        with kernel.new_kernel() as further:
            assert further(code).output == repr(CANARY)


def test_the_sandbox_that_follows_has_no_more() -> None:
    with executor(auto_reboot=True) as kernel:
        kernel("1")
        os.kill(kernel._sandbox.process_id, signal.SIGKILL)
        with pytest.raises(SandboxGone):
            kernel("import time; time.sleep(60)")
        assert kernel("import os; os.environ.get('OPENAI_API_KEY')").output is None


@pytest.mark.parametrize("given", [None, 1, "True", [], "no"])
@pytest.mark.parametrize("make", [LocalSandbox, LocalExecutor, partial(Sandbox.create, "local")])
def test_a_choice_that_is_none_is_refused(make: Any, given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"inherit_environment is True or False, not "):
        make(inherit_environment=given)


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("proxy:3128", "proxy:3128"),
        ("socks5h://name@proxy:1080", "socks5h://proxy:1080"),
        ("http://name:@proxy", "http://proxy"),
        ("http://:pass@[::1]:8080/", "http://[::1]:8080/"),
        ("http://na me:pass@proxy", None),
        ("//name:pass@proxy", None),
        ("name:pass@proxy", None),
        ("http://name:p/ass@proxy", None),
        ("http://name:p#ass@proxy", None),
        ("", ""),
    ],
)
def test_a_proxy_is_taken_without_its_credentials(value: str, taken: str | None) -> None:
    for name in ("http_proxy", "HTTPS_PROXY"):
        assert inheritance.allowed({name: value}).get(name) == taken
    assert inheritance.allowed({"Http_Proxy": value}) == {}


def test_no_name_that_is_taken_is_one_of_a_key() -> None:
    for name in inheritance.ALLOWED:
        assert not re.search("KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|_URL|SOCK", name)
