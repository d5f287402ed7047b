"""Removes a directory of any depth: code in a kernel may nest directories deeper than Python recurses."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from typing import Iterator, List

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove_tree(root: str) -> None:
    """Remove a directory and all that is in it, as far as the system allows; links are not followed.

    A directory below is moved up to the root before it is emptied. So no path grows long, no call is nested,
    and no more than two directories are open, however deep the tree is.
    """
    # Nobody can have given such a name before.
    prefix = ".removed-%s-" % os.urandom(16).hex()
    names = (prefix + str(number) for number in itertools.count())
    with contextlib.suppress(OSError):
        os.chmod(root, 0o700)
        top = os.open(root, FLAGS)
        try:
            waiting = ["."]
            while waiting:
                waiting += empty(top, waiting.pop(), names)
        finally:
            os.close(top)
        os.rmdir(root)


def empty(top: int, name: str, names: Iterator[str]) -> List[str]:
    """Remove the files of a directory, and the directory itself; move the directories in it to the top.

    Args:
        top: The descriptor of the root.
        name: The directory's name in the root; `"."` for the root itself, which stays.
        names: The names for what is moved.

    Returns:
        The names of what was moved.
    """
    moved = []
    with contextlib.suppress(OSError):
        directory = os.open(name, FLAGS, dir_fd=top)
        try:
            for entry in os.listdir(directory):
                with contextlib.suppress(OSError):
                    if stat.S_ISDIR(os.stat(entry, dir_fd=directory, follow_symlinks=False).st_mode):
                        # What may not be written to can't be moved.
                        os.chmod(entry, 0o700, dir_fd=directory)
                        to = next(names)
                        os.rename(entry, to, src_dir_fd=directory, dst_dir_fd=top)
                        moved.append(to)
                    else:
                        os.unlink(entry, dir_fd=directory)
        finally:
            os.close(directory)
        if name != ".":
            os.rmdir(name, dir_fd=top)
    return moved
