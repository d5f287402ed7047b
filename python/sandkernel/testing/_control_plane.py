"""The control plane: Modal's API as far as apps, images, secrets, volumes and sandboxes go."""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import json
import secrets
import time
from typing import TYPE_CHECKING

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from sandkernel.testing._messages import message
from sandkernel.testing._sandbox import Sandbox
from sandkernel.testing._store import Store, new_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable

    from sandkernel.testing._sandbox import Machine
    from sandkernel.testing._store import App, Secret, Volume

CREATE_IF_MISSING = api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
LOOK_UP = api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED
SUCCESS = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
IMAGE_BUILDER = "2025.06"
# Longer than any test, shorter than what would make the SDK compute in overflowing dates.
TOKEN_LIFETIME = 24 * 60 * 60


class ControlPlane:
    """Answers the SDK's calls; each method is the remote procedure of that name."""

    def __init__(self, machine: Machine, url: str, prefix: str) -> None:
        self.store = Store()
        self.sandboxes: dict[str, Sandbox] = {}
        self.tasks: dict[str, Sandbox] = {}
        self.router_token = _web_token()
        self._machine = machine
        self._url = url
        self._prefix = prefix
        self._created: dict[str, asyncio.Future[Sandbox]] = {}

    # The client

    async def client_hello(self, _: Empty) -> api_pb2.ClientHelloResponse:
        return api_pb2.ClientHelloResponse(image_builder_version=IMAGE_BUILDER)

    async def auth_token_get(self, _: api_pb2.AuthTokenGetRequest) -> api_pb2.AuthTokenGetResponse:
        return api_pb2.AuthTokenGetResponse(token=_web_token())

    async def environment_get_or_create(
        self, request: api_pb2.EnvironmentGetOrCreateRequest
    ) -> api_pb2.EnvironmentGetOrCreateResponse:
        name = request.deployment_name or self._machine.environment_name
        settings = api_pb2.EnvironmentSettings(image_builder_version=IMAGE_BUILDER)
        return api_pb2.EnvironmentGetOrCreateResponse(
            environment_id=f"en-{name}", metadata=api_pb2.EnvironmentMetadata(name=name, settings=settings)
        )

    async def environment_list(self, _: Empty) -> api_pb2.EnvironmentListResponse:
        name = self._machine.environment_name
        return api_pb2.EnvironmentListResponse(items=[api_pb2.EnvironmentListItem(name=name, default=True)])

    # Apps

    async def app_get_or_create(
        self, request: api_pb2.AppGetOrCreateRequest
    ) -> api_pb2.AppGetOrCreateResponse:
        app = self.store.app(request.app_name, create=request.object_creation_type == CREATE_IF_MISSING)
        answer = message(api_pb2.AppGetOrCreateResponse, app_id=app.id)
        if hasattr(answer, "handle_metadata"):
            answer.handle_metadata.app_id = app.id
            answer.handle_metadata.description = app.name
            answer.handle_metadata.environment_name = self._machine.environment_name
        return answer

    async def app_create(self, request: api_pb2.AppCreateRequest) -> api_pb2.AppCreateResponse:
        app = self.store.new_app(request.description)
        return api_pb2.AppCreateResponse(app_id=app.id, app_page_url=f"{self._url}/apps/{app.id}")

    async def app_publish(self, request: api_pb2.AppPublishRequest) -> api_pb2.AppPublishResponse:
        return api_pb2.AppPublishResponse(url=f"{self._url}/apps/{request.app_id}")

    async def app_heartbeat(self, _: api_pb2.AppHeartbeatRequest) -> Empty:
        return Empty()

    async def app_get_layout(self, _: api_pb2.AppGetLayoutRequest) -> api_pb2.AppGetLayoutResponse:
        return api_pb2.AppGetLayoutResponse()

    async def app_client_disconnect(self, request: api_pb2.AppClientDisconnectRequest) -> Empty:
        await self._stop_app(request.app_id)
        return Empty()

    async def app_stop(self, request: api_pb2.AppStopRequest) -> Empty:
        await self._stop_app(request.app_id)
        return Empty()

    async def _stop_app(self, app_id: str) -> None:
        running = [box for box in self.sandboxes.values() if box.app.id == app_id and box.state != "ended"]
        await asyncio.gather(*(sandbox.terminate("app_stopped") for sandbox in running))

    # Images: nothing is built, all is ready at once

    async def image_get_or_create(
        self, request: api_pb2.ImageGetOrCreateRequest
    ) -> api_pb2.ImageGetOrCreateResponse:
        image, known = self.store.image(request.image)
        # As on Modal, a new image is waited for by a second call.
        result = SUCCESS if known else None
        return api_pb2.ImageGetOrCreateResponse(image_id=image.id, result=result, metadata=_image_metadata())

    async def image_join_streaming(
        self, _: api_pb2.ImageJoinStreamingRequest
    ) -> AsyncIterator[api_pb2.ImageJoinStreamingResponse]:
        yield api_pb2.ImageJoinStreamingResponse(
            result=SUCCESS, entry_id="1", eof=True, metadata=_image_metadata()
        )

    async def image_from_id(self, request: api_pb2.ImageFromIdRequest) -> api_pb2.ImageFromIdResponse:
        image = self.store.find_image(request.image_id)
        return api_pb2.ImageFromIdResponse(image_id=image.id, metadata=_image_metadata())

    async def mount_get_or_create(
        self, _: api_pb2.MountGetOrCreateRequest
    ) -> api_pb2.MountGetOrCreateResponse:
        return api_pb2.MountGetOrCreateResponse(
            mount_id=new_id("mo"),
            handle_metadata=api_pb2.MountHandleMetadata(content_checksum_sha256_hex="0"),
        )

    async def mount_put_file(self, _: api_pb2.MountPutFileRequest) -> api_pb2.MountPutFileResponse:
        return api_pb2.MountPutFileResponse(exists=True)

    # Secrets and volumes

    async def secret_get_or_create(
        self, request: api_pb2.SecretGetOrCreateRequest
    ) -> api_pb2.SecretGetOrCreateResponse:
        name = request.deployment_name
        if request.object_creation_type == LOOK_UP:
            secret = self.store.secret(name, request.required_keys)
        else:
            if name and request.object_creation_type == api_pb2.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
                with contextlib.suppress(GRPCError):
                    self.store.secret(name, ())
                    raise _AlreadyExistsError
            secret = self.store.add_secret(name, request.env_dict)
        return api_pb2.SecretGetOrCreateResponse(secret_id=secret.id, metadata=self._secret_metadata(secret))

    async def secret_get_info(self, request: api_pb2.SecretGetInfoRequest) -> api_pb2.SecretGetInfoResponse:
        if request.secret_id not in self.store.secrets:
            raise GRPCError(Status.NOT_FOUND, f"Secret {request.secret_id} not found")
        metadata = self._secret_metadata(self.store.secrets[request.secret_id])
        return api_pb2.SecretGetInfoResponse(metadata=metadata)

    def _secret_metadata(self, secret: Secret) -> api_pb2.SecretMetadata:
        environment_name = self._machine.environment_name
        return message(
            api_pb2.SecretMetadata,
            name=secret.name,
            keys=list(secret.values),
            environment_name=environment_name,
        )

    async def volume_get_or_create(
        self, request: api_pb2.VolumeGetOrCreateRequest
    ) -> api_pb2.VolumeGetOrCreateResponse:
        volume = self.store.volume(
            request.deployment_name, version=request.version, create=request.object_creation_type != LOOK_UP
        )
        metadata = _volume_metadata(volume)
        return api_pb2.VolumeGetOrCreateResponse(
            volume_id=volume.id, version=metadata.version, metadata=metadata
        )

    async def volume_heartbeat(self, _: api_pb2.VolumeHeartbeatRequest) -> Empty:
        return Empty()

    # Creating sandboxes

    async def sandbox_create(
        self, request: api_pb2.SandboxCreateRequest, *, key: str
    ) -> api_pb2.SandboxCreateResponse:
        variables = self.store.variables(request.definition.secret_ids)
        sandbox = await self._create_once(key, request, variables, backend="V1")
        return message(
            api_pb2.SandboxCreateResponse, sandbox_id=sandbox.id, metadata=_sandbox_metadata(sandbox)
        )

    async def sandbox_create_v2(
        self, request: api_pb2.SandboxCreateV2Request, *, key: str
    ) -> api_pb2.SandboxCreateV2Response:
        variables = self.store.variables(
            request.definition.secret_ids if not request.secret_sources else (), request.secret_sources
        )
        variables.update(request.ephemeral_secrets.contents)
        variables.update(request.definition.environment_variables.contents)
        sandbox = await self._create_once(key, request, variables, backend="V2")
        return api_pb2.SandboxCreateV2Response(
            sandbox_id=sandbox.id,
            task_id=sandbox.task_id,
            tunnels=self._tunnels(sandbox),
            metadata=_sandbox_metadata(sandbox),
            command_router_access=api_pb2.CommandRouterAccess(url=self._url, jwt=self.router_token),
        )

    async def _create_once(
        self,
        key: str,
        request: api_pb2.SandboxCreateRequest | api_pb2.SandboxCreateV2Request,
        variables: dict[str, str],
        *,
        backend: str,
    ) -> Sandbox:
        """Create a sandbox, or find the one that an earlier attempt of the same call created."""
        if key not in self._created:
            # In a task of its own: a client that gives up does not undo the work.
            self._created[key] = asyncio.ensure_future(self._create(request, variables, backend))
        return await asyncio.shield(self._created[key])

    async def _create(
        self,
        request: api_pb2.SandboxCreateRequest | api_pb2.SandboxCreateV2Request,
        variables: dict[str, str],
        backend: str,
    ) -> Sandbox:
        if request.app_id not in self.store.apps:
            raise GRPCError(Status.NOT_FOUND, f"App {request.app_id} not found")
        app = self.store.apps[request.app_id]
        name = request.definition.name
        if name and self._running(app, name):
            raise GRPCError(Status.ALREADY_EXISTS, f"Sandbox {name!r} is running in app {app.name!r} already")
        # The SDK tells the backends apart by the length of the ids' random part, and a V2 task by its last
        # letter.
        sandbox = Sandbox(
            id=new_id("sb", length=22 if backend == "V1" else 26, start=self._prefix),
            task_id=new_id("ta") + ("V" if backend == "V2" else "x"),
            app=app,
            image=self.store.find_image(request.definition.image_id),
            definition=request.definition,
            variables=variables,
            tags={tag.tag_name: tag.tag_value for tag in getattr(request, "tags", ())},
            machine=self._machine,
            backend=backend,
        )
        self.sandboxes[sandbox.id] = sandbox
        self.tasks[sandbox.task_id] = sandbox
        await sandbox.create()
        return sandbox

    def _running(self, app: App, name: str) -> Sandbox | None:
        boxes = (box for box in self.sandboxes.values() if box.app is app and box.name == name)
        return next((box for box in boxes if box.state != "ended"), None)

    def find(self, sandbox_id: str) -> Sandbox:
        """Find a sandbox by its id."""
        if sandbox_id not in self.sandboxes:
            raise GRPCError(Status.NOT_FOUND, f"Sandbox {sandbox_id} not found")
        return self.sandboxes[sandbox_id]

    # Finding sandboxes

    async def sandbox_list(self, request: api_pb2.SandboxListRequest) -> api_pb2.SandboxListResponse:
        tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        found = [
            sandbox
            for sandbox in self.sandboxes.values()
            if (not request.app_id or sandbox.app.id == request.app_id)
            and (request.include_finished or sandbox.state != "ended")
            and (not request.before_timestamp or sandbox.created_at < request.before_timestamp)
            and tags.items() <= sandbox.tags.items()
        ]
        found.sort(key=lambda sandbox: sandbox.created_at, reverse=True)
        return api_pb2.SandboxListResponse(sandboxes=[_sandbox_info(sandbox) for sandbox in found])

    async def sandbox_list_v2(self, request: api_pb2.SandboxListRequest) -> api_pb2.SandboxListResponse:
        return await self.sandbox_list(request)

    async def sandbox_get_from_name(
        self, request: api_pb2.SandboxGetFromNameRequest
    ) -> api_pb2.SandboxGetFromNameResponse:
        return self._from_name(request, "V1")

    async def sandbox_get_from_name_v2(
        self, request: api_pb2.SandboxGetFromNameRequest
    ) -> api_pb2.SandboxGetFromNameResponse:
        return self._from_name(request, "V2")

    def _from_name(
        self, request: api_pb2.SandboxGetFromNameRequest, backend: str
    ) -> api_pb2.SandboxGetFromNameResponse:
        app = self.store.app(request.app_name, create=False)
        boxes = [
            box
            for box in self.sandboxes.values()
            if box.app is app and box.name == request.sandbox_name and box.backend == backend
        ]
        running = [box for box in boxes if box.state != "ended"]
        candidates = running or (boxes if getattr(request, "include_terminated", False) else [])
        if not candidates:
            raise GRPCError(Status.NOT_FOUND, f"no sandbox {request.sandbox_name!r} runs in app {app.name!r}")
        newest = max(candidates, key=lambda box: box.created_at)
        return message(
            api_pb2.SandboxGetFromNameResponse, sandbox_id=newest.id, metadata=_sandbox_metadata(newest)
        )

    async def sandbox_get_task_id(
        self, request: api_pb2.SandboxGetTaskIdRequest
    ) -> api_pb2.SandboxGetTaskIdResponse:
        sandbox = self.find(request.sandbox_id)
        result = sandbox.result if sandbox.state == "ended" else None
        return api_pb2.SandboxGetTaskIdResponse(task_id=sandbox.task_id, task_result=result)

    async def sandbox_get_task_id_v2(
        self, request: api_pb2.SandboxGetTaskIdRequest
    ) -> api_pb2.SandboxGetTaskIdResponse:
        return await self.sandbox_get_task_id(request)

    async def sandbox_get_command_router_access(
        self, request: api_pb2.SandboxGetCommandRouterAccessRequest
    ) -> api_pb2.SandboxGetCommandRouterAccessResponse:
        if request.task_id not in self.tasks:
            self.find(request.sandbox_id)
        return api_pb2.SandboxGetCommandRouterAccessResponse(url=self._url, jwt=self.router_token)

    async def task_get_command_router_access(
        self, _: api_pb2.TaskGetCommandRouterAccessRequest
    ) -> api_pb2.TaskGetCommandRouterAccessResponse:
        return api_pb2.TaskGetCommandRouterAccessResponse(url=self._url, jwt=self.router_token)

    # Their tags

    async def sandbox_tags_get(
        self, request: api_pb2.SandboxTagsGetRequest
    ) -> api_pb2.SandboxTagsGetResponse:
        return api_pb2.SandboxTagsGetResponse(tags=_tags(self.find(request.sandbox_id)))

    async def sandbox_tags_get_v2(
        self, request: api_pb2.SandboxTagsGetRequest
    ) -> api_pb2.SandboxTagsGetResponse:
        return await self.sandbox_tags_get(request)

    async def sandbox_tags_set(self, request: api_pb2.SandboxTagsSetRequest) -> Empty:
        self.find(request.sandbox_id).tags = {tag.tag_name: tag.tag_value for tag in request.tags}
        return Empty()

    async def sandbox_tags_set_v2(self, request: api_pb2.SandboxTagsSetRequest) -> Empty:
        return await self.sandbox_tags_set(request)

    # Their tunnels

    async def sandbox_get_tunnels(
        self, request: api_pb2.SandboxGetTunnelsRequest
    ) -> api_pb2.SandboxGetTunnelsResponse:
        sandbox = self.find(request.sandbox_id)
        if sandbox.tunnels and not self._machine.faults.tunnels_open:
            await _first(request.timeout, sandbox.ended.wait())
            timed_out = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT)
            return api_pb2.SandboxGetTunnelsResponse(result=timed_out)
        return api_pb2.SandboxGetTunnelsResponse(result=SUCCESS, tunnels=self._tunnels(sandbox))

    async def sandbox_get_tunnels_v2(
        self, request: api_pb2.SandboxGetTunnelsRequest
    ) -> api_pb2.SandboxGetTunnelsResponse:
        return await self.sandbox_get_tunnels(request)

    def _tunnels(self, sandbox: Sandbox) -> Iterable[api_pb2.TunnelData]:
        if not self._machine.faults.tunnels_open:
            return []
        return [
            api_pb2.TunnelData(host=address.host, port=address.port, container_port=port)
            if tunnel.encrypted
            else api_pb2.TunnelData(
                unencrypted_host=address.host, unencrypted_port=address.port, container_port=port
            )
            for port, tunnel in sandbox.tunnels.items()
            for address in (tunnel.address,)
        ]

    # Their output and input of the entrypoint (V1; the command router has those of V2)

    async def sandbox_get_logs(
        self, request: api_pb2.SandboxGetLogsRequest
    ) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        sandbox = self.find(request.sandbox_id)
        of_stderr = request.file_descriptor == api_pb2.FILE_DESCRIPTOR_STDERR
        output = sandbox.process.stderr if of_stderr else sandbox.process.stdout
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        start = int(request.last_entry_id or 0)
        async for offset, piece in output.follow(start):
            logs = api_pb2.TaskLogs(data=decoder.decode(piece), file_descriptor=request.file_descriptor)
            yield api_pb2.TaskLogsBatch(items=[logs], entry_id=str(offset + len(piece)))
        yield api_pb2.TaskLogsBatch(eof=True)

    async def sandbox_stdin_write(
        self, request: api_pb2.SandboxStdinWriteRequest
    ) -> api_pb2.SandboxStdinWriteResponse:
        sandbox = self.find(request.sandbox_id)
        await sandbox.started.wait()
        try:
            offset = sandbox.process.bytes_of_stdin
            await sandbox.process.write(request.input, offset=offset, eof=request.eof)
        except OSError as error:
            raise GRPCError(Status.FAILED_PRECONDITION, "the entrypoint reads no more input") from error
        return api_pb2.SandboxStdinWriteResponse()

    # Their end

    async def sandbox_wait(self, request: api_pb2.SandboxWaitRequest) -> api_pb2.SandboxWaitResponse:
        sandbox = self.find(request.sandbox_id)
        if request.timeout:
            await _first(request.timeout, sandbox.ended.wait())
        return message(
            api_pb2.SandboxWaitResponse, result=sandbox.result, metadata=_sandbox_metadata(sandbox)
        )

    async def sandbox_wait_v2(self, request: api_pb2.SandboxWaitRequest) -> api_pb2.SandboxWaitResponse:
        return await self.sandbox_wait(request)

    async def sandbox_terminate(
        self, request: api_pb2.SandboxTerminateRequest
    ) -> api_pb2.SandboxTerminateResponse:
        sandbox = self.find(request.sandbox_id)
        if sandbox.state == "ended":
            return api_pb2.SandboxTerminateResponse(existing_result=sandbox.result)
        # In a task of its own: a client that gives up does not keep the sandbox alive.
        await asyncio.shield(asyncio.ensure_future(sandbox.terminate()))
        return api_pb2.SandboxTerminateResponse()

    async def sandbox_terminate_v2(
        self, request: api_pb2.SandboxTerminateRequest
    ) -> api_pb2.SandboxTerminateResponse:
        return await self.sandbox_terminate(request)

    async def close(self) -> None:
        """End all sandboxes."""
        await asyncio.gather(*self._created.values(), return_exceptions=True)
        await asyncio.gather(*(sandbox.terminate("closed") for sandbox in self.sandboxes.values()))

    def forget(self) -> None:
        """Forget the sandboxes, all of which have ended."""
        self.sandboxes.clear()
        self.tasks.clear()
        self._created.clear()


