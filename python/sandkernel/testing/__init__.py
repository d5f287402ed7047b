"""Test what uses Modal sandboxes on this machine, without an account.

`LocalModal` stands in for Modal's servers: the unmodified `modal` package talks to it, entrypoints run as
local processes, tunnels are real TLS endpoints. It records what was asked of it, and makes faults on demand.
Install it with `pip install "sandkernel[testing]"`. In a suite for pytest:

    from sandkernel.testing import LocalModal

    @pytest.fixture(scope="session")
    def local_modal():
        with LocalModal() as cloud, cloud.activate():
            yield cloud

    @pytest.fixture
    def cloud(local_modal):
        local_modal.reset()
        yield local_modal
        local_modal.assert_no_running_sandboxes()

    def test_agent(cloud):
        with ModalExecutor([], logger) as executor:
            assert executor("6 * 7").output == "42"

    def test_modal_is_out_of_capacity(cloud):
        cloud.faults.create_fails("RESOURCE_EXHAUSTED")
        with pytest.raises(BootError):
            ModalExecutor([], logger)
"""

try:
    from sandkernel.testing._cloud import LocalModal
except ModuleNotFoundError as error:
    if error.name and error.name.partition(".")[0] in {"grpclib", "modal_proto", "psutil", "trustme"}:
        raise ModuleNotFoundError(
            f"sandkernel.testing needs {error.name}: pip install 'sandkernel[testing]'", name=error.name
        ) from error
    raise
from sandkernel.testing._faults import Faults
from sandkernel.testing._records import SandboxRecord, TunnelRecord
from sandkernel.testing._service import Call
from sandkernel.testing._store import Image

__all__ = ["Call", "Faults", "Image", "LocalModal", "SandboxRecord", "TunnelRecord"]
