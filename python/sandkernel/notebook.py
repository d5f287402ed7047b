"""How an execution shows itself in a notebook: what the sandbox wrote, as text and pictures only.

HTML, SVG and JavaScript of the sandbox's would run in the browser of whoever looks: they stay in `results`.
"""

from __future__ import annotations

import base64
import binascii
import html
from typing import TYPE_CHECKING

from sandkernel._sandkernel import printable

if TYPE_CHECKING:
    from sandkernel._sandkernel import Execution, Result

__all__ = ["mime_bundle"]

PICTURES = ("image/png", "image/jpeg")


def mime_bundle(execution: Execution) -> dict[str, str]:
    """Return the text of an execution, and a page with its pictures: `text/plain` and `text/html`."""
    screen = execution.screen
    texts = [screen] if screen else []
    page = [_preformatted(screen)] if screen else []
    for result in execution.results[execution.cleared_results :]:
        picture = _picture(result)
        if result.text is not None:
            texts.append(result.text)
        if picture:
            page.append(picture)
        elif result.text is not None:
            page.append(_preformatted(result.text))
    if execution.error is not None:
        error = "\n".join(execution.error.traceback) or f"{execution.error.name}: {execution.error.value}"
        texts.append(error)
        page.append(_preformatted(error))
    texts.append(repr(execution))
    page.append(_preformatted(repr(execution)))
    plain = "\n".join(text.rstrip("\n") for text in texts)
    # IPython writes it to the terminal as it is.
    return {"text/plain": printable(plain), "text/html": "".join(page)}


def _preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def _picture(result: Result) -> str:
    for mime_type in PICTURES:
        data = result.text_of(mime_type)
        if data is not None:
            try:
                # Decoded and encoded anew: what is no base64 would end the attribute.
                encoded = base64.b64encode(base64.b64decode(data)).decode()
            except (binascii.Error, ValueError):
                continue
            return f'<img src="data:{mime_type};base64,{encoded}">'
    return ""
