"""A model that needs no network."""

from __future__ import annotations

from typing import Any

from smolagents import Model
from smolagents.models import ChatMessage, MessageRole

__all__ = ["ScriptedModel"]


class ScriptedModel(Model):  # type: ignore[misc] # smolagents has no types
    """Says one piece of code after the other, and remembers what it was shown before each.

    Args:
        steps: The code of each step.

    Attributes:
        steps: Those that are still to come.
        seen: For each step so far, the text of all messages that the model was shown.
    """

    def __init__(self, *steps: str) -> None:
        super().__init__(model_id="scripted")
        self.steps = list(steps)
        self.seen: list[str] = []

    def generate(self, messages: list[ChatMessage], **_: Any) -> ChatMessage:  # noqa: ANN401 smolagents' signature
        """Say the next step.

        Raises:
            AssertionError: None is left.
        """
        self.seen.append("\n".join(text for message in messages for text in _texts(message.content)))
        if not self.steps:
            raise AssertionError(f"The script ended after {len(self.seen) - 1} steps, and the agent goes on")
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"<code>\n{self.steps.pop(0)}\n</code>")

    def to_dict(self) -> dict[str, Any]:
        """Return what a saved agent says of its model."""
        return {"model_id": self.model_id}


def _texts(content: str | list[dict[str, Any]] | None) -> list[str]:
    if isinstance(content, list):
        return [part["text"] for part in content if "text" in part]
    return [content] if content else []
