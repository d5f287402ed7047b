"""A MIME bundle of a kernel's as a text that a model can use.

Everything here comes from the kernel, which may be hostile: whatever it holds, the time and the memory are
bounded by the length of what is looked at.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING

from sandkernel.sandbox import kernel_json

if TYPE_CHECKING:
    from sandkernel._sandkernel import Result

__all__ = ["is_drawn", "reduced", "rich_text", "text_of"]

# The representation of an object that has no better one: `<IPython.core.display.HTML object>`.
_BARE = re.compile(r"\s*<[^\n]*>")
# What the functions of plotting libraries return, beside the image that a model is to get.
_DRAWN = re.compile(
    r"<(matplotlib|mpl_toolkits|seaborn)\.|<(\w*Axes\w*|Figure|\w+Container|PolyCollection)\b|\AText\("
)
_NOT_FOR_MODELS = ("application/vnd.jupyter.", "application/vnd.sandkernel.")
_HTML_CHARACTERS = 1 << 18
_JSON_CHARACTERS = 1 << 20
_TAG = re.compile(r"<(?:(!--)|(/?)([a-zA-Z][a-zA-Z0-9-]{0,30})[^<>]*>|![^<>]*>|\?[^<>]*>)")
# Elements that hold no text for people, or only one for browsers that do not know them.
_HIDDEN = frozenset(
    [
        "audio",
        "canvas",
        "head",
        "iframe",
        "object",
        "noscript",
        "script",
        "style",
        "template",
        "title",
        "video",
    ]
)
_CELLS = frozenset(["td", "th"])
_LINES = frozenset(
    [
        "address",
        "article",
        "aside",
        "caption",
        "dd",
        "details",
        "div",
        "dt",
        "fieldset",
        "figcaption",
        "footer",
        "form",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "section",
        "summary",
        "tbody",
        "tfoot",
        "thead",
        "tr",
    ]
)
_PARAGRAPHS = frozenset(
    ["blockquote", "dl", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"]
)


def text_of(result: Result, limit: int) -> str | None:
    """Return a result as text: its own, or what its other formats say where it has none but a type's name.

    Args:
        result: A result, or something displayed.
        limit: The characters that are taken of another format.
    """
    plain = result.text
    return plain if _is_telling(plain) else _of_other_formats(result, limit) or plain


def rich_text(result: Result, limit: int) -> str | None:
    """Return the text of the formats beside `text/plain`; `None` where that says it better."""
    return None if _is_telling(result.text) else _of_other_formats(result, limit)


def _is_telling(plain: str | None) -> bool:
    return bool(plain) and _BARE.match(plain or "") is None


def _of_other_formats(result: Result, limit: int) -> str | None:
    for mime in (
        "text/markdown",
        "text/html",
        "text/latex",
        "application/json",
        *sorted(result.mime_types),
        "image/svg+xml",
    ):
        text = _text(result, mime, limit)
        if text:
            return text
    return None


def _text(result: Result, mime: str, limit: int) -> str:
    content = result.text_of(mime)
    if mime == "application/json" or (mime.startswith("application/") and mime.endswith("+json")):
        # A widget's names a model that only its page has, and ours is a final answer.
        if mime.startswith(_NOT_FOR_MODELS):
            return ""
        return _json(result.json_of(mime), limit) if content is None else _head(json.dumps(content), limit)
    if content is None:
        return ""
    if mime == "text/html":
        content = reduced(content)
    elif mime not in ("text/markdown", "text/latex", "image/svg+xml"):
        return ""
    return _head(content.strip(), limit)


def _json(text: str | None, limit: int) -> str:
    if text is None or text == "null":
        return ""
    content = kernel_json.parse(text, _JSON_CHARACTERS)
    if content is None:
        # It is longer, or holds an integer of more digits than Python reads: it is shown as it came.
        return _head(text, limit)
    if isinstance(content, dict) and isinstance(content.get("layout"), dict):
        # A template of plotly's is the same for all figures, and longer than most.
        layout = {key: value for key, value in content["layout"].items() if key != "template"}
        content = {**content, "layout": layout}
    parts, length = [], 0
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(content):
        parts.append(part)
        length += len(part)
        if length > limit:
            break
    return _head("".join(parts), limit)


def _head(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}\n[... the rest is left out ...]"


def is_drawn(text: str | None) -> bool:
    """Whether the text of a value is what a plotting library says of its artists."""
    return text is not None and _DRAWN.search(text[:1000]) is not None


class _Lines:
    """Lines of text, and the one that is being written."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._parts: list[str] = []
        self._last = ""

    def write(self, text: str, *, preformatted: bool) -> None:
        """Write a text of a page's into the line."""
        text = html.unescape(text)
        if preformatted:
            first, *others = text.split("\n")
            self._put(first)
            for other in others:
                self.end()
                self._put(other)
            return
        text = re.sub(r"\s+", " ", text)
        self._put(text.lstrip() if self._last in ("", " ") else text)

    def _put(self, text: str) -> None:
        if text:
            self._parts.append(text)
            self._last = text[-1]

    def cell(self) -> None:
        """Begin a cell of a table's row."""
        if self._last:
            self._put("| " if self._last == " " else " | ")

    def end(self) -> None:
        """End the line, also an empty one."""
        self.done.append("".join(self._parts).rstrip())
        self._parts, self._last = [], ""

    def end_block(self, *, apart: bool) -> None:
        """End the line where there is something in it; leave an empty one below it where it stands apart."""
        if self._last:
            self.end()
        if apart and self.done and self.done[-1]:
            self.done.append("")


def reduced(page: str) -> str:
    """Return the text of HTML: a line for each block, and the cells of a row beside each other.

    Not by `html.parser`, which needs time of the square of the length for some pages. This goes over a page
    once; a tag that is spelt in another way stays in the text.
    """
    page = page[:_HTML_CHARACTERS]
    lowered = page.lower() if len(page.lower()) == len(page) else page
    lines, position, preformatted = _Lines(), 0, 0
    while (tag := _TAG.search(page, position)) is not None:
        lines.write(page[position : tag.start()], preformatted=preformatted > 0)
        position = tag.end()
        closing, name = bool(tag[2]), (tag[3] or "").lower()
        if tag[1]:
            end = page.find("-->", position)
            position = len(page) if end < 0 else end + 3
        elif name in _HIDDEN and not closing:
            end = lowered.find(f"</{name}", position)
            position = len(page) if end < 0 else end
        elif name in _CELLS and not closing:
            lines.cell()
        elif name == "br":
            lines.end()
        elif name in _LINES or name in _PARAGRAPHS:
            lines.end_block(apart=name in _PARAGRAPHS)
            if name == "li" and not closing:
                lines.write("- ", preformatted=True)
        if name == "pre":
            preformatted = max(0, preformatted + (-1 if closing else 1))
    lines.write(page[position:], preformatted=preformatted > 0)
    lines.end()
    return "\n".join(lines.done).strip("\n")
