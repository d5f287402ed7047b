"""Examines whether sandkernel works here. It needs nothing but the standard library to say so."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sandkernel import credentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandkernel.session import Session

__all__ = ["Check", "Report", "examine", "own_version"]

ROUND_TRIPS = 50
RUN_TIMEOUT = 30.0

SYSTEM, PACKAGES, LOCAL, MODAL = "System", "Packages", "Local executor", "Modal (for ModalExecutor only)"

# Installed by sandkernel's extras, or by what they install; whether the local executor works without it.
_PACKAGES = {
    "packaging": True,
    "smolagents": True,
    "jupyter_kernel_gateway": True,
    "jupyter_server": True,
    "ipykernel": True,
    "uv": False,
}


@dataclass(frozen=True)
class Check:
    """One thing that was examined.

    Attributes:
        group: What it belongs to.
        name: What was examined.
        status: "ok"; "failed": the local executor does not work for it; "note": it works all the same.
        found: What there is: a version, a time.
        detail: What else is to know.
        remedy: What to do; a command where one does it.
        seconds: What was measured, by name.
    """

    group: str
    name: str
    status: Literal["ok", "failed", "note"]
    found: str
    detail: str = ""
    remedy: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All that was examined."""

    checks: tuple[Check, ...]

    @property
    def works(self) -> bool:
        """Whether the local executor works."""
        return not any(check.status == "failed" for check in self.checks)

    def as_json(self) -> str:
        """The report for machines: `works`, and `checks` with the attributes of `Check`."""
        document = {"works": self.works, "checks": [asdict(check) for check in self.checks]}
        return json.dumps(document, indent=2) + "\n"

    def as_text(self) -> str:
        """The report for people: a line for each check, and below it what to do."""
        names = max(len(check.name) for check in self.checks)
        found = max(len(check.found) for check in self.checks)
        lines: list[str] = []
        for group in dict.fromkeys(check.group for check in self.checks):
            lines += ["", group] if lines else [group]
            for check in self.checks:
                if check.group == group:
                    columns = f"  {check.status:<6}  {check.name:<{names}}  {check.found:<{found}}"
                    lines.append(f"{columns}  {check.detail}".rstrip())
                    lines += [f"          -> {check.remedy}"] if check.remedy else []
        if self.works:
            verdict = "Everything that the local executor needs works."
        else:
            failed = ", ".join(check.name for check in self.checks if check.status == "failed")
            verdict = f"The local executor does not work here: {failed}."
        # A terminal that is not on UTF-8 shows it too.
        return "\n".join([*lines, "", verdict, ""]).encode("ascii", "backslashreplace").decode()


def own_version() -> str | None:
    """The version of sandkernel; `None` where its extension module can't be loaded."""
    try:
        from sandkernel._sandkernel import __version__  # noqa: PLC0415 it may not be there
    except ImportError:
        return None
    return __version__


def examine(*, online: bool = False) -> Report:
    """Examine this environment. Takes a second or two: a sandbox is booted, and ended again.

    Args:
        online: Whether to ask Modal if it takes the credentials.
    """
    return Report((*_system(), *_packages(), *_local(), *_modal(online=online)))


def _install(*requirements: str) -> str:
    """The command that installs packages into this environment, whatever sandkernel itself came from."""
    python = shlex.quote(sys.executable)
    wanted = " ".join(shlex.quote(requirement) for requirement in requirements)
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        return f"uv pip install --python {python} {wanted}"
    if importlib.util.find_spec("pip") is None:
        return f"{python} -m ensurepip && {python} -m pip install {wanted}"
    return f"{python} -m pip install {wanted}"


def _system() -> Iterator[Check]:
    wanted = _requires_python()
    supported = _contains(wanted, platform.python_version())
    yield Check(
        SYSTEM,
        "Python",
        "ok" if supported else "failed",
        platform.python_version(),
        sys.executable,
        "" if supported else f"Use a Python that is {wanted}",
    )
    posix = os.name == "posix"
    yield Check(
        SYSTEM,
        "platform",
        "ok" if posix else "failed",
        f"{platform.system()} {platform.machine()}",
        "" if posix else "the local sandbox needs Linux or macOS",
        "" if posix else "Run it in WSL, or use GatewayExecutor or ModalExecutor",
    )
    version = own_version()
    yield Check(
        SYSTEM,
        "sandkernel",
        "ok" if version else "failed",
        version or "broken",
        str(Path(__file__).parent) if version else "its extension module can't be loaded",
        "" if version else _install("--force-reinstall", "sandkernel"),
    )


def _requires_python() -> str:
    try:
        return importlib.metadata.metadata("sandkernel")["Requires-Python"] or ">=3.10"
    except (importlib.metadata.PackageNotFoundError, KeyError):
        return ">=3.10"


def _contains(specifiers: str, version: str) -> bool:
    """Whether a version is within specifiers; without `packaging`, nothing is known against it."""
    try:
        from packaging.specifiers import SpecifierSet  # noqa: PLC0415 it may not be there
    except ImportError:
        return True
    return SpecifierSet(specifiers).contains(version, prereleases=True)


def _wanted(name: str, *, by: str, extras: tuple[str, ...] = ("",)) -> str | None:
    """The versions of a package that another one asks for; `None` where it asks for none."""
    try:
        from packaging.requirements import Requirement  # noqa: PLC0415 they may not be there
        from packaging.utils import canonicalize_name  # noqa: PLC0415

        texts = importlib.metadata.requires(by) or []
    except (ImportError, importlib.metadata.PackageNotFoundError):
        return None
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        if canonicalize_name(requirement.name) == canonicalize_name(name) and (
            marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
        ):
            return str(requirement.specifier)
    return None


