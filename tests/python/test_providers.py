"""What every sandbox of a provider has, and the places where their classes were before."""

from __future__ import annotations

import importlib

import pytest

from sandkernel import ConfigurationError, UnsupportedError, UnsupportedKernelError
from sandkernel.providers.base import Provider, as_provider
from sandkernel.providers.endpoint import Endpoint
from sandkernel.providers.gateway import ExistingGateway
from sandkernel.providers.shared import SharedSandbox

ENDPOINT = Endpoint("http://127.0.0.1:1", "secret")


class Foreign:
    """A sandbox of somebody's own class, that knows nothing of ours."""

    endpoint = ENDPOINT

    def __init__(self) -> None:
        self.terminated = 0

    def terminate(self) -> None:
        self.terminated += 1


class Able(Foreign):
    """One that can do more."""

    is_new = True
    owns_kernel = False

    def __init__(self) -> None:
        super().__init__()
        self.installed: list[str] = []
        self.color = "red"

    def install(self, requirements: list[str]) -> None:
        self.installed += requirements

    def verdict(self, execution: object) -> None:
        self.asked = execution


def test_defaults_say_what_a_sandbox_can_not_do() -> None:
    sandbox: Provider = ExistingGateway(ENDPOINT)
    assert (sandbox.is_new, sandbox.can_install, sandbox.knows_its_end) == (False, False, False)
    assert sandbox.exit_error() is None
    with pytest.raises(UnsupportedError, match="ExistingGateway installs no packages"):
        sandbox.install(["numpy"])
    with pytest.raises(UnsupportedError, match="port 8000"):
        sandbox.port_url(8000)
    assert issubclass(UnsupportedKernelError, UnsupportedError)
    assert "secret" not in repr(sandbox)


def test_a_sandbox_of_another_class_is_adapted() -> None:
    foreign = Foreign()
    adapted = as_provider(foreign)
    assert (adapted.endpoint, adapted.can_install, adapted.knows_its_end) == (ENDPOINT, False, False)
    assert adapted.owns_kernel
    adapted.watch(lambda: None)
    with pytest.raises(UnsupportedError):
        adapted.install(["numpy"])
    adapted.terminate()
    assert foreign.terminated == 1


def test_an_adapted_sandbox_can_do_what_it_could() -> None:
    able = Able()
    adapted = as_provider(able)
    assert (adapted.is_new, adapted.owns_kernel, adapted.can_install) == (True, False, True)
    shared = SharedSandbox(adapted)
    shared.install(["numpy"])
    assert able.installed == ["numpy"]
    assert shared.knows_its_end
    assert shared.exit_error() is None
    assert able.asked is None
    shared.terminate()
    assert able.terminated == 0
    assert adapted.color == "red"  # type: ignore[attr-defined]
    assert as_provider(adapted) is adapted


def test_no_sandbox_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="int has not"):
        as_provider(3)


@pytest.mark.parametrize(
    ("module", "name", "place"),
    [
        ("sandkernel.sandboxes", "Sandbox", "sandkernel.providers.base.Provider"),
        ("sandkernel.sandboxes.local", "LocalSandbox", "sandkernel.providers.local.LocalSandbox"),
        ("sandkernel.sandboxes.endpoint", "Endpoint", "sandkernel.providers.endpoint.Endpoint"),
        ("sandkernel.sandboxes.existing", "ExistingGateway", "sandkernel.providers.gateway.ExistingGateway"),
        ("sandkernel.sandboxes.modal", "ModalSandbox", "sandkernel.providers.modal.ModalSandbox"),
        ("sandkernel.executor", "KernelExecutor", "sandkernel.integrations.smolagents.KernelExecutor"),
        ("sandkernel.executor", "RunOutcome", "sandkernel.integrations.smolagents.RunOutcome"),
    ],
)
def test_names_at_their_old_places_work_and_warn(module: str, name: str, place: str) -> None:
    old = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=f"is {place} now"):
        found = getattr(old, name)
    current, _, known = place.rpartition(".")
    assert found is getattr(importlib.import_module(current), known)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        old.nothing  # noqa: B018 an attribute that is not there
