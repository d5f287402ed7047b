"""Runs a jupyter kernel gateway in this process, tuned, with one kernel already on its way.

A program of its own: it imports nothing of `sandkernel`, and runs as a file or as `python -c <this text>`, on this
machine or in an image that has no more than `jupyter_kernel_gateway` and `ipykernel`, from Python 3.8 on.

The configuration is one JSON object. It comes as the program's only argument or, without one, as the first line on
stdin; the token comes in it only by stdin, otherwise from `KG_AUTH_TOKEN`:

    token           what clients authenticate with (stdin only)
    ip, port        where to listen; port 0 takes a free one. Default 127.0.0.1, 0
    kernel_id       a kernel to start at once under this id (no secret). Default: none
    kernel_python   the interpreter of the kernels. Default: this one
    environment     variables to set (a string) or remove (null) in the kernels
    root            a directory of our own: holds work/ and is removed at the end. Default: none, works where it is
    parent          the process id to end with. Default: 0, none. With it, stdin's end or a line on it ends us too
    log_limit       bytes: stderr, where it is a file, is emptied when it has grown past that. Default: 0, never

It answers with JSON lines on stdout: `{"port": ..., "process_id": ...}` when it serves, or `{"error": ..., "missing": ...}`.
What depends on the version of the gateway is guarded: with another version it starts too, only slower.
"""

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

MAXIMUM_MESSAGE = 256 * 1024 * 1024
# Checkers of formats that nothing here has; jsonschema does without them. The first alone takes a second to import.
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


def read_configuration():
    if len(sys.argv) > 1:
        configuration = json.loads(sys.argv[1])
    else:
        # Unbuffered: what follows the line belongs to the watcher.
        line = b""
        while not line.endswith(b"\n"):
            piece = os.read(0, 1)
            if not piece:
                raise SystemExit("bootstrap: stdin ended before the configuration")
            line += piece
        configuration = json.loads(line)
    token = os.environ.pop("KG_AUTH_TOKEN", "")
    configuration.setdefault("token", token)
    return configuration


class Report:
    """The line that tells our starter how it went; stdout itself then becomes stderr."""

    def __init__(self):
        self.descriptor = os.dup(1)
        os.dup2(2, 1)

    def send(self, **fields):
        with contextlib.suppress(OSError):
            os.write(self.descriptor, json.dumps(fields).encode() + b"\n")

    def close(self):
        os.close(self.descriptor)