def _package(group: str, name: str, *, needed: bool, detail: str = "") -> Check:
    wanted = _wanted(name, by="sandkernel", extras=("", "smolagents", "local", "modal"))
    if wanted is None:
        wanted = _wanted(name, by="jupyter_kernel_gateway")
    asked = f"wanted: {wanted}" if wanted else ""
    remedy = _install(name.replace("_", "-") + (wanted or ""))
    bad: Literal["failed", "note"] = "failed" if needed else "note"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(group, name, bad, "missing", "; ".join(filter(None, [asked, detail])), remedy)
    if not _contains(wanted or "", version):
        return Check(group, name, bad, version, asked, remedy)
    return Check(group, name, "ok", version, asked)


def _packages() -> Iterator[Check]:
    for name, needed in _PACKAGES.items():
        detail = ""
        if name == "uv":
            path = shutil.which("uv")
            detail = f"{path} takes its place" if path else "pip takes its place, and is slower"
        yield _package(PACKAGES, name, needed=needed, detail=detail)


def _local() -> Iterator[Check]:
    yield _importable()
    began = time.perf_counter()
    stages: dict[str, float] = {}
    try:
        from sandkernel.providers.local import LocalSandbox  # noqa: PLC0415 it may not work
        from sandkernel.session import Session  # noqa: PLC0415

        with LocalSandbox(on_stage=stages.__setitem__) as sandbox:
            confinement = sandbox.confinement
            endpoint = sandbox.endpoint
            connecting = time.perf_counter()
            with Session.connect(
                endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id, timeout=RUN_TIMEOUT
            ) as session:
                stages["connection"] = time.perf_counter() - connecting
                stages["first run"] = _timed_run(session)
                total = time.perf_counter() - began
                runs = [_timed_run(session) for _ in range(ROUND_TRIPS)]
    except Exception as error:  # noqa: BLE001 whatever goes wrong is what the report is for
        yield _failed("boot", error)
        return
    detail = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.items())
    yield Check(LOCAL, "boot", "ok", f"{total:.2f} s", detail, seconds={**stages, "total": total})
    yield _confined(confinement)
    median, slowest = statistics.median(runs), max(runs)
    yield Check(
        LOCAL,
        "round trip",
        "ok",
        f"{median * 1000:.1f} ms",
        f"median of {ROUND_TRIPS} runs, the slowest took {slowest * 1000:.1f} ms",
        seconds={"median": median, "slowest": slowest},
    )


def _confined(state: str) -> Check:
    """Whether the kernels are kept from this user's processes: a sandbox works without that, too."""
    if state == "on":
        return Check(LOCAL, "confinement", "ok", "on", "code reaches no process outside of its sandbox")
    reason = state.partition(": ")[2]
    return Check(
        LOCAL,
        "confinement",
        "note",
        "off",
        f"code can end and look into this user's processes: {reason}",
        "Use Linux 6.12 or later, with Landlock among its security modules",
    )


def _importable() -> Check:
    """Whether the executor can be imported: what is installed may be broken all the same."""
    began = time.perf_counter()
    try:
        importlib.import_module("sandkernel.integrations.smolagents")
    except Exception as error:  # noqa: BLE001 whatever a broken package raises
        return _failed("import", error)
    seconds = time.perf_counter() - began
    return Check(
        LOCAL, "import", "ok", f"{seconds:.2f} s", "of sandkernel.LocalExecutor", seconds={"import": seconds}
    )


def _timed_run(session: Session) -> float:
    began = time.perf_counter()
    execution = session.run("1 + 1")
    seconds = time.perf_counter() - began
    if execution.text != "2":
        raise RuntimeError(f"the kernel says that 1 + 1 is {execution.text!r}")
    return seconds


def _failed(name: str, error: Exception) -> Check:
    if isinstance(error, ModuleNotFoundError) and error.name:
        detail, remedy = f"no module {error.name!r}", "Install what is missing above, then look again"
    else:
        detail = f"{type(error).__name__}: {error}"
        last = [line.strip() for line in str(getattr(error, "output", "")).splitlines() if line.strip()][-1:]
        remedy = f"The gateway said last: {last[0][:500]}" if last else ""
    return Check(LOCAL, name, "failed", "failed", " ".join(detail.split())[:1000], remedy)


def _modal(*, online: bool) -> Iterator[Check]:
    package = _package(MODAL, "modal", needed=False)
    yield package
    found = credentials.find()
    remedy = f"{shlex.quote(sys.executable)} -m modal token new"
    usable = found.state == "found"
    status: Literal["ok", "note"] = "ok" if usable else "note"
    yield Check(MODAL, "credentials", status, found.state, found.detail, "" if usable else remedy)
    if not (online and usable and package.found != "missing"):
        return
    answer = credentials.verify()
    measured = {"answer": answer.seconds}
    if answer.state == "accepted":
        yield Check(MODAL, "account", "ok", f"{answer.seconds:.2f} s", answer.detail, seconds=measured)
    else:
        if answer.state != "refused":
            remedy = "Look at the network, then try again"
        yield Check(MODAL, "account", "note", answer.state, answer.detail, remedy, seconds=measured)
