"""Where the credentials for Modal are, and whether it takes them; what they are is neither kept nor shown."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Answer", "Finding", "find", "verify"]

VARIABLES = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")
# The SDK alone takes about a minute to see that nobody listens.
VERIFY_TIMEOUT = 20.0
VERIFY = """
import sys, modal
try:
    modal.Client.from_env().hello()
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@dataclass(frozen=True)
class Finding:
    """Whether there are credentials.

    Attributes:
        state: "found" where there are some.
        detail: Where they are, or where they were looked for.
    """

    state: Literal["found", "missing", "incomplete", "unreadable"]
    detail: str


@dataclass(frozen=True)
class Answer:
    """What Modal says about the credentials.

    Attributes:
        state: "unknown" where it could not be asked.
        detail: Its own words.
        seconds: How long it took.
    """

    state: Literal["accepted", "refused", "unknown"]
    detail: str
    seconds: float


def find() -> Finding:
    """Look for credentials where the Modal SDK does, without importing or contacting anything of it."""
    there = [bool(os.environ.get(variable)) for variable in VARIABLES]
    if all(there):
        return Finding("found", "in MODAL_TOKEN_ID and MODAL_TOKEN_SECRET")
    if any(there):
        missing = VARIABLES[there.index(False)]
        return Finding("incomplete", f"{missing} is not set, and {VARIABLES[there.index(True)]} is")
    return _in_file(Path(os.environ.get("MODAL_CONFIG_PATH") or "~/.modal.toml").expanduser())


def _in_file(path: Path) -> Finding:
    try:
        profiles = _read_toml(path)
    except FileNotFoundError:
        return Finding("missing", f"not in the environment, and there is no {path}")
    except (ImportError, OSError, ValueError) as error:
        # Its type alone: a parser's message may quote the line.
        return Finding("unreadable", f"{path} ({type(error).__name__})")
    active = (
        name for name, values in profiles.items() if isinstance(values, dict) and values.get("active") is True
    )
    profile = os.environ.get("MODAL_PROFILE") or next(active, "default")
    values = profiles.get(profile)
    if isinstance(values, dict) and values.get("token_id") and values.get("token_secret"):
        return Finding("found", f"in {path}, profile {profile!r}")
    return Finding("missing", f"{path} has none for the profile {profile!r}")


def _read_toml(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    # Python 3.10 has no parser; modal brings the last of these.
    for name in ("tomllib", "tomli", "toml"):
        if importlib.util.find_spec(name) is not None:
            parsed: dict[str, Any] = importlib.import_module(name).loads(text)
            return parsed
    raise ImportError("no parser for TOML")


def verify() -> Answer:
    """Ask Modal whether it takes the credentials; at most some 20 seconds."""
    began = time.perf_counter()
    # A process of its own: the SDK's threads can't be stopped when it takes too long.
    try:
        done = subprocess.run(
            [sys.executable, "-c", VERIFY],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=VERIFY_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Answer("unknown", f"no answer within {VERIFY_TIMEOUT:g} s", time.perf_counter() - began)
    seconds = time.perf_counter() - began
    if done.returncode == 0:
        return Answer("accepted", "Modal takes the credentials", seconds)
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    for variable in VARIABLES:
        if os.environ.get(variable):
            reason = reason.replace(os.environ[variable], "...")
    state: Literal["refused", "unknown"] = "refused" if reason.startswith("AuthError") else "unknown"
    return Answer(state, reason[:500], seconds)
