"""What an execution does, told to who looks on while it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text
from smolagents.monitoring import LogLevel

from sandkernel._sandkernel import printable
from sandkernel.callbacks import GRACE_SECONDS
from sandkernel.sandbox.runner import is_public

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandkernel._sandkernel import Result
    from sandkernel.plans import Deadline

__all__ = ["Audience"]

# What is kept of a line that does not end.
_LINE_LENGTH = 10_000


class Audience:
    """Those who look on at one execution.

    What one of them raises does not end the execution: it is logged, and that one is not called again.

    Args:
        on_stdout: Called with text as it is written to standard output.
        on_stderr: The same for standard error.
        on_result: Called with each result as it is displayed.
        logger: Is told the lines, where it is to be told.
        stream_logs: Whether it is.
        deadline: When the step has to have ended: what nobody was told a moment later is not told any more.
    """

    def __init__(
        self,
        on_stdout: Callable[[str], object] | None,
        on_stderr: Callable[[str], object] | None,
        on_result: Callable[[Result], object] | None,
        logger: Any,  # noqa: ANN401 smolagents takes several
        *,
        stream_logs: bool,
        deadline: Deadline | None = None,
    ) -> None:
        self._logger = logger
        self._deadline = deadline
        self._late = 0
        names = ("stdout", "stderr") if stream_logs else ()
        self._lines = {name: _Lines(logger, self._is_late) for name in names}
        self._listeners: dict[str, list[Callable[[Any], object] | None]] = {
            "stdout": [on_stdout, self._log_stdout if stream_logs else None],
            "stderr": [on_stderr, self._log_stderr if stream_logs else None],
            "result": [on_result],
        }

    def __bool__(self) -> bool:
        return any(listener for listeners in self._listeners.values() for listener in listeners)

    def callbacks(self) -> dict[str, Callable[[Any], None]]:
        """Return what `Session.run` takes: nothing where nobody looks on, which is quicker."""
        if not self:
            return {}
        return {
            "on_stdout": lambda text: self._tell("stdout", text),
            "on_stderr": lambda text: self._tell("stderr", text),
            "on_result": self._tell_result,
        }

    def finish(self) -> None:
        """Tell the logger the lines that have no end, and what nobody was told."""
        for lines in self._lines.values():
            lines.finish()
        if self._late and self._deadline is not None:
            message = (
                f"the callbacks, or the logger, were too slow for the time limit of {self._deadline.limit:g} "
                f"s: they were not told {self._late} of the outputs, lines and results, all of which "
                "last_execution has"
            )
            self._logger.log(Text(message), level=LogLevel.ERROR)

    def _tell_result(self, result: Result) -> None:
        if is_public(result):
            self._tell("result", result)

    def _tell(self, name: str, told: object) -> None:
        if self._is_late():
            return
        listeners = self._listeners.get(name, [])
        for place, listener in enumerate(listeners):
            if listener is None:
                continue
            try:
                listener(told)
            except Exception as error:  # noqa: BLE001 whatever it is, the execution goes on
                listeners[place] = None
                reason = printable(f"{type(error).__name__}: {error!s:.500}")
                message = f"on_{name} raised {reason}; it is not called again"
                self._logger.log(Text(message), level=LogLevel.ERROR)

    def _is_late(self) -> bool:
        """Whether it is too late to tell something, which counts as not told then."""
        is_late = self._deadline is not None and self._deadline.remaining < -GRACE_SECONDS
        self._late += is_late
        return is_late

    def _log_stdout(self, text: str) -> None:
        self._lines["stdout"].take(text)

    def _log_stderr(self, text: str) -> None:
        self._lines["stderr"].take(text)


class _Lines:
    """Logs whole lines, each as a terminal would show it in the end: a progress bar is one."""

    def __init__(self, logger: Any, is_late: Callable[[], bool]) -> None:  # noqa: ANN401
        self._logger = logger
        self._is_late = is_late
        self._rest = ""

    def take(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).replace("\r\n", "\n").split("\n")
        self._log(lines)
        # Of a bar that is drawn anew again and again, and of a line without end, only the last part counts.
        self._rest = self._rest[:-1].rpartition("\r")[2] + self._rest[-1:]
        self._rest = self._rest[-_LINE_LENGTH:]

    def finish(self) -> None:
        rest, self._rest = self._rest, ""
        if rest:
            self._log([rest])

    def _log(self, lines: Iterable[str]) -> None:
        for line in lines:
            if self._is_late():
                continue
            shown = printable(line.rstrip("\r").rpartition("\r")[2][-_LINE_LENGTH:])
            # Not as markup: the text is the kernel's.
            self._logger.log(Text(shown), level=LogLevel.INFO)
