"""What one sees of a sandbox from outside the control plane's thread."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandkernel.testing._environment import MARKER
from sandkernel.testing._processes import marked

if TYPE_CHECKING:
    from collections.abc import Callable

    from modal_proto import api_pb2

    from sandkernel.testing._faults import Cut
    from sandkernel.testing._sandbox import Sandbox
    from sandkernel.testing._store import Image


@dataclass(frozen=True)
class TunnelRecord:
    """A tunnel of a sandbox.

    Attributes:
        container_port: The port in the sandbox.
        local_port: The port of this machine on which the sandbox's processes listen in its place.
        host: What the SDK shows as the tunnel's host.
        port: What the SDK shows as its port.
        connections: How many connections are open.
        accepted: How many connections there have been.
        bytes_passed: How many bytes have come through, both directions together, encrypted as they are.
    """

    container_port: int
    local_port: int
    host: str
    port: int
    connections: int
    accepted: int
    bytes_passed: int


class SandboxRecord:
    """A sandbox as it is now; it goes on to be readable after the sandbox's end.

    Each property shows the current state, from any thread.
    """

    def __init__(self, sandbox: Sandbox, call: Callable[[Callable[[], Any]], Any]) -> None:
        self._sandbox = sandbox
        self._call = call

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<SandboxRecord {self.id}{name} {self.state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SandboxRecord) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """Its id, as `Sandbox.object_id`."""
        return self._sandbox.id

    @property
    def name(self) -> str:
        """Its name; empty if it has none."""
        return self._sandbox.name

    @property
    def app_name(self) -> str:
        """The name of its app."""
        return self._sandbox.app.name

    @property
    def backend(self) -> str:
        """`"V2"`, or `"V1"` for one with a GPU."""
        return self._sandbox.backend

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return dict(self._sandbox.tags)

    @property
    def state(self) -> str:
        """`"starting"`, `"running"` or `"ended"`."""
        return self._sandbox.state

    @property
    def created_at(self) -> float:
        """When it was created, in seconds since the epoch."""
        return self._sandbox.created_at

    @property
    def started_at(self) -> float | None:
        """When its entrypoint was started, in seconds since the epoch."""
        return self._sandbox.started_at

    @property
    def ended_at(self) -> float | None:
        """When it had ended, in seconds since the epoch."""
        return self._sandbox.ended_at

    @property
    def end_reason(self) -> str | None:
        """Why it ended.

        `"exited"`, `"terminated"`, `"timeout"`, `"idle_timeout"`, `"app_stopped"`, or `"closed"` if the
        control plane ended before it.
        """
        return self._sandbox.end_reason

    @property
    def returncode(self) -> int | None:
        """Its return code, as the SDK shows it; `None` while it runs."""
        return self._sandbox.result.exitcode if self.state == "ended" else None

    @property
    def entrypoint(self) -> list[str]:
        """Its entrypoint, as the SDK sent it."""
        return list(self._sandbox.definition.entrypoint_args)

    @property
    def environment_names(self) -> list[str]:
        """The names of the variables that secrets and `env=` set; their values are not shown."""
        return sorted(self._sandbox.variables)

    @property
    def image(self) -> Image:
        """Its image."""
        return self._sandbox.image

    @property
    def definition(self) -> api_pb2.Sandbox:
        """All that the SDK asked for: resources, timeouts, volumes, ports and so on."""
        return self._sandbox.definition

    @property
    def tunnels(self) -> dict[int, TunnelRecord]:
        """Its tunnels, by the port in the sandbox."""
        return {
            port: TunnelRecord(
                container_port=port,
                local_port=tunnel.local_port,
                host=tunnel.address.host,
                port=tunnel.address.port,
                connections=tunnel.connections,
                accepted=tunnel.accepted,
                bytes_passed=tunnel.bytes_passed,
            )
            for port, tunnel in self._sandbox.tunnels.items()
        }

    @property
    def pid(self) -> int | None:
        """The process id of its entrypoint."""
        return self._sandbox.process.pid

    @property
    def stdout(self) -> str:
        """What its entrypoint wrote to the standard output so far."""
        return self._sandbox.process.stdout.data.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """What its entrypoint wrote to the standard error so far."""
        return self._sandbox.process.stderr.data.decode(errors="replace")

    def processes(self) -> list[int]:
        """Find the ids of all its living processes."""
        return sorted(process.pid for process in marked((MARKER, self.id)))

    # Faults of this one sandbox

    def kill(self) -> None:
        """Kill its entrypoint, as a lack of memory would; the sandbox ends by that."""
        self._call(lambda: self._sandbox.process.signal(signal.SIGKILL))

    def expire(self) -> None:
        """Let its `timeout` be over now."""
        self._call(self._sandbox.expire)

    def cut(self, how: Cut = "reset") -> int:
        """Break the open connections through its tunnels.

        Args:
            how: `"close"` (FIN), `"reset"` (RST), or `"silence"`: they stay open, and nothing comes through
                any more.

        Returns:
            How many connections were open.
        """
        return int(self._call(lambda: sum(tunnel.cut(how) for tunnel in self._sandbox.tunnels.values())))
