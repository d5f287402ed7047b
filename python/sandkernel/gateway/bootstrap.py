"""Runs a jupyter kernel gateway in this process, tuned, with one kernel already on its way.

It runs as `python -c <the text of program.py>`, on this machine or in an image that has no more than
`jupyter_kernel_gateway` and `ipykernel`, from Python 3.8 on; so this folder imports nothing else of
`sandkernel`.

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

The answer is a JSON line on stdout, as soon as it serves:
`{"port": ..., "process_id": ..., "kernel_id": ..., "confinement": ...}`, or `{"error": ...}`, with
`"missing"` where a module is. What depends on the version of the gateway is guarded: with another version it
starts too, only slower. Where `kernel_id` is null, it took no kernel. `confinement` is "on" where kernels
can't reach processes outside of the sandbox, or "off: " and why they can.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import uuid
from typing import Any, Dict, List

from sandkernel.gateway.imports import import_gateway
from sandkernel.gateway.kernels import (
    EarlyKernel,
    fits_a_socket,
    tune_provisioner,
    write_kernel_specification,
)
from sandkernel.gateway.processes import Processes, Watcher
from sandkernel.gateway.supervision import supervise
from sandkernel.gateway.tuning import tune, tune_nudge, tune_websocket

Configuration = Dict[str, Any]

MAXIMUM_MESSAGE = 256 << 20


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


def tune_activity() -> None:
    """Have the gateway read no more of what kernels publish than it needs."""
    # It needs zmq, which the first kernel's start does not wait for.
    from sandkernel.gateway import activity

    activity.install()


def tune_deaths(processes: Processes, managers: Any) -> None:
    """Have the gateway notice at once that a kernel has died."""
    # It needs tornado, which the first kernel's start does not wait for.
    from sandkernel.gateway import deaths

    deaths.install(processes, managers)


def tune_resuming(web_application: Any) -> None:
    """Let a client that lost its websocket take up where it was."""
    # It builds on classes of the gateway, which is imported by now.
    from sandkernel.gateway import journal

    journal.install(web_application)


def tune_restarts(manager: Any) -> None:
    """Tell over REST how often a kernel was restarted."""
    # It builds on the gateway's client, which is imported by now.
    from sandkernel.gateway import restarts

    restarts.install(manager)


def build_application(
    configuration: Configuration, processes: Processes, listener: socket.socket, runtime: str
) -> Any:
    """The gateway's application, listening."""
    application_class = import_gateway()
    import zmq
    from tornado.httpserver import HTTPServer
    from traitlets.config import Config

    def managers() -> Any:
        return application_class.instance().kernel_manager._kernels.values()

    settings = Config()
    # With a limit, output past 1 MB/s is dropped, results and errors with it.
    settings.ZMQChannelsWebsocketConnection.limit_rate = False
    settings.KernelRestarter.time_to_dead = 3.0 if tune(tune_deaths, processes, managers) else 0.1
    # By default a kernel that dies six times within seconds is given up, as agents' code may well make it.
    settings.KernelRestarter.restart_limit = 1000
    # Whoever restarts a kernel has tried to interrupt it: it is not waited for another five seconds.
    settings.KernelManager.shutdown_wait_time = 1.0
    # What a client misses is in the journal, within a bound; the gateway's own buffer has none.
    settings.MappingKernelManager.buffer_offline_messages = False
    # New ports would cut an open websocket off from its restarted kernel.
    settings.KernelRestarter.random_ports_until_alive = False
    if fits_a_socket(os.path.join(runtime, "kernel-%s-ipc" % uuid.UUID(int=0))):
        settings.KernelManager.transport = "ipc"
    settings.JupyterWebsocketPersonality.list_kernels = True
    settings.KernelGatewayApp.log_level = 30
    settings.KernelGatewayApp.ws_ping_interval = configuration.get("ping_interval", 30)
    ip, port = listener.getsockname()[:2]
    application = application_class.instance(
        config=settings, auth_token=configuration["token"], ip=ip, port=port
    )
    # The signals are the watcher's; the server gets the socket that listens already.
    application.init_signal = application.init_http_server = lambda: None
    with contextlib.suppress(Exception):
        # Without a configuration of the user's, it would make a temporary directory for it, and leave it.
        paths: Any = importlib.import_module("jupyter_core.paths")
        paths._dtemps["jupyter-clean-cfg"] = os.environ["JUPYTER_CONFIG_DIR"]
    application.initialize(argv=[])
    application.kernel_spec_manager.kernel_dirs = [write_kernel_specification(configuration, runtime)]
    application.web_app.settings["websocket_max_message_size"] = MAXIMUM_MESSAGE
    # In milliseconds; by default no less than 30 seconds.
    application.web_app.settings["ws_ping_timeout"] = 3000 * settings.KernelGatewayApp.ws_ping_interval
    application.http_server = HTTPServer(application.web_app, max_buffer_size=2 * MAXIMUM_MESSAGE)
    with contextlib.suppress(Exception):
        # A kernel that is not there yet is looked for each 10 ms, not each 100 ms.
        application.kernel_manager.context.setsockopt(zmq.RECONNECT_IVL, 10)
        # As many messages wait here for a client as in a kernel: by default 1000, then output is dropped.
        publishing: Any = importlib.import_module("sandkernel.gateway.kernel_tuning.publishing")
        application.kernel_manager.context.setsockopt(zmq.RCVHWM, publishing.MESSAGES_KEPT)
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
    application = build_application(configuration, processes, listener, runtime)
    tune(tune_websocket)
    tune(tune_nudge)
    tune(tune_activity)
    tune(tune_resuming, application.web_app)
    tune(tune_restarts, application.kernel_manager)
    is_ours = tune(tune_provisioner, early, processes)
    if not is_ours and early is not None:
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
            state = processes.kernel_states.state() if is_ours else "off: kernels are started another way"
            report.send(port=port, process_id=os.getpid(), kernel_id=kernel_id, confinement=state)
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
    processes = None
    if configuration.get("parent") and sys.platform == "linux":
        processes = supervise(configuration, report.descriptor)
    processes = processes or Processes()
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
