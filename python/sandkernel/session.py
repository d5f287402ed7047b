"""A kernel behind a gateway, for any framework."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from sandkernel import _sandkernel
from sandkernel.callbacks import Callbacks, attend, attend_in_loop
from sandkernel.exceptions import ConfigurationError, ForkError

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from sandkernel._sandkernel import Execution, ExecutionStream, InputRequest, Result
    from sandkernel.files import Files

__all__ = ["Session"]

MEBIBYTE = 1024 * 1024

Authorization = Literal["token", "bearer", "query"]
"""How a gateway's token travels; see `Session.connect`."""


class ConnectOptions(TypedDict, total=False):
    """The keyword arguments of `Session.connect`, which documents them."""

    authorization: Authorization
    kernel_id: str | None
    owns_kernel: bool
    kernel_name: str | None
    ca_certificates: str | os.PathLike[str] | None
    allow_plain_http: bool
    connect_timeout: float
    timeout: float | None
    interrupt_grace: float
    dead_peer_timeout: float
    reconnect_timeout: float
    max_output_bytes: int
    max_result_bytes: int


class Arguments(TypedDict):
    """What the extension module takes, all of it given."""

    url: str
    token: str | None
    authorization: str
    kernel_id: str | None
    owns_kernel: bool
    kernel_name: str | None
    extra_ca_pem: bytes | None
    allow_plain_http: bool
    connect_timeout: float
    timeout: float
    interrupt_grace: float
    dead_peer_timeout: float
    reconnect_timeout: float
    max_output_bytes: int
    max_result_bytes: int


def _arguments(
    url: str,
    token: str | None = None,
    *,
    authorization: Authorization = "token",
    kernel_id: str | None = None,
    owns_kernel: bool = False,
    kernel_name: str | None = None,
    ca_certificates: str | os.PathLike[str] | None = None,
    allow_plain_http: bool = False,
    connect_timeout: float = 60.0,
    timeout: float | None = None,
    interrupt_grace: float = 5.0,
    dead_peer_timeout: float = 15.0,
    reconnect_timeout: float = 5.0,
    max_output_bytes: int = 64 * MEBIBYTE,
    max_result_bytes: int = 256 * MEBIBYTE,
) -> Arguments:
    if not isinstance(url, str):
        raise ConfigurationError(f"the gateway's url must be a string, not {type(url).__name__}")
    if token is not None and not isinstance(token, str):
        raise ConfigurationError(f"the gateway's token must be a string, not {type(token).__name__}")
    if not isinstance(authorization, str):
        raise ConfigurationError(f"authorization must be a string, not {type(authorization).__name__}")
    extra_ca_pem = None
    if ca_certificates is not None:
        try:
            extra_ca_pem = Path(ca_certificates).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"ca_certificates={str(ca_certificates)!r} can't be read: {error}"
            ) from error
    if max_output_bytes < 0 or max_result_bytes < 0:
        raise ConfigurationError("max_output_bytes and max_result_bytes can't be negative")
    return {
        "url": url,
        "token": token,
        "authorization": authorization,
        "kernel_id": kernel_id,
        "owns_kernel": owns_kernel,
        "kernel_name": kernel_name,
        "extra_ca_pem": extra_ca_pem,
        "allow_plain_http": allow_plain_http,
        "connect_timeout": connect_timeout,
        "timeout": float("inf") if timeout is None else timeout,
        "interrupt_grace": interrupt_grace,
        "dead_peer_timeout": dead_peer_timeout,
        "reconnect_timeout": reconnect_timeout,
        "max_output_bytes": max_output_bytes,
        "max_result_bytes": max_result_bytes,
    }


def _check(code: str, buffers: Sequence[bytes | bytearray]) -> None:
    if not isinstance(code, str):
        raise ConfigurationError(f"code must be a string, not {type(code).__name__}")
    try:
        code.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"code is not valid Unicode: {error}") from None
    for buffer in buffers:
        if not isinstance(buffer, (bytes, bytearray)):
            raise ConfigurationError(f"buffers are bytes or bytearrays, not {type(buffer).__name__}")


