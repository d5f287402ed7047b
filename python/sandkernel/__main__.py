"""`python -m sandkernel`: says what version this is, and whether it works here."""

from __future__ import annotations

import argparse
import sys

from sandkernel import doctor


def argument_parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sandkernel", description="Runs the code of agents in real Jupyter kernels."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    command = commands.add_parser(
        "doctor",
        help="say what is there, what is missing, and what to do about it",
        description="Checks what sandkernel needs, boots a local sandbox, and measures a round trip. "
        "The exit status is 0 when everything that the local executor needs works, otherwise 1.",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument(
        "--online", action="store_true", help="also ask Modal whether it takes the credentials"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status.

    Args:
        arguments: The command line without the program's name. Default: that of this process.
    """
    parser = argument_parser()
    parsed = parser.parse_args(arguments)
    if parsed.version:
        version = doctor.own_version()
        sys.stdout.write(f"sandkernel {version or '(its extension module cannot be loaded)'}\n")
        return 0 if version else 1
    if parsed.command is None:
        parser.print_help()
        return 2
    try:
        report = doctor.examine(online=parsed.online)
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(report.as_json() if parsed.json else report.as_text())
    return 0 if report.works else 1


if __name__ == "__main__":
    sys.exit(main())
