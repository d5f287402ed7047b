"""Files of a sandbox, to and fro."""

from __future__ import annotations

import io
import os
import socket
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from files_support import SEVERAL_BLOCKS, half_done, sandbox, session
from sandkernel.exceptions import (
    ClosedError,
    ConfigurationError,
    SandboxFileError,
    SandboxFileExistsError,
    SandboxFileTooLargeError,
    SandkernelError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandkernel import Files, Session
    from sandkernel.providers.local import LocalSandbox

__all__ = ["sandbox", "session"]


@pytest.fixture
def files(session: Session) -> Files:
    return session.files


def text_of(session: Session, expression: str) -> str:
    execution = session.run(expression)
    assert execution.error is None, execution.error
    return str(execution.text)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("grüße\n", "grüße\n".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2].tobytes(), b"ace"),
        (io.BytesIO(b"from a file"), b"from a file"),
        ("", b""),
    ],
)
def test_what_is_written_is_read(files: Files, session: Session, data: Any, expected: bytes) -> None:
    entry = files.write("deep/down/file.bin", data)
    assert (entry.name, entry.kind, entry.size) == ("file.bin", "file", len(expected))
    assert entry.path == text_of(session, "import os; os.path.abspath('deep/down/file.bin')")[1:-1]
    assert abs(entry.modified - datetime.now(timezone.utc)) < timedelta(minutes=5)
    assert files.read("deep/down/file.bin") == expected
    assert text_of(session, "open('deep/down/file.bin', 'rb').read()") == repr(expected)


def test_a_file_of_many_blocks_with_progress(files: Files) -> None:
    data, seen = os.urandom(SEVERAL_BLOCKS), []
    files.write("large", data, on_progress=lambda *progress: seen.append(progress))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 2
    assert {total for _, total in seen} == {SEVERAL_BLOCKS}
    assert seen[-1] == (SEVERAL_BLOCKS, SEVERAL_BLOCKS)
    seen.clear()
    assert files.read("large", on_progress=lambda *progress: seen.append(progress)) == data
    assert len(seen) > 2
    assert seen[-1] == (SEVERAL_BLOCKS, SEVERAL_BLOCKS)


def test_a_stream_of_unknown_size(files: Files) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source, open(writing, "wb") as sink:  # noqa: PTH123
        sink.write(b"x" * 10_000)
        sink.close()
        assert files.write("piped", source).size == 10_000
    assert files.read("piped") == b"x" * 10_000


def test_a_file_that_says_that_it_is_empty(files: Files) -> None:
    assert files.read("/proc/self/status").startswith(b"Name:")
    assert len(files.read("/proc/kallsyms")) > 64 << 10


def test_a_relative_path_is_that_of_the_kernel(files: Files, session: Session, sandbox: LocalSandbox) -> None:
    files.write("here", "1")
    assert (sandbox.directory / "here").read_text() == "1"
    session.run("import os; os.makedirs('elsewhere', exist_ok=True); os.chdir('elsewhere')")
    try:
        files.write("there", "2")
        assert (sandbox.directory / "elsewhere" / "there").read_text() == "2"
        assert files.read("../here") == b"1"
    finally:
        session.run("os.chdir('..')")


def test_a_list(files: Files, session: Session) -> None:
    files.write("listed/b", "bb")
    files.write("listed/a/deep", "")
    session.run("import os; os.symlink('b', 'listed/link'); os.mkfifo('listed/pipe')")
    entries = files.list("listed")
    assert [(entry.name, entry.kind) for entry in entries] == [
        ("a", "directory"),
        ("b", "file"),
        ("link", "symlink"),
        ("pipe", "other"),
    ]
    assert entries[1].size == 2
    below = [entry.path.partition("/listed/")[2] for entry in files.list("listed", recursive=True)]
    assert below == ["a", "a/deep", "b", "link", "pipe"]
    assert files.list("listed/a/deep/..") == [files.stat("listed/a/deep")]
    assert files.stat("listed/link").kind == "symlink"
    of_root = [entry.path for entry in files.list("/")]
    assert of_root == sorted(of_root)


@pytest.mark.parametrize(
    "name", ["a b", "zeile\nzwei", "ü", "\U0001f600", "'\"\\", "-rf", "\udcff", "$(true)"]
)
def test_any_name(files: Files, tmp_path: Path, name: str) -> None:
    files.write(f"names/{name}/{name}", "x")
    assert files.list("names")[0].name == name
    files.download("names", tmp_path / "names")
    assert (tmp_path / "names" / name / name).read_text() == "x"
    files.remove("names", recursive=True)
    files.upload(tmp_path / "names", "names")
    assert files.read(f"names/{name}/{name}") == b"x"
    files.remove("names", recursive=True)


