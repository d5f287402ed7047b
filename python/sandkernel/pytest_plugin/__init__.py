"""Fixtures for suites that test agents: no account, no network.

pytest finds them by itself where sandkernel is installed. Nothing of smolagents, Modal or a gateway is
imported or started before a test asks for it.

    def test_the_agent(sandkernel_executor, scripted_model):
        model = scripted_model("x = 6 * 7", "final_answer(x)")
        agent = CodeAgent([], model, executor=sandkernel_executor)
        assert agent.run("What is it?") == 42

    def test_my_program(sandkernel_modal):
        my_program.main()  # uses ModalExecutor
        assert [sandbox.end_reason for sandbox in sandkernel_modal.sandboxes] == ["terminated"]

A suite changes what they are made of by fixtures of the same names in its `conftest.py`, above all
`sandkernel_packages` and `sandkernel_sandbox_options`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sandkernel.integrations.smolagents import GatewayExecutor
    from sandkernel.providers.local import LocalSandbox
    from sandkernel.pytest_plugin.model import ScriptedModel
    from sandkernel.testing import LocalModal

__all__ = [
    "sandkernel_cloud",
    "sandkernel_executor",
    "sandkernel_modal",
    "sandkernel_packages",
    "sandkernel_sandbox",
    "sandkernel_sandbox_options",
    "scripted_model",
]

_TIMEOUT = 60.0


@pytest.fixture(scope="session")
def sandkernel_packages() -> Sequence[str]:
    """Packages for the session's sandbox, as import names or requirements; by default none."""
    return ()


@pytest.fixture(scope="session")
def sandkernel_sandbox_options() -> Mapping[str, Any]:
    """What else `LocalSandbox` takes for the session's sandbox: `environment`, `inherit_environment`, ..."""
    return {}


@pytest.fixture(scope="session")
def sandkernel_sandbox(
    sandkernel_packages: Sequence[str], sandkernel_sandbox_options: Mapping[str, Any]
) -> Iterator[LocalSandbox]:
    """A local sandbox for the whole session. It is no isolation boundary."""
    from sandkernel import packages  # noqa: PLC0415 the plugin is loaded into suites that never use it
    from sandkernel.providers.local import LocalSandbox  # noqa: PLC0415

    with LocalSandbox(packages.requirements(sandkernel_packages), **sandkernel_sandbox_options) as sandbox:
        yield sandbox


@pytest.fixture
def sandkernel_executor(sandkernel_sandbox: LocalSandbox) -> Iterator[GatewayExecutor]:
    """An executor with a kernel of its own in the session's sandbox: nothing of another test's is in it.

    An execution may take 60 s.
    """
    from sandkernel.integrations.smolagents import GatewayExecutor  # noqa: PLC0415

    endpoint = sandkernel_sandbox.endpoint
    with GatewayExecutor(url=endpoint.url, token=endpoint.token, timeout=_TIMEOUT) as executor:
        yield executor


@pytest.fixture(scope="session")
def sandkernel_cloud() -> Iterator[LocalModal]:
    """A stand-in for Modal's servers, for the whole session; nobody is led to it yet."""
    from sandkernel.testing import LocalModal  # noqa: PLC0415

    with LocalModal() as cloud:
        yield cloud


@pytest.fixture
def sandkernel_modal(sandkernel_cloud: LocalModal) -> Iterator[LocalModal]:
    """The stand-in that Modal's SDK talks to during a test, which fails where it leaves a sandbox running."""
    with sandkernel_cloud.activate():
        try:
            yield sandkernel_cloud
            sandkernel_cloud.assert_no_running_sandboxes()
        finally:
            sandkernel_cloud.reset()


@pytest.fixture
def scripted_model() -> type[ScriptedModel]:
    """Return the class of a model that says one piece of code after the other: `scripted_model("x = 1")`."""
    from sandkernel.pytest_plugin.model import ScriptedModel  # noqa: PLC0415

    return ScriptedModel
