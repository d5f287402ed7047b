"""The runs of agents on one executor: each step has the tools of its own agent, and no others.

smolagents tells an executor when a run begins (`send_variables`, `send_tools`) and never when it ends. So the
agent is found in the frames that call, as in `agents.py`, and whether its run is under way, in those of the
other threads: nobody looks there as long as an executor has one agent.
"""

from __future__ import annotations

import inspect
import sys
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from sandkernel.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import CodeType, FrameType

__all__ = ["Runs"]


class Runs:
    """Knows which agents have runs on an executor, with which tools."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._tools: WeakKeyDictionary[Any, Mapping[str, Any]] = WeakKeyDictionary()
        self._latest: ref[Any] | None = None

    def begin(self) -> Any | None:  # noqa: ANN401 an agent
        """Note that the agent whose `run` calls this method's caller begins a run; return it.

        Raises:
            ConfigurationError: The run of another agent is under way, in another thread.
        """
        agent = _caller(3)
        if agent is not None:
            with self._mutex:
                self._require_alone(agent)
                self._tools.setdefault(agent, {})
                self._latest = ref(agent)
        return agent

    def give(self, agent: Any, tools: Mapping[str, Any]) -> None:  # noqa: ANN401
        """Note the tools of an agent's run."""
        with self._mutex:
            self._tools[agent] = dict(tools)

    def tools_of_step(self) -> Mapping[str, Any] | None:
        """Return the tools of the agent whose step calls this method's caller, where others are there now.

        Raises:
            ConfigurationError: The run of another agent is under way, in another thread.
        """
        if len(self._tools) < 2:  # noqa: PLR2004 one has nobody beside it
            return None
        agent = _caller(3)
        with self._mutex:
            if agent is None or agent not in self._tools or self._latest is None or self._latest() is agent:
                return None
            self._require_alone(agent)
            self._latest = ref(agent)
            return self._tools[agent]

    def _require_alone(self, agent: object) -> None:
        others = [other for other in self._tools if other is not agent]
        if not others:
            return
        for running in _running_elsewhere():
            if any(running is other for other in others):
                name = getattr(running, "name", None) or type(running).__name__
                raise ConfigurationError(
                    f"Another agent ({name}) is running on this executor, and two at once would have each "
                    "other's variables and tools: give each agent an executor of its own, such as one of "
                    "new_kernel()"
                )


def _caller(depth: int) -> Any | None:  # noqa: ANN401 an agent
    getframe = getattr(sys, "_getframe", None)
    return None if getframe is None else _agent_of(getframe(depth), _codes())


def _codes() -> list[CodeType]:
    """Return the code of the methods in which a run is."""
    from smolagents import CodeAgent, MultiStepAgent  # noqa: PLC0415 a cycle while smolagents is imported

    methods = (MultiStepAgent.run, MultiStepAgent._run_stream, CodeAgent._step_stream)  # noqa: SLF001
    # Somebody may have wrapped one, to trace it.
    return [inspect.unwrap(method).__code__ for method in methods]


def _agent_of(frame: FrameType, codes: Sequence[CodeType]) -> Any | None:  # noqa: ANN401 an agent
    return frame.f_locals.get("self") if frame.f_code in codes else None


def _running_elsewhere() -> Iterator[Any]:
    """Return the agents whose runs are under way in other threads."""
    getframes: Callable[[], dict[int, FrameType]] = getattr(sys, "_current_frames", dict)
    codes = _codes()
    for thread, top in getframes().items():
        frame: FrameType | None = top if thread != threading.get_ident() else None
        while frame is not None:
            agent = _agent_of(frame, codes)
            if agent is not None:
                yield agent
            frame = frame.f_back