class _AlreadyExistsError(GRPCError):
    def __init__(self) -> None:
        super().__init__(Status.ALREADY_EXISTS, "it exists already")


async def _first(timeout: float, event: Awaitable[object]) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event, timeout)


def _web_token() -> str:
    """Make a token that the SDK can read an expiry from, with a random part for a signature."""
    claims = {"exp": time.time() + TOKEN_LIFETIME}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({"alg": "none"}, claims)
    ]
    return ".".join([*parts, secrets.token_urlsafe()])


def _image_metadata() -> api_pb2.ImageMetadata:
    return api_pb2.ImageMetadata(image_builder_version=IMAGE_BUILDER)


def _volume_metadata(volume: Volume) -> api_pb2.VolumeMetadata:
    return api_pb2.VolumeMetadata(name=volume.name, version=volume.version)  # type: ignore[arg-type]


def _sandbox_metadata(sandbox: Sandbox) -> api_pb2.SandboxHandleMetadata:
    result = sandbox.result if sandbox.state == "ended" else None
    return message(api_pb2.SandboxHandleMetadata, app_id=sandbox.app.id, result=result)


def _tags(sandbox: Sandbox) -> list[api_pb2.SandboxTag]:
    return [api_pb2.SandboxTag(tag_name=name, tag_value=value) for name, value in sandbox.tags.items()]


def _sandbox_info(sandbox: Sandbox) -> api_pb2.SandboxInfo:
    task = api_pb2.TaskInfo(id=sandbox.task_id, started_at=sandbox.started_at or 0, result=sandbox.result)
    return message(
        api_pb2.SandboxInfo,
        id=sandbox.id,
        created_at=sandbox.created_at,
        task_info=task,
        app_id=sandbox.app.id,
        tags=_tags(sandbox),
        name=sandbox.name,
        image_id=sandbox.image.id,
        timeout_secs=sandbox.definition.timeout_secs,
        idle_timeout_secs=sandbox.definition.idle_timeout_secs,
        metadata=_sandbox_metadata(sandbox),
    )
