"""The logger that the user gives an executor."""

from __future__ import annotations

import logging
from typing import Any

from smolagents.monitoring import AgentLogger, LogLevel

from sandkernel.exceptions import ConfigurationError

__all__ = ["logger_of"]


def logger_of(given: Any) -> Any:  # noqa: ANN401 smolagents takes several
    """Return the logger that was given, or a silent one for `None`.

    Raises:
        ConfigurationError: It can't be told anything in the way that smolagents has, as one of the standard
            library.
    """
    if given is None:
        return AgentLogger(level=LogLevel.OFF)
    if isinstance(given, logging.Logger) or not callable(getattr(given, "log", None)):
        raise ConfigurationError(
            f"logger is a logger of smolagents, such as smolagents.monitoring.AgentLogger(), not "
            f"{type(given).__name__}"
        )
    return given