class Processes:
    """The kernels and whatever they start: none outlives us."""

    def __init__(self):
        self.process_id = os.getpid()
        self.kernels = set()
        self.prctl = None
        if sys.platform == "linux":
            with contextlib.suppress(Exception):
                import ctypes

                self.prctl = ctypes.CDLL(None, use_errno=True).prctl
                # Orphans become our children: then walking our descendants finds them all.
                self.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def die_with_parent(self):
        """In a kernel's process, before its program: ends with us even if we are killed with -9."""
        if self.prctl is not None:
            self.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self.process_id:
                os._exit(1)

    @staticmethod
    def table():
        """(process id, parent, session or process group, state) of every process."""
        if os.path.isdir("/proc/self"):
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    with contextlib.suppress(OSError, ValueError, IndexError):
                        with open("/proc/" + entry + "/stat", "rb") as file:
                            # The command's name stands in parentheses and may hold anything.
                            fields = file.read().rpartition(b")")[2].split()
                        yield int(entry), int(fields[1]), int(fields[3]), fields[0].decode()
        else:
            listing = subprocess.run(
                ["ps", "-A", "-o", "pid=,ppid=,pgid=,state="], stdout=subprocess.PIPE, check=False
            )
            for row in listing.stdout.decode(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    process_id, parent, group, state = row.split(None, 3)
                    yield int(process_id), int(parent), int(group), state

    def descendants(self):
        rows = list(self.table())
        found, size = {self.process_id}, 0
        while len(found) != size:
            size = len(found)
            found.update(row[0] for row in rows if row[1] in found or row[2] in self.kernels)
        found.discard(self.process_id)
        return [row[0] for row in rows if row[0] in found and not row[3].startswith("Z")]

    def kill_all(self, seconds=2.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            remaining = self.descendants()
            if not remaining:
                return
            for process_id in remaining:
                with contextlib.suppress(OSError):
                    os.kill(process_id, signal.SIGKILL)
            time.sleep(0.005)

    def reap_orphans(self):
        """Orphans that ended are ours to wait for; a kernel that ended is for its manager."""
        if not hasattr(os, "waitid"):
            return
        with contextlib.suppress(OSError):
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None or ended.si_pid in self.kernels:
                    return
                os.waitpid(ended.si_pid, os.WNOHANG)


class Watcher(threading.Thread):
    """Ends us when our starter says so or is gone, whatever the event loop is busy with."""

    def __init__(self, configuration, processes):
        super().__init__(name="watcher", daemon=True)
        self.parent = int(configuration.get("parent") or 0)
        self.root = configuration.get("root")
        self.log_limit = int(configuration.get("log_limit") or 0)
        self.processes = processes
        self.lock = threading.Lock()

    def run(self):
        poll = select.poll()
        descriptor = None
        if self.parent:
            poll.register(0, select.POLLIN | select.POLLHUP)
            # A fork of our parent may hold the other end of stdin open: watch the parent itself too.
            with contextlib.suppress(AttributeError, OSError):
                descriptor = os.pidfd_open(self.parent)
                poll.register(descriptor, select.POLLIN)
        while True:
            ready = poll.poll(500)
            if self.parent and (ready or os.getppid() != self.parent):
                self.end()
            self.processes.reap_orphans()
            if self.log_limit:
                with contextlib.suppress(OSError):
                    if os.fstat(2).st_size > self.log_limit:
                        os.ftruncate(2, 0)

    def end(self, *_):
        """Takes everything down, this process last. Does not return."""
        if self.lock.acquire(blocking=False):
            try:
                self.processes.kill_all()
                if self.root:
                    os.chdir("/")
                    shutil.rmtree(self.root, ignore_errors=True)
            finally:
                os._exit(0)
        while True:
            time.sleep(1)


class EarlyKernel:
    """A kernel's process that starts beside the gateway's imports; the gateway's manager then adopts it."""

    def __init__(self, configuration, processes, runtime):
        self.kernel_id = configuration["kernel_id"]
        self.command = [
            configuration.get("kernel_python") or sys.executable,
            "-m",
            "ipykernel_launcher",
            "-f",
        ]
        self.file = os.path.join(runtime, "kernel-" + self.kernel_id + ".json")
        self.processes = processes
        self.process = None
        self.connection = {
            "signature_scheme": "hmac-sha256",
            "key": os.urandom(32).hex(),
            "kernel_name": "python3",
            "jupyter_session": "",
        }
        names = ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port")
        address = os.path.splitext(self.file)[0]
        if len(address.encode()) < 90:
            # Sockets in a directory of ours: no port to collide over, no stranger to connect.
            self.connection.update(
                transport="ipc", ip=address, **{name: i + 1 for i, name in enumerate(names)}
            )
        else:
            with contextlib.ExitStack() as stack:
                for name in names:
                    listener = stack.enter_context(socket.socket())
                    listener.bind(("127.0.0.1", 0))
                    self.connection[name] = listener.getsockname()[1]
            self.connection.update(transport="tcp", ip="127.0.0.1")

    def start(self):
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            json.dump(self.connection, file)
        self.process = subprocess.Popen(
            self.command + [self.file],
            stdin=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=self.processes.die_with_parent,
            env=dict(os.environ, KERNEL_GATEWAY="1", JPY_PARENT_PID=str(os.getpid())),
        )
        self.processes.kernels.add(self.process.pid)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process = None
        os.unlink(self.file)


def tune_provisioner(early, processes):
    """Lets the manager adopt the early kernel, and ties every kernel's life to ours."""
    from jupyter_client.provisioning import LocalProvisioner

    pre_launch, launch_kernel = LocalProvisioner.pre_launch, LocalProvisioner.launch_kernel

    async def pre_launch_adopting(self, **options):
        if early is not None and early.process is not None and self.kernel_id == early.kernel_id:
            try:
                self.parent.load_connection_info(dict(early.connection, key=early.connection["key"].encode()))
                self.parent._connection_file_written = True
                self.ports_cached = True
            except Exception:
                early.stop()
                raise
        return await pre_launch(self, **options)

    async def launch_kernel_adopting(self, cmd, **options):
        if early is not None and early.process is not None and self.kernel_id == early.kernel_id:
            self.process, early.process = early.process, None
            self.pid = self.pgid = self.process.pid
            self.cwd = options.get("cwd", os.getcwd())
            return self.connection_info
        options.setdefault("preexec_fn", processes.die_with_parent)
        information = await launch_kernel(self, cmd, **options)
        processes.kernels.add(self.pid)
        return information

    LocalProvisioner.pre_launch = pre_launch_adopting
    LocalProvisioner.launch_kernel = launch_kernel_adopting


def tune_websocket():
    """Small writes go out at once: with Nagle's algorithm an execution takes 40 ms more."""
    from jupyter_server.services.kernels.websocket import KernelWebsocketHandler

    opened = KernelWebsocketHandler.open

    async def open_without_delay(self, *arguments, **options):
        self.set_nodelay(True)
        return await opened(self, *arguments, **options)

    KernelWebsocketHandler.open = open_without_delay


def tune_nudge():
    """The first retry of the probe of a new kernel comes after 20 ms, not after half a second."""
    from jupyter_server.services.kernels.connection import channels

    original = channels.IOLoop

    class ImpatientLoop:
        def __init__(self, loop):
            self.loop = loop

        def __getattr__(self, name):
            return getattr(self.loop, name)

        def call_later(self, delay, callback, *arguments, **options):
            if getattr(callback, "__name__", "") == "nudge" and arguments:
                delay = min(delay, 0.02 * 1.5 ** arguments[0])
            return self.loop.call_later(delay, callback, *arguments, **options)

    class ImpatientIOLoop:
        @staticmethod
        def current(*arguments, **options):
            return ImpatientLoop(original.current(*arguments, **options))

    channels.IOLoop = ImpatientIOLoop


class Deferred(types.ModuleType):
    """Stands in for a module of which only this much is used; anything else brings the module itself."""

    def __init__(self, name, **attributes):
        super().__init__(name)
        self.__path__ = importlib.util.find_spec(name).submodule_search_locations or []
        self.__dict__.update(attributes)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class NoEvents:
    """For jupyter_events.EventLogger: nobody listens to the gateway's events, and their schemas take time."""

    def __init__(self, **_):
        pass

    def register_event_schema(self, *_):
        pass

    def emit(self, **_):
        pass


def import_gateway():
    """Imports the gateway without what it does not use here: half of the time that it takes."""
    before = set(sys.modules)
    try:
        for name in UNUSED_MODULES:
            sys.modules.setdefault(name, None)
        for module in (
            Deferred("nbformat"),
            Deferred("jupyter_server.serverapp", random_ports=lambda port, _: [port]),
            Deferred("jupyter_events", EventLogger=NoEvents),
            Deferred("jupyter_events.schema_registry", SchemaRegistryException=Exception),
        ):
            sys.modules.setdefault(module.__name__, module)
        from kernel_gateway.gatewayapp import KernelGatewayApp
    except Exception:
        # Another version needs more of them.
        for name in set(sys.modules) - before:
            del sys.modules[name]
        sys.modules[UNUSED_MODULES[0]] = None
        from kernel_gateway.gatewayapp import KernelGatewayApp
    return KernelGatewayApp


def kernel_command(configuration):
    return [configuration.get("kernel_python") or sys.executable, "-m", "ipykernel_launcher", "-f"]


def write_kernel_specification(configuration, runtime):
    """The only kernel there is. Looking for others would import IPython for its directory, and take 0.1 s."""
    directory = os.path.join(runtime, "specifications")
    os.makedirs(os.path.join(directory, "python3"))
    specification = {
        "argv": [*kernel_command(configuration), "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    with open(os.path.join(directory, "python3", "kernel.json"), "w") as file:
        json.dump(specification, file)
    return directory


def build_application(configuration, listener, runtime):
    KernelGatewayApp = import_gateway()
    from tornado.httpserver import HTTPServer
    from traitlets.config import Config

    settings = Config()
    # Without this, output past 1 MB/s is dropped, results and errors with it.
    settings.ZMQChannelsWebsocketConnection.limit_rate = False
    settings.KernelRestarter.time_to_dead = 0.1
    # Ports that change would cut the client's open websocket off from the restarted kernel.
    settings.KernelRestarter.random_ports_until_alive = False
    settings.JupyterWebsocketPersonality.list_kernels = True
    settings.KernelGatewayApp.log_level = 30

    application = KernelGatewayApp.instance(
        config=settings,
        auth_token=configuration["token"],
        ip=listener.getsockname()[0],
        port=listener.getsockname()[1],
    )
    application.init_signal = lambda: None
    application.initialize(argv=[], new_httpserver=False)
    application.kernel_spec_manager.kernel_dirs = [write_kernel_specification(configuration, runtime)]
    application.web_app.settings["websocket_max_message_size"] = MAXIMUM_MESSAGE
    application.http_server = HTTPServer(application.web_app, max_buffer_size=2 * MAXIMUM_MESSAGE)
    application.http_server.add_sockets([listener])
    with contextlib.suppress(Exception):
        import zmq

        # A kernel that is not yet there is looked for each 10 ms, not each 100 ms.
        application.kernel_manager.context.setsockopt(zmq.RECONNECT_IVL, 10)
    return application


def serve(configuration, report, processes, watcher):
    root = configuration.get("root")
    # The current directory may hold files of the agent's: nothing is imported from there.
    if sys.path and sys.path[0] in ("", os.path.dirname(os.path.abspath(sys.argv[0]))):
        del sys.path[0]
    runtime = os.path.join(root, "runtime") if root else tempfile.mkdtemp(prefix="kernels-")
    os.makedirs(runtime, mode=0o700, exist_ok=True)
    os.environ["JUPYTER_RUNTIME_DIR"] = runtime
    if root:
        os.environ["JUPYTER_CONFIG_DIR"] = os.path.join(root, "configuration")
        os.environ["JUPYTER_NO_CONFIG"] = "1"
        os.makedirs(os.path.join(root, "work"), exist_ok=True)
        os.chdir(os.path.join(root, "work"))
    for name, value in (configuration.get("environment") or {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    listener = socket.socket(socket.AF_INET6 if ":" in configuration.get("ip", "") else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((configuration.get("ip") or "127.0.0.1", int(configuration.get("port") or 0)))
    # Clients that come early wait in the backlog instead of trying again and again.
    listener.listen(128)
    listener.setblocking(False)

    early = None
    if configuration.get("kernel_id"):
        early = EarlyKernel(configuration, processes, runtime)
        early.start()

    application = build_application(configuration, listener, runtime)
    for tune in (lambda: tune_provisioner(early, processes), tune_websocket, tune_nudge):
        try:
            tune()
        except Exception as error:
            print("bootstrap: this gateway can't be tuned: %r" % (error,), file=sys.stderr)

    async def start_kernel():
        if early is not None:
            await application.kernel_manager.start_kernel(kernel_id=early.kernel_id)
            if early.process is not None:
                early.stop()
        report.send(
            port=listener.getsockname()[1], process_id=os.getpid(), kernel_id=configuration.get("kernel_id")
        )
        report.close()

    def started(future):
        if future.exception() is not None:
            report.send(error="the kernel did not start: %s" % (future.exception(),))
            watcher.end()

    application.io_loop.add_callback(
        lambda: application.io_loop.add_future(__import__("asyncio").ensure_future(start_kernel()), started)
    )
    application.io_loop.start()


def main():
    configuration = read_configuration()
    report = Report()
    processes = Processes()
    watcher = Watcher(configuration, processes)
    signal.signal(signal.SIGTERM, watcher.end)
    # Not SIG_IGN, which the kernels would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    watcher.start()
    try:
        serve(configuration, report, processes, watcher)
    except ImportError as error:
        report.send(error=str(error), missing=error.name)
        raise
    except Exception as error:
        report.send(error="%s: %s" % (type(error).__name__, error))
        raise
    finally:
        processes.kill_all()


if __name__ == "__main__":
    main()
