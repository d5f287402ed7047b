"""Variables of the kernel: their values on the way there, and back."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import TYPE_CHECKING, Any

from sandkernel import serialization
from sandkernel.exceptions import PayloadError, SandkernelError, VariableNotFoundError
from sandkernel.sandbox import final_answer
from sandkernel.serialization import Encoder, UnsendableError
from sandkernel.shipment import Shipment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandkernel.plans import Plan
    from sandkernel.sandbox.setup import KernelSetup
    from sandkernel.serialization import PayloadLimits

__all__ = ["encode", "encode_value", "fetch"]


# What the kernel may go on to keep of a value that has arrived.
KEPT_BYTES = 1 << 20


def encode_value(value: Any) -> Any:  # noqa: ANN401 any value may be sent
    """Return a value in smolagents' "safe" form, ready for JSON.

    Raises:
        UnsendableError: The value has no such form.
    """
    return Encoder().encode(value)


def encode(variables: Mapping[str, Any], *, allow_pickle: bool) -> Shipment:
    """Return what carries variables to the kernel.

    Args:
        variables: The values by name. They are not to change until all is sent: large ones are read then.
        allow_pickle: Whether a value without a safe form travels as a pickle.

    Raises:
        PayloadError: A variable can't be sent; the message names it, and what in it can't.
    """
    encoder = Encoder(with_buffers=True)
    entries = []
    for name, value in variables.items():
        if not isinstance(name, str):
            raise PayloadError(f"A variable's name is text, not {name!r} ({type(name).__name__})")
        form, payload = _encode_variable(encoder, name, value, allow_pickle=allow_pickle)
        entries.append(f"{json.dumps(name)}:{json.dumps([form])[:-1]},{payload}]")
    return Shipment("_sandkernel", "receive_variables", f"{{{','.join(entries)}}}".encode(), encoder.buffers)


def fetch(setup: KernelSetup, name: str, *, limits: PayloadLimits, max_bytes: int) -> Plan[Any]:
    """Return the value of a variable of the kernel, which is never unpickled.

    Args:
        setup: Of the kernel that has it.
        name: The variable's name, which is one of Python's.
        limits: What is refused.
        max_bytes: The bytes that it may have.

    Raises:
        VariableNotFoundError: The kernel has no such variable.
        PayloadError: The value has no safe form, or is refused.
    """
    subject = f"The variable {name!r}"
    call = f"__import__('_sandkernel').send_variable({name!r})"
    execution = yield from setup.run_in_python("Reading variables", call)
    error = execution.error
    if error is not None and error.name == "VariableNotFoundError":
        raise VariableNotFoundError(f"The kernel has no variable {name!r}: no code has bound that name")
    if error is not None and error.name == "VariableError":
        raise PayloadError(f"{error.value:.2000}")
    sent = final_answer.from_results(execution)
    if sent is None and (ticket := final_answer.ticket(execution)) is not None:
        allowed = {"max_result_bytes": max_bytes, "payload_limits.payload_bytes": limits.payload_bytes}
        sent = yield from final_answer.fetch(ticket, setup, allowed, subject)
    if sent is None:
        raise SandkernelError(f"The kernel did not send the variable {name!r}")
    form, buffers = sent
    if sum(map(len, buffers)) > KEPT_BYTES:
        yield from setup.execute("__import__('_sandkernel').forget_answer()")
    return serialization.decode(form, buffers, limits=limits, subject=subject, root=name)


def _encode_variable(encoder: Encoder, name: str, value: object, *, allow_pickle: bool) -> tuple[str, str]:
    mark = len(encoder.buffers)
    try:
        return "safe", json.dumps(encoder.encode(value))
    except (UnsendableError, RecursionError, ValueError, TypeError) as error:
        del encoder.buffers[mark:]
        if not allow_pickle:
            raise PayloadError(_refusal(name, value, error)) from error
        error_text = f"{error!s:.200}"
    # As smolagents does, for each.
    warnings.warn(
        f"The variable {name!r} has no safe form, and travels as a pickle: {error_text}",
        FutureWarning,
        stacklevel=2,
    )
    try:
        return "pickle", json.dumps(encoder.buffer(pickle.dumps(value), "bytes"))
    except Exception as error:
        raise PayloadError(_refusal(name, value, error)) from error


def _refusal(name: str, value: object, error: Exception) -> str:
    if isinstance(error, RecursionError):
        reason = "it is nested too deeply, or holds itself"
    elif isinstance(error, UnsendableError) and not error.reason.startswith("it "):
        reason = f"{name}{error.path} is {error.reason}"
    else:
        reason = str(error)
    return (
        f"The variable {name!r} of type {type(value).__name__} can't be sent to the kernel: {reason:.500}. "
        "Send text, numbers, lists, dicts, dates, arrays, frames, images or dataclasses; what can only be "
        "had on this machine, such as an open client, can be no variable of the kernel"
    )
