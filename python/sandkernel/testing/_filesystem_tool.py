"""Stands in for the program in a Modal sandbox that `Sandbox.filesystem` runs.

Run as a script with one argument, a command in JSON. Paths are those of this machine: what the sandbox's
processes see.
"""

import errno
import json
import os
import pwd
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

KINDS: dict[type[Exception], str] = {
    FileNotFoundError: "NotFound",
    IsADirectoryError: "IsDirectory",
    NotADirectoryError: "NotDirectory",
    PermissionError: "PermissionDenied",
    FileExistsError: "PathAlreadyExists",
}


def describe(path: Path) -> dict[str, Any]:
    """Describe a path, and where it is a link not its target."""
    status = path.lstat()
    kind = "symlink" if path.is_symlink() else "directory" if path.is_dir() else "file"
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    return {
        "name": path.name,
        "path": str(path),
        "type": kind,
        "size": status.st_size,
        "mode": stat.S_IMODE(status.st_mode),
        "permissions": stat.filemode(status.st_mode)[1:],
        "owner": owner,
        "group": str(status.st_gid),
        "modified_time": status.st_mtime,
        "symlink_target": os.readlink(path) if kind == "symlink" else None,  # noqa: PTH115 `-S`
    }


def run(command: dict[str, dict[str, Any]]) -> None:
    """Carry out a command."""
    ((name, options),) = command.items()
    path = Path(options["path"])
    if name == "ReadFile":
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    elif name == "WriteFile":
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    elif name == "ListFiles":
        print(json.dumps([describe(each) for each in sorted(path.iterdir())]))  # noqa: T201 its output
    elif name == "Stat":
        print(json.dumps(describe(path)))  # noqa: T201 its output
    elif name == "MakeDirectory":
        path.mkdir(parents=options["parents"], exist_ok=options["parents"])
    elif name == "Remove":
        if path.is_dir() and not path.is_symlink():
            (shutil.rmtree if options["recursive"] else os.rmdir)(path)
        else:
            path.unlink()
    else:
        raise NotImplementedError(f"sandkernel.testing does not offer {name}")


def main() -> int:
    """Carry out the command in the argument, and report an error as the real program does."""
    try:
        run(json.loads(sys.argv[1]))
    except (OSError, NotImplementedError) as error:
        kind = (
            "DirectoryNotEmpty"
            if getattr(error, "errno", None) == errno.ENOTEMPTY
            else KINDS.get(type(error), "Other")
        )
        message = getattr(error, "strerror", None) or str(error)
        sys.stderr.write(json.dumps({"error_kind": kind, "message": message}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
