"""The command router: what the SDK asks the machine that runs a sandbox, rather than the control plane."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpclib import GRPCError, Status
from modal_proto import api_pb2
from modal_proto import task_command_router_pb2 as pb2

from sandkernel.testing._sandbox import SandboxEndedError
from sandkernel.testing._service import takes_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from grpclib.server import Stream

    from sandkernel.testing._control_plane import ControlPlane
    from sandkernel.testing._processes import Process
    from sandkernel.testing._sandbox import Sandbox

FILESYSTEM_TOOL = "/__modal/.bin/modal-sandbox-fs-tools"
SIGNAL_BASE = 128
PROBE_INTERVAL = 0.1


class CommandRouter:
    """Answers the SDK's calls; each method is the remote procedure of that name."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane

    def _find(self, task_id: str) -> Sandbox:
        sandbox = self._control_plane.tasks.get(task_id)
        if sandbox is None:
            raise GRPCError(Status.NOT_FOUND, f"task {task_id} not found")
        return sandbox

    def _process(self, task_id: str, exec_id: str) -> Process:
        process = self._find(task_id).commands.get(exec_id)
        if process is None:
            raise GRPCError(Status.NOT_FOUND, f"command {exec_id} not found")
        return process

    # The entrypoint

    async def sandbox_stdio_read_v2(
        self, request: pb2.SandboxStdioReadV2Request
    ) -> AsyncIterator[pb2.SandboxStdioReadV2Response]:
        process = self._find(request.task_id).process
        of_stderr = request.file_descriptor == pb2.SANDBOX_STDIO_FILE_DESCRIPTOR_STDERR
        async for offset, data in (process.stderr if of_stderr else process.stdout).follow(request.offset):
            yield pb2.SandboxStdioReadV2Response(data=data, starting_offset=offset)

    async def sandbox_stdin_write_v2(
        self, request: pb2.SandboxStdinWriteV2Request
    ) -> pb2.SandboxStdinWriteV2Response:
        sandbox = self._find(request.task_id)
        await sandbox.started.wait()
        await _write(sandbox.process, request.data, request.offset, eof=request.eof)
        return pb2.SandboxStdinWriteV2Response()

    async def sandbox_wait_until_ready(
        self, request: pb2.SandboxWaitUntilReadyTcrRequest
    ) -> pb2.SandboxWaitUntilReadyTcrResponse:
        sandbox = self._find(request.task_id)
        if not sandbox.definition.HasField("readiness_probe"):
            raise GRPCError(Status.FAILED_PRECONDITION, "the sandbox has no readiness probe")
        try:
            await asyncio.wait_for(_until_ready(sandbox, sandbox.definition.readiness_probe), request.timeout)
        except asyncio.TimeoutError as error:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "the sandbox is not ready") from error
        return pb2.SandboxWaitUntilReadyTcrResponse(ready_at=time.time())

    # Commands

    async def task_exec_start(self, request: pb2.TaskExecStartRequest) -> pb2.TaskExecStartResponse:
        sandbox = self._find(request.task_id)
        await sandbox.started.wait()
        arguments = list(request.command_args)
        if arguments[:1] == [FILESYSTEM_TOOL]:
            tool = Path(__file__).with_name("_filesystem_tool.py")
            arguments = [sys.executable, "-I", "-S", str(tool), *arguments[1:]]
        store = self._control_plane.store
        # An older SDK names secrets by their ids, and has no other way.
        sources = getattr(request, "secret_sources", ())
        variables = store.variables(() if sources else request.secret_ids, sources)
        variables.update((entry.name, entry.value) for entry in _entries(request))
        try:
            await sandbox.execute(
                request.exec_id,
                arguments,
                variables=variables,
                workdir=request.workdir,
                timeout=request.timeout_secs,
            )
        except SandboxEndedError as error:
            raise GRPCError(Status.NOT_FOUND, f"sandbox {sandbox.id} has ended") from error
        return pb2.TaskExecStartResponse()

    async def task_exec_stdio_read(
        self, request: pb2.TaskExecStdioReadRequest
    ) -> AsyncIterator[pb2.TaskExecStdioReadResponse]:
        process = self._process(request.task_id, request.exec_id)
        of_stderr = request.file_descriptor == pb2.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDERR
        async for _, data in (process.stderr if of_stderr else process.stdout).follow(request.offset):
            yield pb2.TaskExecStdioReadResponse(data=data)

    async def task_exec_stdin_write(
        self, request: pb2.TaskExecStdinWriteRequest
    ) -> pb2.TaskExecStdinWriteResponse:
        process = self._process(request.task_id, request.exec_id)
        await _write(process, request.data, request.offset, eof=request.eof)
        return pb2.TaskExecStdinWriteResponse()

    @takes_stream
    async def task_exec_stdin_write_stream(
        self, stream: Stream[Any, Any]
    ) -> pb2.TaskExecStdinWriteStreamResponse:
        process: Process | None = None
        offset = 0
        async for message in stream:
            if message.HasField("start"):
                process = self._process(message.start.task_id, message.start.exec_id)
                offset = message.start.offset
            elif process is None:
                raise GRPCError(Status.INVALID_ARGUMENT, "the stream has no start")
            else:
                await _write(process, message.data, offset, eof=message.HasField("end"))
                offset += len(message.data)
        return pb2.TaskExecStdinWriteStreamResponse()

    async def task_exec_stdin_status(
        self, request: pb2.TaskExecStdinStatusRequest
    ) -> pb2.TaskExecStdinStatusResponse:
        process = self._process(request.task_id, request.exec_id)
        return pb2.TaskExecStdinStatusResponse(
            num_bytes_written=process.bytes_of_stdin, closed=process.stdin_closed
        )

    async def task_exec_poll(self, request: pb2.TaskExecPollRequest) -> pb2.TaskExecPollResponse:
        return pb2.TaskExecPollResponse(**_exit_status(self._process(request.task_id, request.exec_id)))

    async def task_exec_wait(self, request: pb2.TaskExecWaitRequest) -> pb2.TaskExecWaitResponse:
        process = self._process(request.task_id, request.exec_id)
        await process.exited.wait()
        return pb2.TaskExecWaitResponse(**_exit_status(process))

    # Volumes and snapshots

    async def task_reload_volumes(self, _: pb2.TaskReloadVolumesRequest) -> pb2.TaskReloadVolumesResponse:
        return pb2.TaskReloadVolumesResponse()

    async def task_snapshot_filesystem(
        self, request: pb2.TaskSnapshotFilesystemRequest
    ) -> pb2.TaskSnapshotFilesystemResponse:
        image = self._control_plane.store.new_image(self._find(request.task_id).image.layers)
        return pb2.TaskSnapshotFilesystemResponse(image_id=image.id)


