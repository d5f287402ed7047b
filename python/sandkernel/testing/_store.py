"""What a workspace holds besides sandboxes: apps, images, secrets, volumes."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpclib import GRPCError, Status
from modal_proto import api_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str, *, length: int = 22, start: str = "") -> str:
    """Make an id such as the SDK expects: a prefix that tells the kind, and letters and digits."""
    rest = "".join(secrets.choice(ALPHABET) for _ in range(length - len(start)))
    return f"{prefix}-{start}{rest}"


@dataclass(frozen=True)
class App:
    """An app: what sandboxes belong to."""

    id: str
    name: str


@dataclass(frozen=True)
class Image:
    """An image, as the SDK defined it; nothing was built.

    Attributes:
        id: Its id.
        commands: The Dockerfile lines of all its layers, the base's first.
        layers: The same, one tuple for each layer.
    """

    id: str
    layers: tuple[tuple[str, ...], ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """The lines of all layers."""
        return tuple(line for layer in self.layers for line in layer)


@dataclass
class Secret:
    """A secret; its values are in no representation."""

    id: str
    name: str
    values: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Volume:
    """A volume; only its existence is simulated."""

    id: str
    name: str
    version: int


class Store:
    """Everything that has an id, and can be found by its name."""

    def __init__(self) -> None:
        self.apps: dict[str, App] = {}
        self.images: dict[str, Image] = {}
        self.secrets: dict[str, Secret] = {}
        self.volumes: dict[str, Volume] = {}
        self._image_ids: dict[bytes, str] = {}

    def app(self, name: str, *, create: bool) -> App:
        """Find an app by its name or id, or create it."""
        for app in self.apps.values():
            if name in (app.name, app.id):
                return app
        if not create:
            raise GRPCError(Status.NOT_FOUND, f"App {name!r} not found; create_if_missing=True creates it")
        return self.new_app(name)

    def new_app(self, name: str) -> App:
        """Create an app."""
        app = App(new_id("ap"), name)
        self.apps[app.id] = app
        return app

    def image(self, definition: api_pb2.Image) -> tuple[Image, bool]:
        """Find the image of such a definition or make it, and tell whether it was there."""
        key = definition.SerializeToString(deterministic=True)
        if key in self._image_ids:
            return self.images[self._image_ids[key]], True
        layers: tuple[tuple[str, ...], ...] = ()
        for base in definition.base_images:
            layers += self.images[base.image_id].layers if base.image_id in self.images else ()
        image = self.new_image((*layers, tuple(definition.dockerfile_commands)))
        self._image_ids[key] = image.id
        return image, False

    def new_image(self, layers: tuple[tuple[str, ...], ...]) -> Image:
        """Add an image."""
        image = Image(new_id("im"), layers)
        self.images[image.id] = image
        return image

    def find_image(self, image_id: str) -> Image:
        """Find an image by its id; one that was made elsewhere is taken for one without commands."""
        return self.images.get(image_id) or Image(image_id, ())

    def add_secret(self, name: str, values: Mapping[str, str]) -> Secret:
        """Add a secret, or replace the values of the one that has this name (if it isn't empty)."""
        for secret in self.secrets.values():
            if name and secret.name == name:
                secret.values = dict(values)
                return secret
        secret = Secret(new_id("st"), name, dict(values))
        self.secrets[secret.id] = secret
        return secret

    def secret(self, name: str, required_keys: Iterable[str]) -> Secret:
        """Find a secret by its name."""
        for secret in self.secrets.values():
            if secret.name == name:
                missing = [key for key in required_keys if key not in secret.values]
                if missing:
                    raise GRPCError(Status.FAILED_PRECONDITION, f"Secret {name!r} lacks the keys {missing}")
                return secret
        raise GRPCError(Status.NOT_FOUND, f"Secret {name!r} not found; LocalModal.add_secret() adds it")

    def variables(
        self, secret_ids: Iterable[str], sources: Iterable[api_pb2.SecretSource] = ()
    ) -> dict[str, str]:
        """Collect the variables of secrets; later ones win."""
        collected: dict[str, str] = {}
        for secret_id in secret_ids:
            collected.update(self._values(secret_id))
        for source in sources:
            collected.update(self._values(source.secret_id) if source.secret_id else source.env.contents)
        return collected

    def _values(self, secret_id: str) -> dict[str, str]:
        if secret_id not in self.secrets:
            raise GRPCError(Status.NOT_FOUND, f"Secret {secret_id} not found")
        return self.secrets[secret_id].values

    def volume(self, name: str, *, version: int, create: bool) -> Volume:
        """Find a volume by its name, or create it; one without a name is always new."""
        for volume in self.volumes.values():
            if name and volume.name == name:
                return volume
        if name and not create:
            raise GRPCError(Status.NOT_FOUND, f"Volume {name!r} not found; create_if_missing=True creates it")
        volume = Volume(new_id("vo"), name, version or api_pb2.VOLUME_FS_VERSION_V1)
        self.volumes[volume.id] = volume
        return volume
