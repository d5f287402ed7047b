"""Runs a jupyter kernel gateway in this process, tuned, with one kernel already on its way.

A program of its own: it imports nothing of `sandkernel`, and runs as a file or as `python -c <this text>`, on
this machine or in an image that has no more than `jupyter_kernel_gateway` and `ipykernel`, from Python
3.8 on.

The configuration is one JSON object: the program's only argument or, without one, the first line on stdin.
The token comes in it only by stdin; otherwise it is `KG_AUTH_TOKEN`, which is then removed:

    token           what clients authenticate with
    ip, port        where to listen; port 0 takes a free one. Default: 127.0.0.1, 0
    kernel_id       a kernel to start at once under this id (no secret). Default: none
    kernel_python   the interpreter of the kernels. Default: this one
    environment     variables to set (a string) or remove (null) in the kernels
    root            a directory of our own: has work/, is removed at the end. Default: none, works where it is
    parent          the process to end with; then stdin's end, or a line on it, ends us too. Default: none
    ping_interval   seconds between pings; who answers none for three is cut off. Default: 30; 0: none
    log_limit       bytes: stderr, where it is a file, is emptied when it is larger. Default: 0, never

The answer is a JSON line on stdout: `{"port": ..., "process_id": ..., "kernel_id": ...}` as soon as it
serves, or `{"error": ...}`, with `"missing"` where a module is. What depends on the version of the gateway
is guarded: with another version it starts too, only slower. Where `kernel_id` is null, it took no kernel.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Tuple

Configuration = Dict[str, Any]

MAXIMUM_MESSAGE = 256 << 20
PORTS = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")
# A unix socket's path may be 104 bytes long, on macOS; the end is zmq's.
LONGEST_ADDRESS = 90
# For checking formats that nothing here has; jsonschema does without. The first takes a second to import.
UNUSED_MODULES = (
    "rfc3987_syntax",
    "rfc3987",
    "rfc3986_validator",
    "isoduration",
    "webcolors",
    "uri_template",
    "fqdn",
)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def read_configuration() -> Configuration:
    """The configuration and in it, wherever it came from, the token."""
    token = os.environ.pop("KG_AUTH_TOKEN", "")
    if len(sys.argv) > 1:
        configuration = json.loads(sys.argv[1])
        configuration["token"] = token
    else:
        # Unbuffered: what follows the line is the watcher's.
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(0, 1)
            if not piece:
                raise SystemExit("bootstrap: stdin ended before the configuration did")
            line += piece
        configuration = json.loads(line)
        configuration.setdefault("token", token)
    if not configuration["token"]:
        raise SystemExit("bootstrap: no token: it would let everyone in")
    return configuration  # type: ignore[no-any-return]


class Report:
    """The line that tells our starter how it went; what else goes to stdout goes to stderr from now on."""

    def __init__(self) -> None:
        self.descriptor = os.dup(1)
        os.dup2(2, 1)

    def send(self, **fields: Any) -> None:
        """Send the line, the only one."""
        with contextlib.suppress(OSError):
            os.write(self.descriptor, json.dumps(fields).encode() + b"\n")
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


class Processes:
    """The kernels and whatever they start: none outlives us."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.kernels: Dict[int, Any] = {}
        self.prctl: Any = None
        self.adopting = False
        if sys.platform == "linux":
            with contextlib.suppress(Exception):
                import ctypes

                self.prctl = ctypes.CDLL(None, use_errno=True).prctl
                # Orphans become our children: so a walk over our descendants misses none.
                self.adopting = self.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0

    def tie(self) -> None:
        """Make a kernel's process, from inside and before its program, end with us even if we are killed."""
        if self.prctl is not None:
            self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self.process_id:
                os._exit(1)

    @staticmethod
    def table() -> Iterator[Tuple[int, int, int, str]]:
        """Process id, parent, process group and state of every process."""
        if os.path.isdir("/proc/self"):
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    with contextlib.suppress(OSError, ValueError, IndexError):
                        with open("/proc/" + entry + "/stat", "rb") as file:
                            # The command's name stands in parentheses before these, and may hold anything.
                            fields = file.read().rpartition(b")")[2].split()
                        yield int(entry), int(fields[1]), int(fields[2]), fields[0].decode()
        else:
            command = ["ps", "-A", "-o", "pid=,ppid=,pgid=,state="]
            listing = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
            for row in listing.decode(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    process_id, parent, group, state = row.split(None, 3)
                    yield int(process_id), int(parent), int(group), state

    def descendants(self) -> List[int]:
        """Our living descendants and, where orphans are not ours, the process groups of the kernels."""
        rows = list(self.table())
        groups = () if self.adopting else tuple(self.kernels)
        found = {self.process_id}
        size = 0
        while len(found) != size:
            size = len(found)
            found.update(row[0] for row in rows if row[1] in found or row[2] in groups)
        found.discard(self.process_id)
        return [row[0] for row in rows if row[0] in found and not row[3].startswith("Z")]

    def kill_all(self, seconds: float = 1.5) -> None:
        """Kill them until none is left: they may start others meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            remaining = self.descendants()
            if not remaining:
                return
            for process_id in remaining:
                with contextlib.suppress(OSError):
                    os.kill(process_id, signal.SIGKILL)
            time.sleep(0.005)

    def reap_orphans(self) -> None:
        """Wait for orphans that ended; a kernel that ended is its manager's to notice."""
        for process_id, process in list(self.kernels.items()):
            if process.returncode is not None:
                del self.kernels[process_id]
        if self.adopting:
            for process_id, parent, _, state in list(self.table()):
                if parent == self.process_id and state == "Z" and process_id not in self.kernels:
                    with contextlib.suppress(OSError):
                        os.waitpid(process_id, os.WNOHANG)


class Watcher(threading.Thread):
    """Ends us when our starter says so or is gone, whatever the event loop is busy with."""

    def __init__(self, configuration: Configuration, processes: Processes) -> None:
        super().__init__(name="watcher", daemon=True)
        self.parent = configuration.get("parent")
        self.configuration = configuration
        self.log_limit = configuration.get("log_limit") or 0
        self.processes = processes
        self.lock = threading.Lock()

    def run(self) -> None:
        """Watch until it is time to end."""
        poll = select.poll()
        if self.parent:
            poll.register(0, select.POLLIN | select.POLLHUP)
            # A fork of our parent may hold the other end of stdin open: watch the parent itself too.
            with contextlib.suppress(AttributeError, OSError):
                poll.register(os.pidfd_open(self.parent), select.POLLIN)
        while True:
            ready = poll.poll(500)
            if self.parent and (ready or os.getppid() != self.parent):
                self.end()
            self.processes.reap_orphans()
            with contextlib.suppress(OSError):
                if self.log_limit and os.fstat(2).st_size > self.log_limit:
                    os.ftruncate(2, 0)

    def end(self, *_: Any) -> NoReturn:
        """Take everything down, this process last."""
        if self.lock.acquire(blocking=False):
            try:
                self.processes.kill_all()
                self.remove("root", "runtime")
            finally:
                os._exit(0)
        while True:
            time.sleep(1)

    def fail(self) -> None:
        """Take everything else down; our starter, if still there, wants to read the log in the root."""
        self.processes.kill_all()
        gone = self.parent and os.getppid() != self.parent
        self.remove(*(("root", "runtime") if gone else ("runtime",)))

    def remove(self, *names: str) -> None:
        """Remove directories of ours."""
        os.chdir("/")
        for name in names:
            if self.configuration.get(name):
                shutil.rmtree(self.configuration[name], ignore_errors=True)


def kernel_command(configuration: Configuration) -> List[str]:
    """What starts a kernel, up to the path of its connection file."""
    return [configuration.get("kernel_python") or sys.executable, "-m", "ipykernel_launcher", "-f"]


class EarlyKernel:
    """A kernel whose process starts beside the imports of the gateway, which then adopts it."""

    def __init__(self, configuration: Configuration, processes: Processes, runtime: str) -> None:
        self.kernel_id: str = configuration["kernel_id"]
        self.processes = processes
        self.file = os.path.join(runtime, "kernel-" + self.kernel_id + ".json")
        self.connection: Dict[str, Any] = {
            "key": os.urandom(32).hex(),
            "signature_scheme": "hmac-sha256",
            "kernel_name": "python3",
        }
        address = os.path.splitext(self.file)[0]
        if len(os.fsencode(address)) <= LONGEST_ADDRESS:
            # Sockets in our directory: no port to collide over, no stranger to connect.
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
        options.setdefault("preexec_fn", processes.tie)
        information = await launch_kernel(self, cmd, **options)
        processes.kernels[self.process.pid] = self.process
        return information

    provisioner.pre_launch = pre_launch_adopting
    provisioner.launch_kernel = launch_kernel_adopting


def tune_websocket() -> None:
    """Make small writes go out at once: with Nagle's algorithm an execution takes 40 ms more."""
    handler: Any = importlib.import_module("jupyter_server.services.kernels.websocket").KernelWebsocketHandler
    opened = handler.open

    async def open_without_delay(self: Any, *arguments: Any, **options: Any) -> None:
        self.set_nodelay(True)
        await opened(self, *arguments, **options)

    handler.open = open_without_delay


def tune_nudge() -> None:
    """Make the first retry of the probe of a new kernel come after 20 ms, not after half a second."""
    channels: Any = importlib.import_module("jupyter_server.services.kernels.connection.channels")
    original = channels.IOLoop

    class ImpatientLoop:
        def __init__(self, loop: Any) -> None:
            self.loop = loop

        def __getattr__(self, name: str) -> Any:
            return getattr(self.loop, name)

        def call_later(self, delay: float, callback: Any, *arguments: Any, **options: Any) -> Any:
            if getattr(callback, "__name__", "") == "nudge" and arguments:
                delay = min(delay, 0.02 * 1.5 ** arguments[0])
            return self.loop.call_later(delay, callback, *arguments, **options)

    class ImpatientIOLoop:
        @staticmethod
        def current(*arguments: Any, **options: Any) -> ImpatientLoop:
            return ImpatientLoop(original.current(*arguments, **options))

    channels.IOLoop = ImpatientIOLoop


def tune(tuning: Any, *arguments: Any) -> bool:
    """Apply what depends on the version of the gateway, or go without it."""
    try:
        tuning(*arguments)
    except Exception as error:
        print("bootstrap: %s does not fit this gateway: %r" % (tuning.__name__, error), file=sys.stderr)
        return False
    return True


def tune_resuming(web_application: Any) -> None:
    """Let a client that lost its websocket take up where it was; see journal.py, whose text comes with us."""
    journal = types.ModuleType("sandkernel_journal")
    exec(compile(globals()["JOURNAL"], "journal.py", "exec"), journal.__dict__)
    journal.install(web_application)


class Deferred(types.ModuleType):
    """Stands in for a module of which only this much is used; anything else brings the module itself."""

    def __init__(self, name: str, **attributes: Any) -> None:
        super().__init__(name)
        specification = importlib.util.find_spec(name)
        self.__path__ = (specification and specification.submodule_search_locations) or []
        self.__dict__.update(attributes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class NoEvents:
    """For `jupyter_events.EventLogger`: nobody listens to events here, and their schemas take time."""

    def __init__(self, **_: Any) -> None:
        pass

    def register_event_schema(self, *_: Any) -> None:
        """Ignore it."""

    def emit(self, **_: Any) -> None:
        """Ignore it."""


def import_gateway() -> Any:
    """Import the gateway without what it does not use here, which takes a third of the time."""
    before = set(sys.modules)
    try:
        for name in UNUSED_MODULES:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        for module in (
            Deferred("nbformat"),
            Deferred("jupyter_server.serverapp", random_ports=lambda port, _: [port]),
            Deferred("jupyter_events", EventLogger=NoEvents),
            Deferred("jupyter_events.schema_registry", SchemaRegistryException=Exception),
        ):
            sys.modules.setdefault(module.__name__, module)
        gatewayapp = importlib.import_module("kernel_gateway.gatewayapp")
    except Exception:
        # Another version needs more of them.
        for name in set(sys.modules) - before:
            del sys.modules[name]
        sys.modules[UNUSED_MODULES[0]] = None  # type: ignore[assignment]
        gatewayapp = importlib.import_module("kernel_gateway.gatewayapp")
    return gatewayapp.KernelGatewayApp


def write_kernel_specification(configuration: Configuration, runtime: str) -> str:
    """Describe the only kernel there is: looking for others would import IPython and take 0.1 s."""
    directory = os.path.join(runtime, "specifications")
    os.makedirs(os.path.join(directory, "python3"))
    command = kernel_command(configuration) + ["{connection_file}"]
    with open(os.path.join(directory, "python3", "kernel.json"), "w") as file:
        json.dump({"argv": command, "display_name": "Python 3", "language": "python"}, file)
    return directory


def build_application(configuration: Configuration, listener: socket.socket, runtime: str) -> Any:
    """The gateway's application, listening."""
    application_class = import_gateway()
    import zmq
    from tornado.httpserver import HTTPServer
    from traitlets.config import Config

    settings = Config()
    # With a limit, output past 1 MB/s is dropped, results and errors with it.
    settings.ZMQChannelsWebsocketConnection.limit_rate = False
    settings.KernelRestarter.time_to_dead = 0.1
    # By default a kernel that dies six times within seconds is given up, as agents' code may well make it.
    settings.KernelRestarter.restart_limit = 1000
    # Whoever restarts a kernel has tried to interrupt it: it is not waited for another five seconds.
    settings.KernelManager.shutdown_wait_time = 1.0
    # What a client misses is in the journal, within a bound; the gateway's own buffer has none.
    settings.MappingKernelManager.buffer_offline_messages = False
    # New ports would cut an open websocket off from its restarted kernel.
    settings.KernelRestarter.random_ports_until_alive = False
    settings.JupyterWebsocketPersonality.list_kernels = True
    settings.KernelGatewayApp.log_level = 30
    settings.KernelGatewayApp.ws_ping_interval = configuration.get("ping_interval", 30)
    ip, port = listener.getsockname()[:2]
    application = application_class.instance(
        config=settings, auth_token=configuration["token"], ip=ip, port=port
    )
    # The signals are the watcher's; the server gets the socket that listens already.
    application.init_signal = application.init_http_server = lambda: None
    application.initialize(argv=[])
    application.kernel_spec_manager.kernel_dirs = [write_kernel_specification(configuration, runtime)]
    application.web_app.settings["websocket_max_message_size"] = MAXIMUM_MESSAGE
    application.http_server = HTTPServer(application.web_app, max_buffer_size=2 * MAXIMUM_MESSAGE)
    with contextlib.suppress(Exception):
        # A kernel that is not there yet is looked for each 10 ms, not each 100 ms.
        application.kernel_manager.context.setsockopt(zmq.RECONNECT_IVL, 10)
    return application


def listen(configuration: Configuration) -> socket.socket:
    """A listening socket: clients that come before the gateway serves wait, and need not try again."""
    ip = configuration.get("ip") or "127.0.0.1"
    listener = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ip, configuration.get("port") or 0))
    listener.listen(128)
    listener.settimeout(0)
    return listener


