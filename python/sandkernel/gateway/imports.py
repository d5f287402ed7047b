"""Imports the gateway without what it does not use here, which takes a third of the time."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any

# For checking formats that nothing here has; jsonschema does without. The first takes a second to import.
UNUSED_MODULES = (
    "rfc3987_syntax",
    "rfc3987",
    "rfc3986_validator",
    "isoduration",
    "webcolors",
    "uri_template",
    "fqdn",
)


class Deferred(types.ModuleType):
    """Stands in for a module of which only this much is used; anything else brings the module itself."""

    def __init__(self, name: str, **attributes: Any) -> None:
        super().__init__(name)
        specification = importlib.util.find_spec(name)
        self.__path__ = (specification and specification.submodule_search_locations) or []
        self.__dict__.update(attributes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class NoEvents:
    """For `jupyter_events.EventLogger`: nobody listens to events here, and their schemas take time."""

    def __init__(self, **_: Any) -> None:
        pass

    def register_event_schema(self, *_: Any) -> None:
        """Ignore it."""

    def emit(self, **_: Any) -> None:
        """Ignore it."""


def import_gateway() -> Any:
    """Import the gateway without what it does not use here, which takes a third of the time."""
    before = set(sys.modules)
    try:
        for name in UNUSED_MODULES:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        for module in (
            Deferred("nbformat"),
            Deferred("jupyter_server.serverapp", random_ports=lambda port, _: [port]),
            Deferred("jupyter_events", EventLogger=NoEvents),
            Deferred("jupyter_events.schema_registry", SchemaRegistryException=Exception),
        ):
            sys.modules.setdefault(module.__name__, module)
        gatewayapp = importlib.import_module("kernel_gateway.gatewayapp")
    except Exception:
        # Another version needs more of them.
        for name in set(sys.modules) - before:
            del sys.modules[name]
        sys.modules[UNUSED_MODULES[0]] = None  # type: ignore[assignment]
        gatewayapp = importlib.import_module("kernel_gateway.gatewayapp")
    return gatewayapp.KernelGatewayApp
