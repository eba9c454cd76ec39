"""A picture file as upright 8-bit RGB, whatever it is stored as."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from nemo_pipeline.stages.decode import DecodeError
from nemo_pipeline.status import Status

#: More pixels than any camera makes: a file that claims so many is refused before they are allocated.
MOST_PIXELS = 300_000_000
_REMEDY = "save it again as JPEG or PNG"

with contextlib.suppress(ImportError):  # Pillow reads HEIC where this is installed
    importlib.import_module("pillow_heif").register_heif_opener()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StillPicture:
    """A decoded picture.

    Attributes:
        rgb: (H,W,3) uint8, upright.
        format: Pillow's name: JPEG, PNG, TIFF, WEBP.
        mode: how its pixels are stored, Pillow's name: RGB, L, P, CMYK, I;16.
        stored: width and height before it was turned.
        rotation: degrees clockwise that turned it upright; mirrored ones count as their rotation.
    """

    rgb: NDArray[np.uint8]
    format: str
    mode: str
    stored: tuple[int, int]
    rotation: int


def read_picture(path: Path) -> StillPicture:
    """Decode a picture: of several in one file the first. EXIF orientation is applied; 16 bits, CMYK, gray, palettes
    and floating point become 8-bit RGB; transparent parts are black.

    Raises:
        DecodeError: not a picture, damaged or too large; carries a status and a one-line explanation.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise DecodeError(Status.UNREADABLE, "The file is empty: copy it again from its source.")
        file.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # large pictures, odd EXIF data: what counts is said below
                with Image.open(file) as image:
                    if image.width * image.height > MOST_PIXELS:
                        text = f"It has {image.width} x {image.height} pixels; make a smaller copy."
                        raise DecodeError(Status.DECODE_ERROR, text)
                    stored, mode, kind = image.size, image.mode, image.format or ""
                    orientation = image.getexif().get(0x0112, 1)
                    rgb = _rgb(ImageOps.exif_transpose(_eight_bits(image)))
        except UnidentifiedImageError:
            heif = (
                f"; HEIC needs `pip install pillow-heif`, or {_REMEDY}"
                if path.suffix.lower() in (".heic", ".heif")
                else ""
            )
            raise DecodeError(
                Status.DECODE_ERROR, f"It is not a picture that can be read{heif or ': ' + _REMEDY}."
            ) from None
        except DecodeError:
            raise
        except Exception as error:  # whatever a decoder makes of a damaged file
            reason = (str(error) or type(error).__name__).splitlines()[0][:120]
            raise DecodeError(
                Status.DECODE_ERROR,
                f"It cannot be decoded ({reason}): copy it again from its source, or {_REMEDY}.",
            ) from None
    turns = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}
    return StillPicture(rgb, kind, mode, stored, turns.get(orientation, 0))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits, or floating point, as 8 bits; everything else as it is. Metadata stay."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    levels = np.asarray(image).astype(np.float64)
    levels = np.nan_to_num(levels, nan=0.0, posinf=0.0, neginf=0.0)
    most = float(levels.max(initial=0.0))
    # By what the values can be: 16 bits, 8 bits stored wider, or a fraction.
    full = (
        65535.0
        if image.mode.startswith("I;16") or most > 255
        else 1.0
        if image.mode == "F" and most <= 1
        else 255.0
    )
    gray = Image.fromarray(np.clip(np.rint(levels * (255.0 / max(full, most))), 0, 255).astype(np.uint8))
    gray.info = image.info
    gray.getexif().update(image.getexif())
    return gray


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """(H,W,3) uint8."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)
