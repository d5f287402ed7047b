"""What a hostile kernel sends, by the inputs that it reaches: each far beyond its budget."""

from __future__ import annotations

from dataclasses import dataclass

from sandkernel import PayloadLimits

MEBIBYTE = 1 << 20
# The limits under which the attacks are made: low, so that a budget is passed many times.
OUTPUT_BYTES = 8 * MEBIBYTE
RESULT_BYTES = 16 * MEBIBYTE
ARGUMENT_BYTES = 16 * MEBIBYTE
# A message may have the larger limit, and 16 MiB beside it: see `Session.connect`.
MESSAGE_BYTES = RESULT_BYTES + 16 * MEBIBYTE
LIMITS = PayloadLimits(
    payload_bytes=16 * MEBIBYTE,
    image_bytes=16 * MEBIBYTE,
    array_bytes=16 * MEBIBYTE,
    array_items=16 * MEBIBYTE,
    image_pixels=4 * MEBIBYTE,
    items=200_000,
)

# What the attacks share; it is run before each of them.
PREAMBLE = r"""
import base64, struct, zlib
import _sandkernel as prelude, _sandkernel_files as files, _sandkernel_shell as shell
MIB = 1 << 20
kernel = get_ipython().kernel
publish = get_ipython().display_pub.publish
smile = "\N{GRINNING FACE}"

class FinalAnswerException(BaseException):
    pass

def send(kind, content, buffers=None, parent=None):
    parent = kernel.get_parent() if parent is None else parent
    kernel.session.send(kernel.iopub_socket, kind, content, parent=parent, buffers=buffers)

def ask(prompt, buffers=None):
    content, parent = {"prompt": prompt, "password": False}, kernel.get_parent()
    identity = kernel._parent_ident["shell"]
    kernel.session.send(
        kernel.stdin_socket, "input_request", content, parent=parent, buffers=buffers, ident=identity
    )

def display(text, metadata=None, name=None, update=False):
    transient = {} if name is None else {"display_id": name}
    publish({"text/plain": text}, metadata or {}, transient=transient, update=update)

def forge_files(fields, data=b""):
    def reply(*arguments):
        shell.publish(files.REPLY_MIME, {}, shell.parent(), [fields, data])
    files.walk = files.find = files.read = reply

def forge_reply(text):
    def missing(names):
        raise prelude.Reply(text)
    prelude.missing = missing

def forge_ticket(size):
    def answer_piece(name, start, length):
        raise prelude.Reply("safe:" + base64.b64encode(b"[" * length).decode())
    prelude.answer_piece = answer_piece
    raise FinalAnswerException(f"sandkernel:{'0' * 32}:{size}:{size}")

def answer(form, *buffers):
    data = {"application/vnd.sandkernel.answer+json": {"form": form}}
    send("display_data", {"data": data, "metadata": {}}, list(buffers))

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

def png(width, height, *chunks):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes((width + 1) * height), 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + rows + chunk(b"IEND", b"")

def call_at_once(value):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(40) as pool:
        return [len(str(future.exception())) for future in [pool.submit(call, value) for _ in range(40)]]
"""


@dataclass(frozen=True)
class Attack:
    """Code that sends too much, and what the host does then, `""` for nothing more."""

    code: str
    action: str = ""


@dataclass(frozen=True, eq=False)
class Input:
    """Something that a kernel sends.

    Attributes:
        name: The name of the input, for the table.
        budget: The setting, or the constant, that is its budget.
        budget_bytes: That budget under the limits above, with the messages under way.
        counted: Where it is counted, and before what.
        released: Until when it is kept.
        attacks: The attacks, by their names.
    """

    name: str
    budget: str
    budget_bytes: int
    counted: str
    released: str
    attacks: dict[str, Attack]