def test_looking_and_removing(files: Files) -> None:
    files.make_directory("made/one/two")
    files.make_directory("made/one/two")
    assert files.stat("made/one").kind == "directory"
    assert (files.exists("made/one"), files.exists("made/three"), files.exists("made/one/x/y")) == (
        True,
        False,
        False,
    )
    with pytest.raises(SandboxFileError, match="not empty"):
        files.remove("made")
    files.remove("made/one/two")
    files.remove("made", recursive=True)
    assert not files.exists("made")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda files: files.read("missing"), FileNotFoundError),
        (lambda files: files.stat("missing"), FileNotFoundError),
        (lambda files: files.list("missing"), FileNotFoundError),
        (lambda files: files.remove("missing"), FileNotFoundError),
        (lambda files: files.download("missing", "/tmp/x"), FileNotFoundError),
        (lambda files: files.read("."), IsADirectoryError),
        (lambda files: files.write(".", ""), IsADirectoryError),
        (lambda files: files.list("file"), NotADirectoryError),
        (lambda files: files.write("file/below", ""), NotADirectoryError),
        (lambda files: files.upload(Path(__file__).parent, "file"), NotADirectoryError),
        (lambda files: files.make_directory("file"), FileExistsError),
        (lambda files: files.read("/dev/zero"), SandboxFileError),
    ],
)
def test_what_the_sandbox_refuses(
    files: Files, call: Callable[[Files], object], expected: type[Exception], sandbox: LocalSandbox
) -> None:
    files.write("file", "")
    with pytest.raises(expected, match=r"Could not .* in the sandbox") as raised:
        call(files)
    assert isinstance(raised.value, SandboxFileError)
    assert isinstance(raised.value, SandkernelError)
    assert raised.value.errno
    assert raised.value.path
    assert half_done(sandbox.directory) == []


def test_errors_are_of_one_tree() -> None:
    assert issubclass(SandboxFileExistsError, (SandboxFileError, OSError))
    assert SandboxFileExistsError("x", path="y").path == "y"


@pytest.mark.parametrize(
    "call",
    [
        lambda files: files.read(""),
        lambda files: files.read("a\0b"),
        lambda files: files.read(b"bytes"),
        lambda files: files.read(7),
        lambda files: files.write("x", 7),
        lambda files: files.write("x", io.StringIO("text")),
        lambda files: files.write("x", "\ud800"),
        lambda files: files.download("x", io.StringIO()),
        lambda files: files.download("x", 7),
        lambda files: files.list(None),
    ],
)
def test_what_can_not_work_is_said_at_once(session: Session, call: Callable[[Files], object]) -> None:
    # Nothing is asked of the kernel.
    before = session.run("1").execution_count
    with pytest.raises(ConfigurationError):
        call(session.files)
    assert session.run("1").execution_count == (before or 0) + 1


def test_a_missing_file_of_this_machine(files: Files, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        files.upload(tmp_path / "missing", "x")
    assert not isinstance(raised.value, SandkernelError)


def test_too_large(files: Files, tmp_path: Path, sandbox: LocalSandbox) -> None:
    files.write("ten", "x" * 10)
    with pytest.raises(SandboxFileTooLargeError, match="10 bytes, and max_bytes allows 9"):
        files.read("ten", max_bytes=9)
    with pytest.raises(SandboxFileTooLargeError):
        files.download("ten", tmp_path / "ten", max_bytes=9)
    assert files.read("ten", max_bytes=10) == b"x" * 10
    # It says that it is empty.
    with pytest.raises(SandboxFileTooLargeError):
        files.read("/proc/kallsyms", max_bytes=10_000)
    for number in range(3):
        files.write(f"three/{number}", "")
    with pytest.raises(SandboxFileTooLargeError, match="more than 2 files"):
        files.download("three", tmp_path / "three", max_files=2)
    assert list(tmp_path.iterdir()) == []
    assert half_done(sandbox.directory) == []


def test_a_replaced_file_keeps_its_permissions(files: Files, session: Session, tmp_path: Path) -> None:
    files.write("script", "1")
    session.run("import os; os.chmod('script', 0o750)")
    files.write("script", "2")
    assert text_of(session, "oct(os.stat('script').st_mode & 0o7777)") == "'0o750'"
    (tmp_path / "kept").write_text("old")
    (tmp_path / "kept").chmod(0o600)
    files.download("script", tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_mode & 0o7777 == 0o700
    assert (tmp_path / "kept").read_text() == "2"


def test_a_link_is_written_through(files: Files, session: Session) -> None:
    session.run("import os; os.makedirs('target', exist_ok=True); os.symlink('target/file', 'through')")
    files.write("through", "x")
    assert files.stat("through").kind == "symlink"
    assert files.read("target/file") == b"x"


def a_tree(root: Path) -> Path:
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "sub" / "text.txt").write_text("text")
    (root / "nothing").touch()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "large").write_bytes(os.urandom(5 << 20))
    for number in range(700):
        (root / "sub" / f"file {number}").write_text(str(number))
    return root


def contents(root: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(root)): None
        if path.is_dir()
        else (path.read_bytes(), bool(path.stat().st_mode & 0o111))
        for path in sorted(root.rglob("*"))
    }


