"""A kernel is the same whichever way it came: the first one, a further one, one restarted or replaced."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from executor_support import running_gateway
from sandkernel import Session
from sandkernel.exceptions import KernelDied
from sandkernel.providers.local import LocalSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

# What each is to be equal in, also to a kernel of a stock gateway. Each expression is evaluated on its own.
BEHAVIOUR = {
    "read": "sys.stdin.read()",
    "readline": "sys.stdin.readline()",
    "read of the descriptor": "os.read(0, 1)",
    "a child that reads": "subprocess.run(['cat'], stdout=-1).stdout",
    "a child of a child that reads": "subprocess.run('cat | cat', shell=True, stdout=-1).stdout",
    "a shell that asks": "subprocess.run('read answer; echo $?', shell=True, stdout=-1).stdout",
    "a Python that asks": (
        "subprocess.run([sys.executable, '-c', 'input()'], stderr=-1).stderr.splitlines()[-1]"
    ),
    "a line magic that asks": "get_ipython().getoutput('cat; echo $?')",
    "a forked child that reads": "forked(lambda: sys.stdin.read() == '')",
    "input": "failure(input)",
    "getpass": "failure(__import__('getpass').getpass)",
    "fileinput": "list(__import__('fileinput').input([]))",
    "select": "select.select([0], [], [], 0)[0]",
    "kind of stdin": "stat.S_IFMT(os.fstat(0).st_mode)",
    "mode of stdin": "fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE",
    "isatty": "[os.isatty(number) for number in (0, 1, 2)] + [sys.stdin.isatty(), sys.stdout.isatty()]",
    "stdin": "[repr(sys.stdin), sys.stdin is sys.__stdin__, sys.stdin.closed]",
    "session and group": "[os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid()]",
    "terminal": "failure(lambda: open('/dev/tty'))",
    "niceness": "os.nice(0)",
    "limits": "[resource.getrlimit(number) for number in range(16)]",
    "umask": "process_status('Umask', 'Groups', 'Uid', 'Gid', 'SigBlk')",
    "locale": "[locale.getlocale(), locale.getpreferredencoding(), sys.stdin.encoding, sys.stdin.errors]",
    "flags": "str(sys.flags)",
    "program": "[os.path.basename(sys.argv[0]), sys.modules['__main__'].__name__]",
    "processors": "sorted(os.sched_getaffinity(0))",
    "pending alarm": "signal.getitimer(signal.ITIMER_REAL)",
}
# And what only kernels of ours are to be equal in, since where they are is our choice.
PLACE = {
    "kinds of the output's descriptors": "[stat.S_IFMT(os.fstat(number).st_mode) for number in (1, 2)]",
    # A stock gateway inherits what its starter ignores.
    "signals": "{number: str(signal.getsignal(number)) for number in signal.valid_signals()}",
    "ignored signals": "process_status('SigIgn', 'SigCgt')",
    "directory": "os.getcwd()",
    # Kernels of ours are confined.
    "privileges": "process_status('NoNewPrivs')",
    "environment": "dict(os.environ)",
    "path": "sys.path",
    "modules": "sorted(name for name in sys.modules if 'sandkernel' in name)",
    "interpreter": "[sys.executable, sys.prefix, sys.base_prefix]",
    "parent": "os.getppid()",
    "arguments": "[text for text in sys.argv if '.json' not in text]",
    "pip that asks": "get_ipython().getoutput('pip uninstall six')[-1:]",
}
PREPARATION = """
import fcntl, json, locale, os, resource, select, signal, stat, subprocess, sys
def failure(function):
    try:
        return repr(function())
    except Exception as error:
        return repr(error)
def forked(function):
    child = os.fork()
    if not child:
        os._exit(0 if function() else 1)
    return os.waitpid(child, 0)[1]
def process_status(*names):
    with open("/proc/self/status") as file:
        return sorted(line for line in file if line.split(":")[0] in names)
def told(code):
    return eval(code)
"""


def behaviour(session: Session, names: dict[str, str]) -> dict[str, Any]:
    session.run(PREPARATION, timeout=60)
    found = {}
    for name, code in names.items():
        # The first of them to wait for somebody is named.
        execution = session.run(f"print(json.dumps(told({code!r}), default=str))", timeout=60)
        assert execution.error is None, (name, execution.error)
        found[name] = json.loads(execution.stdout)
    return found


@pytest.fixture(scope="module")
def first() -> Iterator[tuple[LocalSandbox, dict[str, Any]]]:
    with LocalSandbox() as sandbox:
        endpoint = sandbox.endpoint
        with Session.connect(endpoint.url, endpoint.token, kernel_id=endpoint.kernel_id) as session:
            yield sandbox, behaviour(session, BEHAVIOUR | PLACE)


@pytest.mark.parametrize("way", ["further", "restarted", "replaced", "further, restarted"])
def test_a_kernel_is_the_same_whichever_way_it_came(
    first: tuple[LocalSandbox, dict[str, Any]], way: str
) -> None:
    sandbox, expected = first
    endpoint = sandbox.endpoint
    kernel_id = None if "further" in way else endpoint.kernel_id
    with Session.connect(endpoint.url, endpoint.token, kernel_id=kernel_id) as session:
        if "restarted" in way:
            session.restart()
        if "replaced" in way:
            with pytest.raises(KernelDied):
                session.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", timeout=60)
        assert behaviour(session, BEHAVIOUR | PLACE) == expected


def test_a_kernel_is_as_that_of_a_stock_gateway(first: tuple[LocalSandbox, dict[str, Any]]) -> None:
    expected = {name: first[1][name] for name in BEHAVIOUR}
    with ExitStack() as stack:
        gateway = stack.enter_context(running_gateway())
        session = stack.enter_context(Session.connect(gateway.url, gateway.token))
        assert behaviour(session, BEHAVIOUR) == expected
