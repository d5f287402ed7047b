"""What a kernel does for each cell around its code: what does not change is looked at once."""

from __future__ import annotations

import importlib
from typing import Any


def log_what_is_shown() -> None:
    """Have the kernel's log drop what is below its level at once, not where it would be written."""
    application: Any = importlib.import_module("ipykernel.kernelapp").IPKernelApp
    start = application.start

    def start_quietly(self: Any) -> None:
        self.log.setLevel(self.log_level)
        start(self)

    application.start = start_quietly


def look_once_at_signatures() -> None:
    """Look once at what a method accepts, not for each cell."""
    kernel: Any = importlib.import_module("ipykernel.ipkernel")
    look, known = kernel._accepts_parameters, {}

    def look_once(method: Any, names: Any) -> Any:
        function = getattr(method, "__func__", None)
        if function is None:
            # What somebody has put there may be anything.
            return look(method, names)
        key = (function, *names)
        if key not in known:
            known[key] = look(method, names)
        return known[key]

    kernel._accepts_parameters = look_once


def transform_once() -> None:
    """Keep a transformed cell for whoever asks next for the same one."""
    shell: Any = importlib.import_module("IPython.core.interactiveshell").InteractiveShell
    manager: Any = importlib.import_module("IPython.core.inputtransformer2").TransformerManager
    transform = shell.transform_cell

    def transformers(manager: Any, post: Any) -> Any:
        return [*manager.cleanup_transforms, *manager.line_transforms, *manager.token_transformers, *post]

    def transform_and_keep(self: Any, raw_cell: str) -> Any:
        kept, self._kept_cell = getattr(self, "_kept_cell", None), None
        key = (raw_cell, transformers(self.input_transformer_manager, self.input_transformers_post))
        if kept is not None and kept[0] == key:
            return kept[1]
        transformed = transform(self, raw_cell)
        self._kept_cell = (key, transformed)
        return transformed

    # It has what tells that the code may add transformers of its own.
    transformers(manager(), shell.input_transformers_post.default())
    shell.transform_cell = transform_and_keep


TUNINGS = (log_what_is_shown, look_once_at_signatures, transform_once)