def test_a_directory_up_and_down(files: Files, tmp_path: Path, sandbox: LocalSandbox) -> None:
    tree = a_tree(tmp_path / "tree")
    size, seen = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()), []
    entry = files.upload(tree, "there/tree", on_progress=lambda *progress: seen.append(progress))
    assert (entry.name, entry.kind) == ("tree", "directory")
    assert contents(sandbox.directory / "there" / "tree") == contents(tree)
    assert seen[-1] == (size, size)
    files.download("there/tree", tmp_path / "new" / "back")
    assert contents(tmp_path / "new" / "back") == contents(tree)
    assert half_done(sandbox.directory, tmp_path) == []


def test_a_directory_is_added_to(files: Files, tmp_path: Path, sandbox: LocalSandbox) -> None:
    (tmp_path / "one" / "sub").mkdir(parents=True)
    (tmp_path / "one" / "sub" / "new").write_text("new")
    (tmp_path / "one" / "changed").write_text("new")
    for root in (sandbox.directory / "added", tmp_path / "added"):
        (root / "sub").mkdir(parents=True)
        (root / "sub" / "old").write_text("old")
        (root / "changed").write_text("old")
    files.upload(tmp_path / "one", "added")
    files.download("added", tmp_path / "added")
    for root in (sandbox.directory / "added", tmp_path / "added"):
        assert {name: each and each[0] for name, each in contents(root).items()} == {
            "changed": b"new",
            "sub": None,
            "sub/new": b"new",
            "sub/old": b"old",
        }
    assert half_done(sandbox.directory, tmp_path) == []


def test_what_can_not_be_added_to_stays_as_it_is(files: Files, tmp_path: Path) -> None:
    files.write("clash/a", "new")
    files.write("clash/b/c", "new")
    for place, wrong in (("file", "b"), ("directory", "a")):
        root = tmp_path / place
        root.mkdir()
        (root / wrong).touch() if place == "file" else (root / wrong).mkdir()
        with pytest.raises(NotADirectoryError if place == "file" else IsADirectoryError):
            files.download("clash", root)
        assert [path.name for path in root.rglob("*")] == [wrong]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        files.download("clash", tmp_path / "linked")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert half_done(tmp_path) == []


def test_links_are_followed_and_no_special_file_is_copied(
    files: Files, tmp_path: Path, sandbox: LocalSandbox
) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "file").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").symlink_to("../beside/file")
    (tree / "directory").symlink_to("../beside")
    (tree / "round").symlink_to(".")
    (tree / "nowhere").symlink_to("nothing")
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tree / "socket"))
        files.upload(tree, "links")
    expected = {"directory": None, "directory/file": (b"x", False), "file": (b"x", False)}
    assert contents(sandbox.directory / "links") == expected
    (sandbox.directory / "links" / "again").symlink_to("..")
    (sandbox.directory / "links" / "again").unlink()
    (sandbox.directory / "links" / "round").symlink_to(".")
    (sandbox.directory / "links" / "file again").symlink_to("file")
    files.download("links", tmp_path / "back")
    assert contents(tmp_path / "back") == expected | {"file again": (b"x", False)}
    assert not any(path.is_symlink() for path in (tmp_path / "back").rglob("*"))


def test_a_download_into_an_open_file(files: Files, tmp_path: Path) -> None:
    files.write("streamed", "x" * 100)
    with (tmp_path / "out").open("wb") as out:
        files.download("streamed", out)
    assert (tmp_path / "out").read_bytes() == b"x" * 100


def test_an_upload_of_a_file(files: Files, tmp_path: Path, session: Session) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tool").chmod(0o755)
    files.upload(str(tmp_path / "tool"), "bin/tool")
    assert text_of(session, "import subprocess; subprocess.check_output('bin/tool')") == "b'ran\\n'"


async def test_the_async_twins(session: Session, tmp_path: Path) -> None:
    files = session.files
    assert (await files.awrite("twin/a", "1")).name == "a"
    assert await files.aread("twin/a") == b"1"
    assert [entry.name for entry in await files.alist("twin")] == ["a"]
    assert (await files.astat("twin/a")).size == 1
    await files.adownload("twin", tmp_path / "twin")
    assert (await files.aupload(tmp_path / "twin", "twin/again")).kind == "directory"
    await files.amake_directory("twin/more")
    await files.aremove("twin/a")
    assert not await files.aexists("twin/a")
    with pytest.raises(FileNotFoundError):
        await files.aread("twin/a")


def test_a_restarted_kernel_has_them_too(files: Files, session: Session) -> None:
    files.write("kept", "x")
    session.restart()
    assert files.read("kept") == b"x"


def test_output_and_history_know_nothing_of_it(files: Files, session: Session) -> None:
    before = session.run("names = set(dir()); 1").execution_count
    files.write("quiet", "x")
    files.read("quiet")
    execution = session.run("{name for name in set(dir()) - names if name[0] != '_'}")
    assert execution.execution_count == (before or 0) + 1
    assert execution.text == "{'names'}"


def test_a_closed_session(sandbox: LocalSandbox) -> None:
    from sandkernel import Session  # noqa: PLC0415

    session = Session.connect(
        sandbox.endpoint.url, sandbox.endpoint.token, kernel_id=sandbox.endpoint.kernel_id
    )
    session.close()
    with pytest.raises(ClosedError):
        session.files.list()