def settle(configuration: Configuration) -> str:
    """Set the directories and variables that the gateway and the kernels see; return the runtime one."""
    # Where we were started there may be files of the agent's: nothing is imported from there.
    if sys.path and sys.path[0] in ("", os.path.dirname(os.path.abspath(sys.argv[0]))):
        del sys.path[0]
    root = configuration.get("root")
    runtime = os.path.join(root, "runtime") if root else tempfile.mkdtemp(prefix="sandkernel-")
    configuration["runtime"] = runtime
    os.makedirs(runtime, mode=0o700, exist_ok=True)
    os.environ["JUPYTER_RUNTIME_DIR"] = runtime
    # Neither the user's settings nor those of the image are for this gateway.
    os.environ["JUPYTER_CONFIG_DIR"] = os.path.join(runtime, "configuration")
    os.environ["JUPYTER_NO_CONFIG"] = "1"
    if root:
        work = os.path.join(root, "work")
        os.makedirs(work, exist_ok=True)
        os.chdir(work)
    for name, value in (configuration.get("environment") or {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return runtime


def serve(configuration: Configuration, report: Report, processes: Processes) -> None:
    """Run the gateway."""
    runtime = settle(configuration)
    listener = listen(configuration)
    early = EarlyKernel(configuration, processes, runtime) if configuration.get("kernel_id") else None
    application = build_application(configuration, listener, runtime)
    tune(tune_websocket)
    tune(tune_nudge)
    tune(tune_resuming, application.web_app)
    if not tune(tune_provisioner, early, processes) and early is not None:
        early.discard()

    async def start() -> None:
        try:
            kernel_id = None
            if early is not None:
                early.check()
                try:
                    kernel_id = await application.kernel_manager.start_kernel(kernel_id=early.kernel_id)
                except Exception as error:
                    if early.process is None:
                        raise
                    # Before version 3 it takes no new id: then the client creates its kernel.
                    print("bootstrap: this gateway did not take the kernel: %r" % (error,), file=sys.stderr)
                early.discard()
            # Not before: who knows the kernel's id already may ask for it with its first request.
            application.http_server.add_sockets([listener])
            port = listener.getsockname()[1]
            report.send(port=port, process_id=os.getpid(), kernel_id=kernel_id)
        except Exception as error:
            failures.append(error)
            loop.stop()

    from tornado.ioloop import IOLoop

    failures: List[Exception] = []
    loop = IOLoop.current()
    loop.add_callback(start)
    loop.start()
    if failures:
        raise failures[0]


def main() -> None:
    """Run the program."""
    configuration = read_configuration()
    report = Report()
    processes = Processes()
    watcher = Watcher(configuration, processes)
    signal.signal(signal.SIGTERM, watcher.end)
    # Not SIG_IGN: the kernels would inherit that.
    signal.signal(signal.SIGINT, lambda *_: None)
    watcher.start()
    try:
        serve(configuration, report, processes)
    except ImportError as error:
        report.send(error=str(error), missing=error.name)
        raise
    except Exception as error:
        report.send(error="%s: %s" % (type(error).__name__, error))
        raise
    finally:
        watcher.fail()


if __name__ == "__main__":
    main()
