"""The parts of this kernel that code of ours works with: IPython's shell, and ipykernel around it.

Runs inside the kernel, as the module `_sandkernel_shell`, on Python 3.8. A kernel that runs Python may have
either of them alone (xeus-python has IPython's shell), or none (its raw mode; kernels of one's own).
"""

_FOR_MESSAGES = ("session", "pub_socket", "topic", "parent_header")


def _find_shell():
    try:
        # Around cells it is not among the builtins.
        found = get_ipython()
    except NameError:
        return None
    return found if hasattr(found, "user_ns") and hasattr(found, "events") else None


# IPython's; `None` where there is none.
shell = _find_shell()
# ipykernel's; `None` where the kernel is another one.
kernel = getattr(shell, "kernel", None)
if not (hasattr(kernel, "session") and hasattr(kernel, "shell_handlers")):
    kernel = None
# The real display publisher: `%%capture` puts another in its place for a while.
publisher = getattr(shell, "display_pub", None)
# True where the publisher sends messages as they are given to it, with their attachments.
takes_messages = kernel is not None and all(hasattr(publisher, name) for name in _FOR_MESSAGES)
# Set where this is sent: what the code of a cell has for its global names.
namespace = None


def user_namespace():
    """Return the names of the user's code."""
    return namespace if shell is None else shell.user_ns


def parent():
    """Return the request that is executed, or the little that the kernel tells of it."""
    if takes_messages:
        return publisher.parent_header
    try:
        return dict(getattr(shell, "kernel", None)._parent_header)
    except Exception:
        return {}


def publish(mime, value, request, buffers=()):
    """Tell the host something, which is for it alone; return whether that can be done."""
    if takes_messages:
        publisher.session.send(
            publisher.pub_socket,
            "display_data",
            {"data": {mime: value}, "metadata": {}, "transient": {}},
            parent=request,
            ident=publisher.topic,
            buffers=list(buffers),
        )
        return True
    if publisher is None or buffers:
        return False
    publisher.publish({mime: value}, {})
    return True
