"""Makes messages for a client that may be older than this module."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")


def message(kind: type[M], **fields: object) -> M:
    """Make a message, leaving out the fields that its definition does not have yet."""
    return kind(**{name: value for name, value in fields.items() if name in kind.DESCRIPTOR.fields_by_name})