class Session:
    """A kernel, and an open connection to it.

    Executions are served one after the other, in the order in which they were asked for, whichever threads
    and tasks ask. An error that the code raises is data (`Execution.error`); what breaks underneath raises an
    error of `sandkernel.exceptions`. Use it as a context manager, or call `close()`; a session that is
    garbage collected, or open when the interpreter exits, closes by itself.

    In a process forked off its owner a session can't be used: every call raises `ForkError`, but for `close`,
    which does nothing there.
    """

    __slots__ = ("__weakref__", "_session", "_timeout")

    _session: _sandkernel.Session
    _timeout: float | None

    def __init__(self) -> None:
        raise TypeError(
            "open a session with Session.connect(url, token) or await Session.aconnect(url, token)"
        )

    @classmethod
    def _wrap(cls, session: _sandkernel.Session, timeout: float | None) -> Self:
        self = cls.__new__(cls)
        self._session, self._timeout = session, timeout
        return self

    @classmethod
    def connect(
        cls,
        url: str,
        token: str | None = None,
        *,
        authorization: Authorization = "token",
        kernel_id: str | None = None,
        owns_kernel: bool = False,
        kernel_name: str | None = None,
        ca_certificates: str | os.PathLike[str] | None = None,
        allow_plain_http: bool = False,
        connect_timeout: float = 60.0,
        timeout: float | None = None,
        interrupt_grace: float = 5.0,
        dead_peer_timeout: float = 15.0,
        reconnect_timeout: float = 5.0,
        max_output_bytes: int = 64 * MEBIBYTE,
        max_result_bytes: int = 256 * MEBIBYTE,
    ) -> Self:
        """Waits for a gateway to be ready, and opens a session on one of its kernels.

        The proxies of the environment are honoured (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in
        upper or lower case), but for hosts that are this machine; the websocket goes by HTTP CONNECT, also to
        an `http` gateway. Redirects are never followed.

        Args:
            url: The base URL of a kernel gateway or Jupyter server, `http` or `https`, without a token.
            token: The gateway's token. Default: none.
            authorization: How the token travels: "token", in a header `Authorization: token …`, as kernel
                gateways and Jupyter servers take it; "bearer", in a header `Authorization: Bearer …`;
                "query", as `?token=…`, for a server that takes it nowhere else: such a server, and proxies
                before it, may write it into their logs. Default: "token".
            kernel_id: Attach to this kernel, which `close()` then leaves running. Default: a kernel is
                created, and deleted by `close()`.
            owns_kernel: Whether `kernel_id` is nobody else's. Then it is restarted where it does not run code
                any more, and another one takes its place where the gateway has it no more; otherwise these
                are `KernelUnresponsive` and `KernelNotFoundError`.
            kernel_name: The kernel spec of a created kernel. Default: the gateway's own default.
            ca_certificates: A PEM file with root certificates to trust beside the platform's.
            allow_plain_http: Whether the token may travel unencrypted over `http://` to any host. Default:
                only within a local network, which is this machine, private and link-local addresses (10/8,
                172.16/12, 192.168/16, 169.254/16, fc00::/7, fe80::/10), names without a dot (containers, a
                LAN), and names that end in `.internal`, `.local` or `.home.arpa`.
            connect_timeout: Seconds until the gateway must be ready, and then the kernel.
            timeout: Seconds that an execution may take which names no timeout of its own. Default: no limit.
            interrupt_grace: Seconds that code has to end after an interrupt, until the kernel is restarted.
            dead_peer_timeout: Seconds that the gateway may stay silent, pings included.
            reconnect_timeout: Seconds that a lost connection may take to come back while code runs. On a
                gateway that Sandkernel started, the execution then is as if nothing had happened; any other
                one keeps no journal of what was on its way, and `ConnectionLost` is raised.
            max_output_bytes: How much text of stdout and stderr an `Execution` keeps; past it the middle is
                left out and counted.
            max_result_bytes: The same for results and tracebacks. The larger of the two, and 16 MiB, is also
                the largest message that is taken. Past it, a gateway that Sandkernel started sends how a
                result begins; on any other one `ConnectionLost` is raised.

        Raises:
            ConfigurationError: An argument can't work, the token would travel unencrypted, or the proxy of
                the environment is not of HTTP.
            BootError: The gateway was not ready in time; it never will be: `CertificateError`,
                `UnresolvableError`.
            AuthError: The gateway refuses the token.
            KernelNotFoundError: It has no kernel `kernel_id`.
            GatewayError: What answers is no gateway, or it refuses to create a kernel.
        """
        return cls._wrap(
            _sandkernel.Session.connect(
                _arguments(
                    url,
                    token,
                    authorization=authorization,
                    kernel_id=kernel_id,
                    owns_kernel=owns_kernel,
                    kernel_name=kernel_name,
                    ca_certificates=ca_certificates,
                    allow_plain_http=allow_plain_http,
                    connect_timeout=connect_timeout,
                    timeout=timeout,
                    interrupt_grace=interrupt_grace,
                    dead_peer_timeout=dead_peer_timeout,
                    reconnect_timeout=reconnect_timeout,
                    max_output_bytes=max_output_bytes,
                    max_result_bytes=max_result_bytes,
                )
            ),
            timeout,
        )

    @classmethod
    async def aconnect(cls, url: str, token: str | None = None, **options: Unpack[ConnectOptions]) -> Self:
        """`connect`, awaited, with the same arguments. Cancelling it leaves no kernel behind."""
        session = await _sandkernel.Session.aconnect(_arguments(url, token, **options))
        return cls._wrap(session, options.get("timeout"))

    def _limit(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else timeout

    @property
    def kernel_id(self) -> str:
        """The kernel's id on its gateway.

        A session that created its kernel creates another one, with another id, for the next execution or
        restart when the gateway has the kernel no more, for example because it died too often.
        """
        return self._session.kernel_id

    @property
    def url(self) -> str:
        """The gateway's base URL. It holds no token."""
        return self._session.url

    @property
    def generation(self) -> int:
        """A number that changes whenever the kernel's state was found lost: it was restarted, or it died."""
        return self._session.generation

    @property
    def kernel_name(self) -> str | None:
        """The name of the kernel's specification, such as `"python3"`; `None` where its gateway is silent."""
        return self._session.kernel_name

    @property
    def language(self) -> str | None:
        """The language that the kernel runs, such as `"python"` or `"bash"`, as the kernel itself says.

        At most 64 characters, none of them a control character; `None` where the kernel does not say.
        """
        return self._session.language

    @property
    def resumable(self) -> bool:
        """Whether an execution goes on where it was when its connection is cut.

        It does where the gateway keeps what is missed, as those that Sandkernel starts do, and where the
        kernel does, as those of executors do on any other gateway.
        """
        return self._session.resumable

    def rely_on_record(self, generation: int) -> None:
        """Note that a kernel keeps what it sends, as those of executors do.

        Args:
            generation: The `generation` of the kernel that does. One that comes after it is not relied on.
        """
        self._session.rely_on_record(generation)

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._session.closed

    def run(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        generation: int | None = None,
        buffers: Sequence[bytes | bytearray] = (),
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
        on_input: Callable[[InputRequest], str] | None = None,
        on_request: Callable[[InputRequest], object] | None = None,
    ) -> Execution:
        """Runs code to its end.

        Ctrl-C interrupts the kernel too.

        Args:
            code: Python, or whatever the kernel speaks.
            timeout: Seconds that it may take, a connection that has to be made included. Then it is
                interrupted, and if that does not help within `interrupt_grace`, the kernel is restarted. A
                gateway that does not even take the interrupt is not waited for: `ExecutionTimeout` comes on
                time, and the next execution waits for the end of this one, within its own timeout. Default:
                the session's; `math.inf`: no limit.
            silent: Run it without results, history or execution count.
            store_history: Whether it enters the kernel's history, and counts.
            generation: The `generation` that the code was written for. With another it is not run, since the
                state that it relies on is gone. Default: it runs with any.
            buffers: Binary attachments of the request, of whatever size the gateway takes (a stock one: 10
                MiB in all), for code that looks for them: in ipykernel as
                `get_ipython().kernel.get_parent("shell")["buffers"]`, a list of memoryviews.
            on_stdout: Called with text as it is written to standard output, in this thread. A callback that
                is slow is not told what it did not get within `timeout` of the first that it got: the logger
                "sandkernel" says how much that was, and the execution has it.
            on_stderr: The same for standard error.
            on_result: Called with each result as it is displayed.
            on_input: Called with an `InputRequest` when the code calls `input()` or `getpass.getpass()`,
                which then return what it returns; where it raises an error, they raise `EOFError`. It is
                called in a thread of its own, which nobody waits for when the execution ends, by its timeout
                too. Default: they raise `StdinNotImplementedError`.
            on_request: Called likewise, for protocols of your own on the kernel's stdin channel, several at a
                time where they ask so. It answers by `request.reply`, and `input()` fails as without
                `on_input`.

        Raises:
            ConfigurationError: `code` is not a string, `buffers` are not bytes, `timeout` is not above 0, or
                there are both `on_input` and `on_request`.
            ExecutionTimeout: It took longer than its timeout.
            KernelDied: The kernel's process ended.
            StateLost: The kernel is not of that `generation` any more; the code was not run.
            KernelUnresponsive: The kernel does not run code any more, and is not this session's to restart.
            ConnectionLost: The connection to the kernel broke.
            ClosedError: The session is closed, or was closed meanwhile.
            ForkError: The session belongs to another process.
            Exception: What a callback raised, once the execution has ended, which it has as its `.execution`.
        """
        _check(code, buffers)
        callbacks = Callbacks(
            on_stdout, on_stderr, on_result, on_input, on_request, timeout=self._limit(timeout)
        )
        if not callbacks:
            return self._session.run(code, timeout, silent, store_history, generation, buffers)
        stream = self._session.stream(
            code, timeout, silent, store_history, generation, callbacks.allow_input, buffers
        )
        return attend(stream, callbacks)

    async def arun(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        generation: int | None = None,
        buffers: Sequence[bytes | bytearray] = (),
        on_stdout: Callable[[str], object] | None = None,
        on_stderr: Callable[[str], object] | None = None,
        on_result: Callable[[Result], object] | None = None,
        on_input: Callable[[InputRequest], str | Awaitable[str]] | None = None,
        on_request: Callable[[InputRequest], object] | None = None,
    ) -> Execution:
        """`run`, awaited. Cancelling it interrupts the kernel.

        The callbacks are called in the event loop, but for `on_request` and an `on_input` that is no
        coroutine function: these have threads of their own.
        """
        _check(code, buffers)
        callbacks = Callbacks(
            on_stdout, on_stderr, on_result, on_input, on_request, timeout=self._limit(timeout)
        )
        if not callbacks:
            return await self._session.arun(code, timeout, silent, store_history, generation, buffers)
        stream = self._session.stream(
            code, timeout, silent, store_history, generation, callbacks.allow_input, buffers
        )
        return await attend_in_loop(stream, callbacks)

    def stream(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        generation: int | None = None,
        buffers: Sequence[bytes | bytearray] = (),
        allow_input: bool = False,
    ) -> ExecutionStream:
        """Runs code, and iterates over what happens while it runs.

        The code runs whether or not somebody looks; events that nobody takes are kept up to
        `max_output_bytes` of output and `max_result_bytes` of results, then a `Skipped` stands for the rest,
        and the execution at the end has everything all the same.

        Args:
            code: As for `run`.
            timeout: As for `run`.
            silent: As for `run`.
            store_history: As for `run`.
            generation: As for `run`.
            buffers: As for `run`.
            allow_input: Whether the code may call `input()`: then there is an `InputRequest`, and the code
                waits until its `reply` is called.

        Returns:
            An iterator over `Output`, `Result`, `ExecutionError`, `ClearOutput`, `InputRequest` and
            `Skipped`, which has the `.execution` when it has ended. Closing or dropping it earlier interrupts
            the kernel. Iterating raises as `run` does.
        """
        _check(code, buffers)
        return self._session.stream(code, timeout, silent, store_history, generation, allow_input, buffers)

    def astream(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        generation: int | None = None,
        buffers: Sequence[bytes | bytearray] = (),
        allow_input: bool = False,
    ) -> ExecutionStream:
        """`stream`, for `async for`."""
        _check(code, buffers)
        return self._session.stream(code, timeout, silent, store_history, generation, allow_input, buffers)

    @property
    def files(self) -> Files:
        """The files of the machine that the kernel runs on, as its code sees them.

        What is done with them is done by the kernel, between executions. Where the kernel does not run
        Python, each call raises `UnsupportedKernelError`.
        """
        from sandkernel.files import Files  # noqa: PLC0415 most have no use for it
        from sandkernel.languages import FILES, in_python  # noqa: PLC0415
        from sandkernel.plans import adrive, drive  # noqa: PLC0415

        return Files(
            lambda plan: drive(in_python(self, FILES, plan), self),
            lambda plan: adrive(in_python(self, FILES, plan), self),
        )

    def interrupt(self) -> None:
        """Interrupts whatever the kernel runs: there it looks like Ctrl-C.

        Raises:
            GatewayError: The gateway refuses.
            KernelNotFoundError: The kernel is gone.
        """
        self._session.interrupt()

    async def ainterrupt(self) -> None:
        """`interrupt`, awaited."""
        await self._session.ainterrupt()

    def restart(self) -> None:
        """Restarts the kernel: its state is gone, and an execution under way ends with `KernelDied`.

        Raises:
            GatewayError: The gateway refuses.
            KernelNotFoundError: The kernel is gone.
        """
        self._session.restart()

    async def arestart(self) -> None:
        """`restart`, awaited."""
        await self._session.arestart()

    def disconnect(self) -> None:
        """Gives the connection up, for who knows otherwise that the gateway is gone. Waits for nothing.

        An execution under way ends with `ConnectionLost`. A later one connects anew.
        """
        self._session.disconnect()

    def close(self) -> None:
        """Closes the connection, and deletes the kernel if it was created here. A second call does nothing.

        An execution under way ends with `ClosedError`. In a forked child it does nothing: the session is the
        parent's.
        """
        with suppress(ForkError):
            self._session.close()

    async def aclose(self) -> None:
        """`close`, awaited."""
        with suppress(ForkError):
            await self._session.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = " (closed)" if self.closed else ""
        return f"<Session of kernel {self.kernel_id} at {self.url}{state}>"
