"""A sandbox: an entrypoint that runs as a process of this machine, its tunnels, and how its life ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modal_proto import api_pb2

from sandkernel.gateway.removal import remove_tree
from sandkernel.testing import _environment
from sandkernel.testing._address import free_port, reserve, reserve_plain
from sandkernel.testing._processes import Process, kill_all
from sandkernel.testing._tunnel import Tunnel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sandkernel.testing._address import Addressing
    from sandkernel.testing._certificates import Certificates
    from sandkernel.testing._faults import Faults
    from sandkernel.testing._store import App, Image

Status = api_pb2.GenericResult
TERMINATED_CODE = 137
TIMEOUT_CODE = 124
# For output to arrive that a process wrote before it was killed.
DRAIN = 2.0


class SandboxEndedError(Exception):
    """A sandbox that has ended, or is ending, runs no more commands."""


@dataclass(frozen=True)
class Machine:
    """What all sandboxes of one control plane share."""

    directory: Path
    python: str
    certificates: Certificates
    faults: Faults
    addressing: Addressing
    environment: Mapping[str, str]
    environment_name: str


@dataclass
class Sandbox:
    """One sandbox; all its methods belong to the control plane's event loop."""

    id: str
    task_id: str
    app: App
    image: Image
    definition: api_pb2.Sandbox
    variables: dict[str, str]
    tags: dict[str, str]
    machine: Machine
    backend: str
    name: str = ""
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None
    end_reason: str | None = None
    result: api_pb2.GenericResult = field(default_factory=api_pb2.GenericResult)

    def __post_init__(self) -> None:
        self.name = self.definition.name
        self.process = Process()
        self.commands: dict[str, Process] = {}
        self.tunnels: dict[int, Tunnel] = {}
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.directory = self.machine.directory / self.id
        self._ports: dict[int, int] = {}
        self._running_commands = 0
        self._changed = asyncio.Event()
        self._expired = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._life: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """`"starting"`, `"running"` or `"ended"`."""
        if self.result.status:
            return "ended"
        return "running" if self.started_at else "starting"

    # Start

    async def create(self) -> None:
        """Open the tunnels, and let the entrypoint start."""
        self.directory.mkdir()
        for index, spec in enumerate(self.definition.open_ports.ports):
            self._ports[spec.port] = free_port()
            address = reserve_plain() if spec.unencrypted else reserve(self.machine.addressing)
            self.tunnels[spec.port] = tunnel = Tunnel(
                address,
                container_port=spec.port,
                local_port=self._ports[spec.port],
                context=None
                if spec.unencrypted
                else self.machine.certificates.server_context([address.name]),
                path=self.directory / f"tunnel-{index}",
                faults=self.machine.faults,
                activity=self._activity,
            )
            await tunnel.open()
        self._life = asyncio.create_task(self._live())

    async def _live(self) -> None:
        await asyncio.sleep(self.machine.faults.boot_delay)
        await self.process.start(
            self.localize(self.definition.entrypoint_args) or ["sleep", str(24 * 60 * 60)],
            environment=self.environment(self.variables),
            directory=self.work_directory(self.definition.workdir),
        )
        self.started_at = time.time()
        self.started.set()
        waits = {
            asyncio.create_task(self.process.exited.wait()): "exited",
            asyncio.create_task(self._reach(self.definition.timeout_secs)): "timeout",
            asyncio.create_task(self._idle(self.definition.idle_timeout_secs)): "idle_timeout",
        }
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        reason = waits[done.pop()]
        code = self.process.returncode
        if reason == "timeout":
            self._finish(Status.GENERIC_STATUS_TIMEOUT, TIMEOUT_CODE, reason)
        elif reason == "idle_timeout":
            self._finish(Status.GENERIC_STATUS_IDLE_TIMEOUT, TERMINATED_CODE, reason)
        else:
            status = Status.GENERIC_STATUS_FAILURE if code else Status.GENERIC_STATUS_SUCCESS
            self._finish(status, code or 0, reason)

    async def _reach(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._expired.wait(), timeout=timeout or None)
        except asyncio.TimeoutError:
            return

    async def _idle(self, timeout: float) -> None:
        while True:
            self._changed.clear()
            busy = self._running_commands or any(tunnel.connections for tunnel in self.tunnels.values())
            try:
                await asyncio.wait_for(self._changed.wait(), timeout=None if busy or not timeout else timeout)
            except asyncio.TimeoutError:
                return

    def _activity(self) -> None:
        self._changed.set()

    def localize(self, texts: Sequence[str]) -> list[str]:
        """Replace this sandbox's ports by those of this machine."""
        return _environment.localize(texts, self._ports)

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Make the environment of a process in it, `variables` being those of secrets and `env=`."""
        names, values = list(variables), self.localize(list(variables.values()))
        return {
            **_environment.base_environment(
                sandbox_id=self.id,
                task_id=self.task_id,
                image_id=self.image.id,
                environment_name=self.machine.environment_name,
                python=self.machine.python,
                directory=self.directory,
            ),
            **self.machine.environment,
            **_environment.image_environment(self.image.commands),
            **dict(zip(names, values, strict=True)),
        }

    def work_directory(self, asked_for: str) -> Path:
        """Make the directory that stands for one in the sandbox; its home if none is asked for."""
        directory = self.directory / ("work" + asked_for if asked_for else "home")
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    # Commands

    async def execute(
        self,
        command_id: str,
        arguments: Sequence[str],
        *,
        variables: Mapping[str, str],
        workdir: str,
        timeout: float,
    ) -> Process:
        """Run a command in it; one that is running under this id already is that one."""
        if command_id in self.commands:
            return self.commands[command_id]
        if self._end is not None:
            raise SandboxEndedError(self.id)
        process = self.commands[command_id] = Process()
        task = asyncio.create_task(self._follow(process, timeout))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await process.start(
            self.localize(arguments),
            environment=self.environment({**self.variables, **variables}),
            directory=self.work_directory(workdir or self.definition.workdir),
        )
        return process

    async def _follow(self, process: Process, timeout: float) -> None:
        self._running_commands += 1
        self._activity()
        try:
            await asyncio.wait_for(process.exited.wait(), timeout=timeout or None)
        except asyncio.TimeoutError:
            process.kill_group()
        finally:
            self._running_commands -= 1
            self._activity()

    # End

    def expire(self) -> None:
        """Let its `timeout` be over."""
        self._expired.set()

    async def terminate(self, reason: str = "terminated") -> None:
        """End it, and wait until nothing of it runs any more."""
        self._finish(Status.GENERIC_STATUS_TERMINATED, TERMINATED_CODE, reason)
        await self.ended.wait()

    def _finish(self, status: api_pb2.GenericResult.GenericStatus.ValueType, code: int, reason: str) -> None:
        if self._end is None:
            self.end_reason = reason
            self._end = asyncio.create_task(self._clean_up(status, code))

    async def _clean_up(self, status: api_pb2.GenericResult.GenericStatus.ValueType, code: int) -> None:
        if self._life is not None and self._life is not asyncio.current_task():
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        await asyncio.gather(*(tunnel.close() for tunnel in self.tunnels.values()))
        processes = [self.process, *self.commands.values()]
        await asyncio.gather(*(process.settled() for process in processes))
        await asyncio.to_thread(kill_all, (_environment.MARKER, self.id), self.process.pid)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(process.closed(DRAIN) for process in processes))
        await asyncio.to_thread(remove_tree, str(self.directory))
        self.ended_at = time.time()
        self.result = api_pb2.GenericResult(status=status, exitcode=code)
        self.started.set()
        self.ended.set()
