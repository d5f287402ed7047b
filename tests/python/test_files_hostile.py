"""What a sandbox can try with the files of the host."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from files_support import half_done, sandbox, session
from sandkernel.exceptions import SandboxFileError, SandboxFileTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandkernel import Files, Session

__all__ = ["sandbox", "session"]


@pytest.fixture
def files(session: Session) -> Iterator[Files]:
    """A directory with a file, and a kernel whose modules are as they should be before and after."""
    session.files.write("tree/file", "content")
    yield session.files
    session.run("import sys; [sys.modules.pop(name) for name in list(sys.modules) if '_sandkernel_' in name]")


def betray(session: Session, code: str) -> None:
    """Let the sandbox's side be what the agent's code makes of it."""
    execution = session.run(
        f"import sys\nfiles = sys.modules['_sandkernel_files']\ntree = files.tree\n{code}"
    )
    assert execution.error is None, execution.error


def found(relative: str, path: str, **fields: object) -> str:
    values = {"kind": "file", "size": 7, "modified": 0, "executable": False, "identity": "1:1", **fields}
    return f"tree.Found({relative!r}, {path!r}, **{values!r})"


@pytest.mark.parametrize(
    ("relative", "path"),
    [
        ("../evil", "/tree/../evil"),
        ("a/../../evil", "/tree/a/../../evil"),
        ("/tmp/evil", "/tmp/evil"),
        ("/tmp/evil", "/tree//tmp/evil"),
        (".", "/tree/."),
        ("..", "/tree/.."),
        ("a//b", "/tree/a//b"),
        ("a/", "/tree/a/"),
        ("a", "/tree/b"),
        ("a", "tree/a"),
        ("", "/tree/.."),
    ],
)
def test_no_name_leads_out_of_the_target(
    files: Files, session: Session, tmp_path: Path, relative: str, path: str
) -> None:
    target = tmp_path / "within" / "target"
    target.parent.mkdir()
    betray(
        session,
        f"tree.walk = lambda *_, **__: [{found(relative, path)}]\ntree.read = lambda *_: ([7], b'content')",
    )
    with pytest.raises(SandboxFileError, match="malformed"):
        files.download("tree", target)
    with pytest.raises(SandboxFileError, match="malformed"):
        files.list("tree")
    assert list(tmp_path.rglob("*")) == [target.parent]


@pytest.mark.parametrize(
    "entries",
    [
        [("a", "symlink"), ("a/b", "file")],
        [("a", "file"), ("a/b", "file")],
        [("a", "file"), ("a", "directory")],
    ],
)
def test_no_link_is_made_and_no_file_is_two_things(
    files: Files, session: Session, tmp_path: Path, entries: list[tuple[str, str]]
) -> None:
    all_found = ", ".join(found(name, f"/tree/{name}", kind=kind) for name, kind in entries)
    betray(
        session,
        f"tree.walk = lambda *_, **__: [{all_found}]\n"
        "tree.read = lambda root, parts: ([7 * (part.size > 0) for part in parts], "
        "b''.join(b'content' for part in parts if part.size))",
    )
    with pytest.raises(OSError, match=r"directory|exists"):
        files.download("tree", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "reply",
    [
        "[7], b'content and more'",
        "[7], b'less'",
        "[8], b'contents'",
        "[-1], b''",
        "[], b'content'",
        "[7, 0], b'content'",
        "['x'], b'content'",
        "['7' * 10_000], b'content'",
    ],
)
def test_no_reply_may_differ_from_what_was_asked(
    files: Files, session: Session, tmp_path: Path, reply: str
) -> None:
    betray(session, f"tree.read = lambda root, parts: ({reply})")
    with pytest.raises(SandboxFileError, match="malformed"):
        files.read("tree/file")
    with pytest.raises(SandboxFileError, match="malformed"):
        files.download("tree", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "portal"},
        {"size": -1},
        {"size": "9" * 5000},
        {"size": "\u0661"},
        {"modified": "soon"},
    ],
)
def test_no_entry_may_be_malformed(files: Files, session: Session, fields: dict[str, object]) -> None:
    betray(session, f"tree.find = lambda *_, **__: {found('', '/tree/file', **fields)}")
    with pytest.raises(SandboxFileError, match="malformed"):
        files.stat("tree/file")


def test_no_time_is_out_of_range(files: Files, session: Session) -> None:
    betray(session, f"tree.find = lambda *_, **__: {found('', '/tree/file', modified=-(10**18 * 9))}")
    assert files.stat("tree/file").modified.year < 1970
    betray(session, f"tree.find = lambda *_, **__: {found('', '/tree/file', modified=9 * 10**18)}")
    assert files.stat("tree/file").modified.year > 2200


def test_a_file_without_end(files: Files, session: Session, tmp_path: Path) -> None:
    betray(
        session,
        f"tree.find = lambda *_, **__: {found('', '/tree/file', size=0)}\n"
        "tree.read = lambda root, parts: ([parts[0].size], bytes(parts[0].size))",
    )
    with pytest.raises(SandboxFileTooLargeError):
        files.download("tree/file", tmp_path / "target", max_bytes=10 << 20)
    with pytest.raises(SandboxFileTooLargeError):
        files.read("tree/file", max_bytes=10 << 20)
    assert list(tmp_path.iterdir()) == []


def test_a_list_without_end(files: Files, session: Session) -> None:
    entry = found("a", "/tree/a")
    betray(session, f"tree.walk = lambda *_, **__: [{entry}] * 100_001")
    with pytest.raises(SandboxFileTooLargeError):
        files.list("tree")


def test_a_file_that_is_replaced_meanwhile(files: Files, session: Session) -> None:
    files.write("tree/file", bytes(5 << 20))
    betray(
        session,
        "import os\nread = tree.read\n"
        "def swap(root, parts):\n"
        "    done = read(root, parts)\n"
        "    open('other', 'w').close(); os.replace('other', 'tree/file')\n"
        "    return done\n"
        "tree.read = swap",
    )
    with pytest.raises(SandboxFileError, match="Another file took its place"):
        files.read("tree/file")


def test_a_kernel_that_says_nothing_or_too_much(files: Files, session: Session) -> None:
    betray(session, "files.find = lambda *_: None")
    with pytest.raises(SandboxFileError, match="did not arrive"):
        files.stat("tree/file")
    betray(
        session,
        "def find(*_): raise type('E' * 10_000, (Exception,), {})('x' * 10_000_000)\nfiles.find = find",
    )
    with pytest.raises(SandboxFileError) as raised:
        files.stat("tree/file")
    assert len(str(raised.value)) < 2000


def test_a_kernel_that_never_has_the_modules(files: Files, session: Session) -> None:
    betray(session, "def find(*_): raise ModuleNotFoundError('_sandkernel_files')\nfiles.find = find")
    # They are sent once, which makes it honest again.
    assert files.stat("tree/file").size == 7
    betray(
        session,
        "import builtins\nreal = builtins.__import__\n"
        "def refuse(name, *rest):\n"
        "    if name == '_sandkernel_files': raise ModuleNotFoundError(name)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = refuse",
    )
    try:
        with pytest.raises(SandboxFileError, match="ModuleNotFoundError"):
            files.stat("tree/file")
    finally:
        session.run("builtins.__import__ = real")


def test_a_file_is_never_whole_in_memory(files: Files, session: Session, tmp_path: Path) -> None:
    size = 64 << 20
    session.run(f"file = open('tree/huge', 'wb'); file.truncate({size}); file.close()")
    tracemalloc.start()
    try:
        files.download("tree/huge", tmp_path / "huge")
        files.upload(tmp_path / "huge", "tree/huge again")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "huge").stat().st_size == size
    assert files.stat("tree/huge again").size == size
    # Some blocks, whatever the size.
    assert peak < 32 << 20
    assert half_done(tmp_path) == []
