"""The extension module. `sandkernel` exports its classes; `Session` there wraps the one here."""

from collections.abc import Awaitable, Sequence
from typing import Any, Literal, TypeAlias, final

from typing_extensions import Self

from sandkernel.session import Arguments

__all__ = [
    "ClearOutput",
    "Execution",
    "ExecutionError",
    "ExecutionStream",
    "InputRequest",
    "Output",
    "Result",
    "Session",
    "Skipped",
    "__version__",
    "overwritten",
    "printable",
    "printable_name",
]

__version__: str

def overwritten(text: str) -> str:
    """Return a text as a terminal shows it: what follows a carriage return is written over what is there.

    So a progress bar is what it was in the end, not a line for each of its steps.
    """

def printable(text: str) -> str:
    r"""Return a text of a kernel's as it may be shown: it can do nothing to a terminal but be read there.

    Escape sequences are left out, `\r\n` is a newline. Newlines and tabs stay. Any other character that
    controls a terminal, or the order in which text is read, is written as its number: `\x07`, `\u202e`.
    """

def printable_name(name: bytes) -> bytes:
    """Return the name of a file, in the file system's encoding, with every such character as its number."""

@final
class Session:
    @staticmethod
    def connect(arguments: Arguments) -> Session: ...
    @staticmethod
    def aconnect(arguments: Arguments) -> Awaitable[Session]: ...
    @property
    def kernel_id(self) -> str: ...
    @property
    def url(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def kernel_name(self) -> str | None: ...
    @property
    def language(self) -> str | None: ...
    @property
    def resumable(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def run(
        self,
        code: str,
        timeout: float | None,
        silent: bool,
        store_history: bool,
        generation: int | None,
        buffers: Sequence[bytes | bytearray],
    ) -> Execution: ...
    def arun(
        self,
        code: str,
        timeout: float | None,
        silent: bool,
        store_history: bool,
        generation: int | None,
        buffers: Sequence[bytes | bytearray],
    ) -> Awaitable[Execution]: ...
    def stream(
        self,
        code: str,
        timeout: float | None,
        silent: bool,
        store_history: bool,
        generation: int | None,
        allow_input: bool,
        buffers: Sequence[bytes | bytearray],
    ) -> ExecutionStream: ...
    def interrupt(self) -> None: ...
    def ainterrupt(self) -> Awaitable[None]: ...
    def restart(self) -> None: ...
    def arestart(self) -> Awaitable[None]: ...
    def rely_on_record(self, generation: int) -> None: ...
    def disconnect(self) -> None: ...
    def close(self) -> None: ...
    def aclose(self) -> Awaitable[None]: ...

@final
class Execution:
    """What came of a piece of code: its output, its results, and the exception that ended it, if one did.

    What is kept is bounded (`max_output_bytes`, `max_result_bytes` of the session): past the bound the head
    and the tail of the output are kept, and a line in between says how much was left out.
    """

    @property
    def stdout(self) -> str:
        """What was written to standard output. Made anew at each access: keep it if it is large."""

    @property
    def stderr(self) -> str:
        """What was written to standard error."""

    @property
    def logs(self) -> str:
        """What was written to both, in order of arrival."""

    @property
    def screen(self) -> str:
        """What of `logs` came after the code last cleared its output (`clear_output`)."""

    @property
    def results(self) -> list[Result]:
        """The value of the last expression and what was displayed, in order of arrival."""

    @property
    def cleared_results(self) -> int:
        """How many of `results`, the first ones, were displayed before the code last cleared its output."""

    @property
    def text(self) -> str | None:
        """The value of the last expression as text, as a console shows it; `None` where there is none."""

    @property
    def error(self) -> ExecutionError | None:
        """The exception that ended the code; `None` where none did."""

    @property
    def execution_count(self) -> int | None:
        """The number that the kernel gave the execution; `None` where it gave none."""

    @property
    def duration(self) -> float:
        """Seconds from the request to the end."""

    @property
    def complete(self) -> bool:
        """Whether everything arrived; `False` for what an `InterruptedExecutionError` carries."""

    @property
    def omitted_output_bytes(self) -> int:
        """How much of stdout and stderr was left out, in bytes of UTF-8."""

    @property
    def omitted_results(self) -> int:
        """How many results, or updates of one, were left out or cut."""

    def _repr_mimebundle_(self, **_options: object) -> dict[str, str]:
        """Return what a notebook shows: output, results and error as text, and pictures that can't run."""

@final
class Result:
    """A result, or something displayed: one thing in several formats."""

    @property
    def kind(self) -> Literal["execute_result", "display_data"]:
        """Whether it is the value of the last expression, or was displayed."""

    @property
    def data(self) -> dict[str, Any]:
        """The MIME bundle: a string for text and for base64, otherwise what the JSON says, parsed.

        Raises:
            PayloadError: Its JSON holds an integer of more digits than Python reads.
        """

    @property
    def mime_types(self) -> list[str]:
        """The names in `data`, of which nothing is parsed."""

    def text_of(self, mime_type: str) -> str | None:
        """What `data` has for a MIME type, where it is a string. Nothing is parsed."""

    def json_of(self, mime_type: str) -> str | None:
        """The JSON of what `data` has for a MIME type, where it is no string. Nothing is parsed."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What the kernel says about the formats."""

    @property
    def display_id(self) -> str | None:
        """By what later updates refer to it; they have been applied here."""

    @property
    def buffers(self) -> list[bytes]:
        """The binary attachments of the message."""

    @property
    def text(self) -> str | None:
        """`text/plain`."""

    @property
    def html(self) -> str | None:
        """`text/html`."""

    @property
    def markdown(self) -> str | None:
        """`text/markdown`."""

    @property
    def latex(self) -> str | None:
        """`text/latex`."""

    @property
    def svg(self) -> str | None:
        """`image/svg+xml`."""

    @property
    def png(self) -> bytes | None:
        """`image/png`, decoded from base64.

        Raises:
            binascii.Error: It is not base64.
        """

    @property
    def jpeg(self) -> bytes | None:
        """`image/jpeg`, decoded from base64.

        Raises:
            binascii.Error: It is not base64.
        """

    @property
    def json(self) -> Any:  # noqa: ANN401 whatever JSON there is
        """`application/json`."""

@final
class ExecutionError:
    """The exception that ended the code: data, since it is the code's."""

    @property
    def name(self) -> str:
        """The exception's type, such as `ZeroDivisionError`; `ExecutionAborted` where nothing ran."""

    @property
    def value(self) -> str:
        """The exception's text, without ANSI escape sequences."""

    @property
    def traceback(self) -> list[str]:
        """The traceback's entries, each of one or more lines, without ANSI escape sequences."""

@final
class Output:
    """Text that the code wrote."""

    @property
    def stream(self) -> Literal["stdout", "stderr"]:
        """Where it was written to."""

    @property
    def text(self) -> str:
        """What was written; several writes may have been merged."""

@final
class ClearOutput:
    """The code asked for its output so far to be cleared. The execution keeps it all the same."""

    @property
    def wait(self) -> bool:
        """Whether only when the next output arrives."""

@final
class Skipped:
    """What nobody took in time is left out here. The execution has it all the same."""

    @property
    def bytes(self) -> int:
        """How much text, in bytes of UTF-8."""

    @property
    def results(self) -> int:
        """How many results, and updates of earlier ones."""

@final
class InputRequest:
    """The code asks for input, and waits for the reply."""

    @property
    def prompt(self) -> str:
        """What to show to whom is asked. It comes from the kernel: trust it no more than the code."""

    @property
    def password(self) -> bool:
        """Whether what is typed should not be shown."""

    @property
    def buffers(self) -> list[bytes]:
        """The binary attachments of the message. Made anew at each access."""

    @property
    def size(self) -> int:
        """How much the prompt and the attachments are, in bytes."""

    @property
    def parsed_size(self) -> int:
        """How many bytes the objects take at most that are made of the first attachment, where it is JSON."""

    @property
    def is_awaited(self) -> bool:
        """Whether the execution is still under way, so that the code may wait for a reply."""

    def reply(self, value: str, buffers: Sequence[bytes] = ...) -> bool:
        """Sends what was typed, from any thread.

        Args:
            value: The text, without the line's end. U+0004 alone is the end of input.
            buffers: Binary attachments, for code that looks for them. A stock gateway resets a connection
                that brings it a message of more than 10 MiB.

        Returns:
            Whether the execution was still under way.

        Raises:
            ForkError: The request belongs to another process.
        """

_Event: TypeAlias = Output | Result | ExecutionError | ClearOutput | InputRequest | Skipped

@final
class ExecutionStream:
    """An execution under way, as an iterator and as an async iterator over its events."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> _Event: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[_Event]: ...
    @property
    def execution(self) -> Execution | None:
        """The whole of it, once the iteration has ended; until then `None`."""

    def close(self) -> None:
        """Cancels the execution if it still runs: the kernel is interrupted."""