def _entries(request: pb2.TaskExecStartRequest) -> list[Any]:
    # An older SDK sends variables this way; a still older one's message has no such field.
    return list(getattr(request, "env", ()))


def _exit_status(process: Process) -> dict[str, int]:
    code = process.returncode
    if code is None:
        return {}
    return {"signal": code - SIGNAL_BASE} if code > SIGNAL_BASE else {"code": code}


async def _write(process: Process, data: bytes, offset: int, *, eof: bool) -> None:
    try:
        await process.write(data, offset=offset, eof=eof)
    except OSError as error:
        raise GRPCError(Status.FAILED_PRECONDITION, "the process reads no more input") from error


async def _until_ready(sandbox: Sandbox, probe: api_pb2.Probe) -> None:
    interval = probe.interval_ms / 1000 or PROBE_INTERVAL
    await sandbox.started.wait()
    number = 0
    while sandbox.state != "ended":
        number += 1
        if probe.tcp_port:
            (port,) = sandbox.localize([str(probe.tcp_port)])
            if await _listens(int(port)):
                return
        else:
            try:
                process = await sandbox.execute(
                    f"readiness-{id(probe)}-{number}",
                    list(probe.exec_command.argv),
                    variables={},
                    workdir="",
                    timeout=0,
                )
            except SandboxEndedError:
                break
            await process.exited.wait()
            if process.returncode == 0:
                return
        await asyncio.sleep(interval)
    raise GRPCError(
        Status.FAILED_PRECONDITION, f"sandbox {sandbox.id} has ended: {json.dumps(sandbox.end_reason)}"
    )


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