INPUTS = (
    Input(
        "standard output and error",
        "`max_output_bytes`; as Python's text up to four times as much",
        5 * OUTPUT_BYTES + MESSAGE_BYTES,
        "`execution/transcript.rs`, as it arrives",
        "the `Execution` goes",
        {
            "lines": Attack("for i in range(200_000): print('x' * 1000)"),
            "one line": Attack("print('x' * (30 * MIB))"),
            "wide characters": Attack("for i in range(64): print(smile * (MIB // 4))"),
            "one wide character": Attack("print(smile)\nfor i in range(64): print('x' * MIB)"),
            "carriage returns": Attack(r"for i in range(64): print('xy\r' * (MIB // 3), end='')"),
            "one carriage return": Attack("print('x' * (28 * MIB) + chr(13) + 'y')"),
            "control characters": Attack(r"for i in range(32): print('\x07\x1b[31m' * (MIB // 6))"),
            "both streams in turn": Attack(
                "for i in range(50_000): send('stream', {'name': ('stdout', 'stderr')[i % 2], 'text': 'x'})"
            ),
        },
    ),
    Input(
        "results: text, HTML, JSON, buffers",
        "`max_result_bytes`, with the objects that are made of JSON",
        2 * RESULT_BYTES + 2 * MESSAGE_BYTES,
        "`execution/display.rs`, before JSON is parsed",
        "the `Execution` goes",
        {
            "a text": Attack("'x' * (30 * MIB)"),
            "a wide text": Attack("smile * (3 * MIB)"),
            "many texts": Attack("for i in range(64): display('x' * MIB)"),
            "many that hold nothing": Attack(
                "for i in range(50_000): send('display_data', {'data': {}, 'metadata': {}})"
            ),
            "JSON of lists": Attack("publish({'application/json': [[]] * (7 * MIB), 'text/plain': '<x>'})"),
            "JSON of objects": Attack("publish({'application/vnd.x+json': [{}] * (7 * MIB)})"),
            "metadata": Attack("display('x', {'x': [[]] * (7 * MIB)})"),
            "HTML": Attack("publish({'text/html': '<b>' * (9 * MIB), 'text/plain': '<x>'})"),
            "MIME types": Attack("publish({f'application/x{i}': 'x' for i in range(200_000)})"),
            "buffers": Attack("for i in range(8): send('display_data', {'data': {}}, [b'x' * (28 * MIB)])"),
            "empty buffers": Attack("send('display_data', {'data': {'text/plain': 'x'}}, [b''] * 60_000)"),
            "escapes": Attack(r"publish({'text/plain': '\x00' * (4 * MIB)})"),
        },
    ),
    Input(
        "images",
        "`image_pixels` and `image_bytes` of `payload_limits`, for all of a step",
        4 * LIMITS.image_pixels + RESULT_BYTES + MESSAGE_BYTES,
        "`serialization/budget.py`, before they are decoded",
        "the step ends",
        {
            "a bomb": Attack("publish({'image/png': png(20_000, 20_000)})"),
            "a hundred": Attack("data = png(2000, 2000)\nfor i in range(100): publish({'image/png': data})"),
            "a comment": Attack(
                "comment = chunk(b'zTXt', b'x' + bytes(2) + zlib.compress(bytes(200 * MIB), 9))\n"
                "publish({'image/png': png(8, 8, comment)})"
            ),
        },
    ),
    Input(
        "updates of a display",
        "`max_result_bytes`, for each of at most 1,000 items that follow",
        RESULT_BYTES + 2 * MESSAGE_BYTES,
        "`execution/fold.rs`, before an item is changed",
        "the `Execution` goes",
        {
            "of a thousand items": Attack(
                "for i in range(1000): display('x', name='a')\n"
                "for i in range(64): display('x' * MIB, {'x': 'y' * MIB}, 'a', update=True)"
            ),
            "a storm": Attack(
                "for i in range(1000): display('x', name='a')\n"
                "for i in range(3000): display('x' * 1000, {'x': 'y' * 2000}, 'a', update=True)"
            ),
            "long names": Attack("for i in range(64): display('', name='x' * MIB + str(i))"),
        },
    ),
    Input(
        "listings of files",
        "100,000 entries; one result",
        RESULT_BYTES + 2 * MESSAGE_BYTES,
        "`files/kernel.py`, before it is split",
        "the call returns",
        {
            "a listing": Attack("forge_files(b'a' + bytes(12 * MIB))", "executor.files.list()"),
            "one entry": Attack("forge_files(b'a' + bytes(12 * MIB))", "executor.files.stat('x')"),
            "a name": Attack("forge_files(b'a' * (12 * MIB))", "executor.files.list()"),
        },
    ),
    Input(
        "blocks of files",
        "what was asked for, 3.5 MiB; one result",
        RESULT_BYTES + 2 * MESSAGE_BYTES,
        "`files/kernel.py`, against what was asked for",
        "the block is written",
        {
            "a block": Attack("forge_files(b'7', bytes(12 * MIB))", "executor.files.read('x')"),
            "lengths": Attack("forge_files(b'7' + bytes(1) * (12 * MIB))", "executor.files.read('x')"),
        },
    ),
    Input(
        "replies to code of the executor's own",
        "what was asked about; one error",
        2 * RESULT_BYTES + 2 * MESSAGE_BYTES,
        "`kernel_json.py`, before it is parsed",
        "the call returns",
        {
            "lists": Attack(
                "forge_reply('[' + '[],' * (4 * MIB) + '[]]')", "executor.install_packages(['numpy'])"
            ),
            "depth": Attack("forge_reply('[' * (12 * MIB))", "executor.install_packages(['numpy'])"),
            "a text": Attack("forge_reply('x' * (28 * MIB))", "executor.install_packages(['numpy'])"),
        },
    ),
    Input(
        "arguments of calls of host tools",
        "256 MiB that wait; 256 MiB of objects that are read, and 4 MiB for each of 32 threads",
        2 * ARGUMENT_BYTES + RESULT_BYTES + MESSAGE_BYTES,
        "`attendants.py` as they arrive; `reservations.py`, before they are decoded",
        "the call is answered",
        {
            "bytes": Attack("call_at_once(b'x' * (4 * MIB))"),
            "JSON": Attack("call_at_once([[]] * 90_000)"),
            "arrays": Attack("import numpy\ncall_at_once(numpy.zeros(MIB // 2))"),
            "a text": Attack("call_at_once('x' * (7 * MIB))"),
        },
    ),
    Input(
        "final answers",
        "`payload_limits`",
        2 * LIMITS.payload_bytes
        + LIMITS.array_bytes
        + 4 * LIMITS.image_pixels
        + 500 * LIMITS.items
        + 2 * MESSAGE_BYTES,
        "`serialization/document.py` and `budget.py`, before an object is made",
        "the caller lets go of them",
        {
            "lists": Attack("answer('safe', b'[' + b'[],' * (4 * MIB) + b'[]]')"),
            "depth": Attack("answer('safe', b'[' * (12 * MIB))"),
            "a dtype": Attack(
                """array = b'{"__type__": "ndarray", "dtype": "U50000000", "shape": [8], "data": ""}'
"""
                "answer('safe', array)"
            ),
            "a text": Attack("final_answer('x' * (28 * MIB))"),
            "an image": Attack(
                "data = base64.b64encode(png(20_000, 20_000)).decode()\n"
                """raise FinalAnswerException('safe:{"__type__": "PIL.Image", "data": "%s"}' % data)"""
            ),
            "an error": Attack("raise FinalAnswerException('safe:[' + '[],' * (4 * MIB) + '[]]')"),
        },
    ),
    Input(
        "final answers that are asked for in pieces",
        "`payload_bytes` and `max_result_bytes`",
        3 * LIMITS.payload_bytes + MESSAGE_BYTES,
        "`answers.py`, before the first piece is asked for",
        "the caller lets go of them",
        {
            "an endless one": Attack("forge_ticket(10**14)"),
            "one of that size": Attack("forge_ticket(16 * MIB)"),
        },
    ),
    Input(
        "errors",
        "`max_result_bytes`; 256 KiB of a traceback",
        2 * RESULT_BYTES + 2 * MESSAGE_BYTES,
        "`execution/failure.rs`, line by line",
        "the `Execution` goes",
        {
            "a text": Attack("raise ValueError('x' * (28 * MIB))"),
            "a name": Attack("raise type('x' * (8 * MIB), (Exception,), {})"),
            "a traceback": Attack(
                "send('error', {'ename': 'a', 'evalue': 'b', 'traceback': ['x' * 10] * (2 * MIB)})"
            ),
            "many": Attack(
                "for i in range(64): send('error', {'ename': 'a', 'evalue': 'x' * MIB, 'traceback': []})"
            ),
        },
    ),
    Input(
        "requests for input",
        "`max_result_bytes` that nobody took",
        RESULT_BYTES + 2 * MESSAGE_BYTES,
        "`session/events.rs`, as they arrive",
        "they are taken",
        {
            "prompts": Attack("for i in range(64): ask('x' * MIB)"),
            "buffers": Attack("for i in range(8): ask('', [bytes(28 * MIB)])"),
            "many": Attack("for i in range(50_000): ask('x')"),
        },
    ),
    Input(
        "comm messages, and others that nobody asked for",
        "one message",
        2 * MESSAGE_BYTES,
        "`execution/fold.rs` keeps nothing of them",
        "the next message",
        {
            "comm_open": Attack("for i in range(16): send('comm_open', {'data': {'x': 'y' * (8 * MIB)}})"),
            "comm_msg": Attack("for i in range(4): send('comm_msg', {'data': [[]] * (4 * MIB)})"),
            "of a type unknown": Attack("for i in range(8): send('x' * MIB, {'data': 'y' * (8 * MIB)})"),
            "status": Attack("for i in range(50_000): send('status', {'execution_state': 'x' * 100})"),
            "clear_output": Attack("for i in range(50_000): send('clear_output', {'wait': bool(i % 2)})"),
            "of another request": Attack(
                "for i in range(8): send('stream', {'name': 'stdout', 'text': 'y' * (8 * MIB)}, parent={})"
            ),
        },
    ),
    Input(
        "headers, and the shape of messages",
        "one message: the larger of the two limits, at least 16 MiB, and 16 MiB",
        2 * MESSAGE_BYTES,
        "`channel/connection.rs`, by its length; `protocol/wire.rs`, by its parts",
        "the next message",
        {
            "a parent": Attack(
                "parent = dict(kernel.get_parent())\n"
                "parent['header'] = dict(parent['header'], x='y' * (8 * MIB))\n"
                "for i in range(8): send('stream', {'name': 'stdout', 'text': 'y'}, parent=parent)"
            ),
            "too large": Attack(
                "for i in range(4): send('stream', {'name': 'stdout', 'text': 'y' * (60 * MIB)})"
            ),
            "parts": Attack("send('display_data', {'data': {}}, [b''] * 300_000)"),
        },
    ),
)
