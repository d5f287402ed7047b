"""How kernels start: the first one before the gateway is imported, all of them tied to our life."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from sandkernel.gateway import launch

if TYPE_CHECKING:
    from sandkernel.gateway.processes import Processes

PORTS = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")
# A unix socket's path may be 104 bytes long, on macOS; the end is zmq's.
LONGEST_ADDRESS = 100


def kernel_command(configuration: Dict[str, Any]) -> List[str]:
    """What starts a kernel, up to the path of its connection file."""
    python = configuration.get("kernel_python") or sys.executable
    # On disk, what was executed is written and synced each time: by far the longest wait of an execution.
    return [python, "-c", launch.program(), "--HistoryManager.hist_file=:memory:", "-f"]


def fits_a_socket(path: str) -> bool:
    """Whether a kernel can listen in our directory: no port to collide over, no stranger to connect."""
    return len(os.fsencode(path)) <= LONGEST_ADDRESS


class EarlyKernel:
    """A kernel whose process starts beside the imports of the gateway, which then adopts it."""

    def __init__(self, configuration: Dict[str, Any], processes: Processes, runtime: str) -> None:
        self.kernel_id: str = configuration["kernel_id"]
        self.processes = processes
        self.file = os.path.join(runtime, "kernel-" + self.kernel_id + ".json")
        self.connection: Dict[str, Any] = {
            "key": os.urandom(32).hex(),
            "signature_scheme": "hmac-sha256",
            "kernel_name": "python3",
        }
        address = os.path.splitext(self.file)[0]
        if fits_a_socket(address):
            self.connection.update(transport="ipc", ip=address)
            self.connection.update({name: number for number, name in enumerate(PORTS, 1)})
        else:
            self.connection.update(transport="tcp", ip="127.0.0.1")
            with contextlib.ExitStack() as stack:
                for name in PORTS:
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", 0))
                    self.connection[name] = listener.getsockname()[1]
        with open(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(self.connection, file)
        self.process: Optional[subprocess.Popen[bytes]] = subprocess.Popen(
            kernel_command(configuration) + [self.file],
            stdin=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=processes.tie,
            env=dict(os.environ, KERNEL_GATEWAY="1", JPY_PARENT_PID=str(os.getpid())),
        )
        # As `jupyter_client` has it: what reads there is at the end at once, and waits for nobody.
        assert self.process.stdin is not None
        self.process.stdin.close()
        processes.kernels[self.process.pid] = self.process

    def check(self) -> None:
        """Raise if its process has ended already."""
        if self.process is not None and self.process.poll() is not None:
            if importlib.util.find_spec("ipykernel") is None:
                raise ImportError("No module named 'ipykernel'", name="ipykernel")
            raise RuntimeError("the kernel ended with status %s" % self.process.returncode)

    def waits_for(self, kernel_id: str) -> bool:
        """Whether it is the one of that id, and not adopted yet."""
        return self.process is not None and self.kernel_id == kernel_id

    def prepare(self, manager: Any) -> None:
        """Tell a kernel manager how to reach it."""
        manager.load_connection_info(dict(self.connection, key=self.connection["key"].encode()))
        manager._connection_file_written = True

    def adopt(self) -> subprocess.Popen[bytes]:
        """Hand its process over."""
        process, self.process = self.process, None
        assert process is not None
        return process

    def discard(self) -> None:
        """End it, where nothing adopts it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            with contextlib.suppress(OSError):
                os.unlink(self.file)


def write_kernel_specification(configuration: Dict[str, Any], runtime: str) -> str:
    """Describe the only kernel there is: looking for others would import IPython and take 0.1 s."""
    directory = os.path.join(runtime, "specifications")
    os.makedirs(os.path.join(directory, "python3"))
    command = kernel_command(configuration) + ["{connection_file}"]
    with open(os.path.join(directory, "python3", "kernel.json"), "w") as file:
        json.dump({"argv": command, "display_name": "Python 3", "language": "python"}, file)
    return directory


def tune_provisioner(early: Optional[EarlyKernel], processes: Processes) -> None:
    """Make kernel managers adopt the early kernel, and ties the life of every other kernel to ours."""
    provisioner: Any = importlib.import_module("jupyter_client.provisioning").LocalProvisioner
    pre_launch, launch_kernel = provisioner.pre_launch, provisioner.launch_kernel

    async def pre_launch_adopting(self: Any, **options: Any) -> Any:
        if early is not None and early.waits_for(self.kernel_id):
            early.prepare(self.parent)
            self.ports_cached = True
        return await pre_launch(self, **options)

    async def launch_kernel_adopting(self: Any, cmd: Any, **options: Any) -> Any:
        if early is not None and early.waits_for(self.kernel_id):
            self.process = early.adopt()
            self.pid = self.pgid = self.process.pid
            self.cwd = options.get("cwd") or os.getcwd()
            return self.connection_info
        # One that takes the place of a busy one is not busy: who connects now is to wait until it is heard.
        self.parent.execution_state = "starting"
        options.setdefault("preexec_fn", processes.tie)
        information = await launch_kernel(self, cmd, **options)
        processes.kernels[self.process.pid] = self.process
        processes.kernel_states.state()
        return information

    provisioner.pre_launch = pre_launch_adopting
    provisioner.launch_kernel = launch_kernel_adopting
