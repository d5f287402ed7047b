"""Files of the sandbox, for the host.

Runs inside the kernel, as the module `_sandkernel_files`, on Python 3.8. A reply may get lost where a gateway
limits output: then the host asks again, so nothing here minds being called twice.
"""

import base64
import os
import shutil

import _sandkernel_shell
import _sandkernel_tree as tree

REPLY_MIME = "application/vnd.sandkernel.file+json"


class FileReply(BaseException):
    """Carries a reply where this kernel sends no message with something attached."""

    def _render_traceback_(self):
        return ["FileReply"]


def _reply(fields, data=b""):
    """Send fields, which hold no NUL, and bytes."""
    head = b"\0".join(os.fsencode(str(field)) for field in fields)
    if not _sandkernel_shell.publish(REPLY_MIME, {}, _sandkernel_shell.parent(), [head, data]):
        raise FileReply(b":".join(map(base64.b64encode, (head, data))).decode())


def _fields(found):
    return found._replace(executable=int(found.executable))


def find(path, follow):
    """Reply with what is at a path."""
    _reply(_fields(tree.find(path, follow=follow)))


def walk(path, recursive, follow, limit):
    """Reply with what a directory holds."""
    found = tree.walk(path, recursive=recursive, follow=follow, limit=limit)
    _reply([field for each in found for field in _fields(each)])


def read(root, parts):
    """Reply with parts of files."""
    _reply(*tree.read(root, [tree.Part(*part) for part in parts]))


def begin(target, name, directory):
    """Begin to write, and reply with where, and with what it will become."""
    temporary, target = tree.place(target, name)
    tree.begin(temporary, target, directory=directory)
    _reply([temporary, target])


def receive_parts(document, buffers):
    """Write parts of files."""
    parts = [tree.Part(*part) for part in document["parts"]]
    tree.write(document["root"], parts, document["lengths"], buffers[0] if buffers else b"")


def finish(temporary, target):
    """End the writing."""
    tree.finish(temporary, target)


def forget(target, name):
    """Remove what was written so far."""
    tree.forget(tree.place(target, name)[0])


def make_directory(path):
    os.makedirs(path, exist_ok=True)


def remove(path, recursive):
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
    elif recursive:
        shutil.rmtree(path)
    else:
        os.rmdir(path)
