"""Images of a sandbox's."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from sandkernel.exceptions import PayloadError
from sandkernel.serialization.budget import Budget, Path, brief, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["from_file", "from_pixels"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# A progressive JPEG has some ten. Each goes over all the pixels, and may be a few bytes long.
_JPEG_SCANS = 64
_BYTES_PER_PIXEL = {
    **dict.fromkeys(["L"], 1),
    **dict.fromkeys(["LA", "La", "PA", "I;16", "I;16L", "I;16B"], 2),
    **dict.fromkeys(["RGB", "YCbCr", "HSV", "LAB"], 3),
    **dict.fromkeys(["RGBA", "RGBa", "RGBX", "CMYK", "I", "F"], 4),
}
_PALETTE_BYTES = 768


def from_file(data: bytes | memoryview, budget: Budget, path: Path) -> Any:  # noqa: ANN401 PIL is optional
    """Return the image of a PNG or JPEG file, loaded.

    PIL reads the header; the pixels are decoded only where their number is within the limit.
    """
    budget.spend(path, "image_bytes", len(data), "an image of too many bytes")
    opener = _opener(bytes(data[: len(_PNG)]))
    if opener is None:
        raise refusal(path, "is an image of another format than PNG and JPEG")
    data = bytes(data)
    if data.startswith(_JPEG) and data.count(b"\xff\xda") > _JPEG_SCANS:
        raise refusal(path, f"is a JPEG image of more than {_JPEG_SCANS} scans")
    try:
        # Not `PIL.Image.open`: it warns of some sizes, by its own limit, before the size can be asked for.
        image = opener(io.BytesIO(data))
        pixels = image.size[0] * image.size[1]
        budget.spend(path, "image_pixels", pixels, f"an image of {image.size[0]} x {image.size[1]} pixels")
        image.load()
        # A compressed comment of a kilobyte can be a megabyte.
        comments = sum(len(value) for value in image.info.values() if isinstance(value, (str, bytes)))
        budget.spend(path, "image_bytes", comments, "an image with too many bytes of comments")
    except PayloadError:
        raise
    except Exception as error:
        # PIL's decoders raise whatever comes up: SyntaxError, struct.error, OSError, ValueError.
        raise refusal(path, f"is no image that can be read: {error!s:.200}") from error
    return image


def _opener(start: bytes) -> Callable[[io.BytesIO], Any] | None:
    if start == _PNG:
        from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415 optional

        return PngImageFile
    if start.startswith(_JPEG):
        from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415 optional

        return JpegImageFile
    return None


def from_pixels(
    data: memoryview, mode: object, size: object, budget: Budget, path: Path, *, palette: object = None
) -> Any:  # noqa: ANN401 PIL is optional
    """Return the image of bare pixels."""
    from PIL import Image  # noqa: PLC0415 optional

    per_pixel = _BYTES_PER_PIXEL.get(mode, 0) if isinstance(mode, str) else 0
    if mode in ("1", "P") and isinstance(size, list) and 0 in size:
        per_pixel = 1  # of none
    if not isinstance(mode, str) or not per_pixel:
        raise refusal(path, f"is an image of the mode {brief(mode)}")
    if not isinstance(size, list) or not all(type(side) is int and 0 <= side < 1 << 31 for side in size):
        raise refusal(path, f"is an image of the size {brief(size)}")
    if len(size) != 2 or size[0] * size[1] * per_pixel != data.nbytes:  # noqa: PLR2004 width and height
        raise refusal(
            path, f"is an image of the size {brief(size)} and the mode {mode}, and {data.nbytes} bytes"
        )
    budget.spend(path, "image_bytes", data.nbytes, "an image of too many bytes")
    budget.spend(path, "image_pixels", size[0] * size[1], f"an image of {size[0]} x {size[1]} pixels")
    if not data.nbytes:
        return Image.new(mode, (size[0], size[1]))
    image = Image.frombytes(mode, (size[0], size[1]), data)
    if palette is not None:
        if not isinstance(palette, bytes) or len(palette) > _PALETTE_BYTES or len(palette) % 3:
            raise refusal(path, "is an image of a palette that is none")
        image.putpalette(palette)
    return image
