"""Masks as people store them -> class numbers of bytes, 255 where there is no class."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from datasets.features import Image
from datasets.features.features import register_feature

from ..errors import UserError
from .names import IGNORE

logger = logging.getLogger(__name__)

_IGNORED_16_BIT = 65_535  # what 16-bit masks have in place of 255
_SAMPLE = 64  # masks that are looked at before anything is done
_SAMPLE_PIXELS = 50_000_000  # and not more pixels than that
_NO_CLASS = 100  # the second of two values from which on it is no class number
_NEAR = 48  # how far a value of a JPEG mask may be from a named one, in each channel


@dataclass
class ClassMask:
    """Image column of masks, decoded to (H, W) bytes of class numbers.

    Attributes:
        values: Stored values, "17" or "255,0,0", -> class numbers, as pairs; empty takes the stored
            values for class numbers.
        decode: Whether pixels are read; False gives the stored {"bytes", "path"}.
    """

    values: list[list] = field(default_factory=list)
    decode: bool = True
    id: str | None = field(default=None, repr=False)
    dtype: ClassVar[str] = "numpy.ndarray"
    pa_type: ClassVar[Any] = Image.pa_type
    _type: str = field(default="ClassMask", init=False, repr=False)

    def __call__(self) -> pa.DataType:
        """The Arrow type, the same as `datasets.Image`'s."""
        return self.pa_type

    def encode_example(self, value: Any) -> dict:
        """The stored form of an image, array or path."""
        return Image().encode_example(value)

    def cast_storage(self, storage: pa.Array) -> pa.Array:
        """Casts paths or structs to the storage type."""
        return Image().cast_storage(storage)

    def decode_example(self, value: dict, token_per_repo_id: dict | None = None) -> np.ndarray:
        """The class numbers, (H, W) uint8."""
        return read_mask(value, {key: number for key, number in self.values})


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="'register_feature' is experimental")
    register_feature(ClassMask, "ClassMask")


def class_masks(
    rows: Any,
    name: str,
    mask_values: Mapping[Any, Any] | None,
    others: Iterable[Sequence[Any]] = (),
) -> Any:
    """Rows whose `mask` gives class numbers.

    Args:
        rows: `datasets.Dataset` with a `mask` column of images.
        name: The data's name, for messages.
        mask_values: Stored value (17, "255,0,0" or "#ff0000") -> class number; null or "ignore" for
            none. None takes the stored values.
        others: Stored masks of the other splits, looked at only where those of this one may be read
            in two ways.

    Raises:
        UserError: Masks whose values are no class numbers, and how to say what they mean.
    """
    from .orientation import encoded, orientations, turned_mask

    pairs = mapping(mask_values)
    turned = orientations(rows)
    if turned:
        from .boxes import image_sizes

        sizes = image_sizes(rows)
        values = [
            turned_mask(value, turned[row], sizes[row]) if row in turned and value else value
            for row, value in enumerate(encoded(rows, "mask"))
        ]
        from datasets import Features
        from datasets.fingerprint import update_fingerprint

        order = rows.column_names
        fingerprint = update_fingerprint(rows._fingerprint, "turned_masks", {"rows": [*turned]})
        features: Any = Features({"mask": Image()})["mask"]
        rows = (
            rows.remove_columns("mask")
            .add_column("mask", values, new_fingerprint=fingerprint, feature=features)
            .select_columns(order)
        )
    _check_sample(rows, pairs, name, others)
    return rows.cast_column("mask", ClassMask([[key, number] for key, number in pairs.items()]))


def mapping(mask_values: Mapping[Any, Any] | None) -> dict[str, int]:
    """Stored values as text -> class numbers.

    Raises:
        UserError: A value or class number that is none.

    Example:
        >>> mapping({"#ff0000": 1, (0, 0, 0): "ignore"})
        {'255,0,0': 1, '0,0,0': 255}
    """
    pairs: dict[str, int] = {}
    for key, number in (mask_values or {}).items():
        try:
            pairs[_key(key)] = IGNORE if number in (None, "ignore") else int(number)
        except (TypeError, ValueError):
            raise UserError(
                f"The setting mask_values has {key!r}: {number!r}; write a stored value (17, "
                "'255,0,0' or "
                "'#ff0000') and its class number (0, 1, ...; null for no class)."
            ) from None
        if not 0 <= pairs[_key(key)] <= IGNORE:
            raise UserError(
                f"The setting mask_values has the class number {number}: use 0 to 254, or null."
            )
    if len({"," in key for key in pairs}) > 1:
        raise UserError("The setting mask_values has numbers and colours: use one kind.")
    return pairs


def _key(key: Any) -> str:
    if isinstance(key, list | tuple):
        return ",".join(str(int(part)) for part in key)
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    text = str(key).strip()
    if text.startswith("#") and len(text) == 7:
        return ",".join(str(int(text[i : i + 2], 16)) for i in (1, 3, 5))
    return ",".join(str(int(part)) for part in text.strip("()[] ").split(","))


def read_mask(value: Any, pairs: Mapping[str, int]) -> np.ndarray:
    """One mask as class numbers, (H, W) uint8.

    Args:
        value: {"bytes", "path"} or an image of Pillow.
        pairs: From `mapping`; empty takes the stored values.

    Raises:
        UserError: A mask that cannot be read, or values without a class.
    """
    stored, is_jpeg = stored_values(value, colours=any("," in key for key in pairs))
    if not pairs:
        return _as_numbers(stored, is_jpeg)
    if stored.ndim == 3 and not any("," in key for key in pairs):
        if (stored != stored[..., :1]).any():
            raise UserError(
                f"A mask has the colours {_shown(stored)}: name colours in mask_values."
            )
        stored = stored[..., 0]
    if stored.ndim == 2 and any("," in key for key in pairs):
        stored = np.stack([stored] * 3, axis=-1)
    return _mapped(stored, pairs, is_jpeg)


def stored_values(value: Any, *, colours: bool = False) -> tuple[np.ndarray, bool]:
    """The values of a mask, (H, W) or (H, W, 3), and whether JPEG has blurred them.

    A palette's indices are the values; pixels that alpha hides have the value 255.

    Args:
        value: {"bytes", "path"} or an image of Pillow.
        colours: Whether a palette's colours are the values, in place of its indices.

    Raises:
        UserError: A mask that cannot be read.
    """
    from .columns import CorruptImageError, open_image

    try:
        image = open_image(value) if isinstance(value, dict) else value
        is_jpeg = image.format in ("JPEG", "WEBP")
        hidden = None
        if image.mode in ("RGBA", "LA"):
            hidden = np.asarray(image.getchannel("A")) == 0
            image = image.convert("RGB" if image.mode == "RGBA" else "L")
        elif colours and image.mode == "P":
            image = image.convert("RGB")
        elif image.mode not in ("1", "L", "P", "RGB", "F") and not image.mode.startswith("I"):
            image = image.convert("RGB")
        stored = np.asarray(image)
    except (OSError, SyntaxError, ValueError, CorruptImageError) as error:
        name = (value.get("path") if isinstance(value, dict) else None) or "A mask"
        raise UserError(f"{name} cannot be read ({error}): repair or remove it.") from error
    if stored.dtype == bool:
        stored = stored.astype(np.uint8)
    if hidden is not None and hidden.any():
        stored = np.array(stored)
        stored[hidden] = IGNORE
    return stored, is_jpeg


def _as_numbers(stored: np.ndarray, is_jpeg: bool) -> np.ndarray:
    if is_jpeg:
        raise UserError(
            "A mask is stored as JPEG, which blurs its values: store masks as PNG, or say with "
            f"mask_values what the pure values mean ({_shown(stored)})."
        )
    if stored.ndim == 3:
        if (stored != stored[..., :1]).any():
            raise UserError(
                f"A mask has the colours {_shown(stored)}: say what they mean with mask_values, as "
                "in {'255,0,0': 1}."
            )
        stored = stored[..., 0]
    if stored.dtype.kind == "f":
        nothing = np.isnan(stored)
        whole = np.where(nothing, 0, stored)
        if (whole != np.round(whole)).any():
            raise UserError(
                f"A mask has the values {_shown(stored)}, which are no whole class numbers: store "
                "class numbers from 0 to 254."
            )
        stored = np.where(nothing, IGNORE, whole).astype(np.int64)
    if stored.dtype != np.uint8:
        stored = np.where(stored == _IGNORED_16_BIT, IGNORE, stored)
        if stored.size and not 0 <= stored.min() <= stored.max() <= IGNORE:
            raise UserError(
                f"A mask has the values {_shown(stored)}, and class numbers go from 0 to 254: say "
                "what they mean with mask_values, as in {311: 0, 512: 1}."
            )
    return stored.astype(np.uint8)


def _mapped(stored: np.ndarray, pairs: Mapping[str, int], is_jpeg: bool) -> np.ndarray:
    keys = np.array([[int(part) for part in key.split(",")] for key in pairs], np.int64)
    numbers = np.array(list(pairs.values()), np.uint8)
    pixels = stored.reshape(-1, keys.shape[1] if keys.shape[1] == 3 else 1)
    if pixels.dtype.kind == "f":
        pixels = np.where(np.isnan(pixels), -1, pixels)
    values, inverse = np.unique(pixels, axis=0, return_inverse=True)
    distance = np.abs(values[:, None, :].astype(np.int64) - keys[None]).max(-1)
    nearest = distance.argmin(1)
    allowed = _NEAR if is_jpeg else 0
    fits = distance[np.arange(len(values)), nearest] <= allowed
    fits &= (values == np.round(values)).all(-1)
    classes = np.where(fits, numbers[nearest], IGNORE).astype(np.uint8)
    hidden = (values == IGNORE).all(-1) | (values == -1).all(-1)
    if not is_jpeg and not (fits | hidden).all():
        unknown = values[~(fits | hidden)]
        raise UserError(
            f"A mask has the values {_shown(unknown)}, which mask_values does not name: name them, "
            "with null for no class."
        )
    return classes[inverse.reshape(-1)].reshape(stored.shape[:2])


def _shown(values: np.ndarray, most: int = 8) -> str:
    """Some of the values of a mask, for a sentence."""
    colours = values.ndim == 3 or (values.ndim == 2 and values.shape[-1] == 3)
    pixels = values.reshape(-1, 3) if colours else values.reshape(-1, 1)
    distinct = np.unique(pixels, axis=0)
    shown = [",".join(f"{part:g}" for part in pixel) for pixel in distinct[:most]]
    text = (" | " if colours else ", ").join(shown)
    return text + (f" and {len(distinct) - most} more" if len(distinct) > most else "")


def _check_sample(
    rows: Any, pairs: Mapping[str, int], name: str, others: Iterable[Sequence[Any]]
) -> None:
    """Looks at some masks before anything is trained.

    Raises:
        UserError: Naming the row, or the values of all of them.
    """
    from .orientation import encoded

    seen: set[int] = set()
    pixels = 0
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(int))
    sample = rows.select(chosen) if len(rows) else rows
    for row, value in zip(chosen, encoded(sample, "mask"), strict=True):
        if value is None:
            continue
        try:
            numbers = read_mask(value, pairs)
        except UserError as error:
            raise UserError(f"Row {row} of {name}: {error}") from error
        seen |= set(np.unique(numbers).tolist())
        pixels += numbers.size
        if pixels > _SAMPLE_PIXELS:
            break
    unclear = seen and not pairs and IGNORE in seen and seen <= {0, IGNORE}
    if unclear and not any(_has_classes(values) for values in others):
        raise UserError(
            f"The masks of {name} have no values but 0 and 255, and 255 means no class: say with "
            "mask_values={0: 0, 255: 1} that it is the second one, or with {0: 0, 255: null} that "
            "it is none."
        )
    _check_numbers(sorted(seen - {IGNORE}), pairs, name)
    if seen == {IGNORE}:
        raise UserError(f"The masks of {name} hold no class in any of {len(chosen)} looked at.")


def _has_classes(values: Sequence[Any]) -> bool:
    """Whether some of a split's masks hold class numbers from 1 on: its 255 then means none."""
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), _SAMPLE)).astype(int))
    for row in chosen.tolist() if len(values) else ():
        numbers = read_mask(values[row], {}) if values[row] is not None else np.zeros(0)
        if ((numbers > 0) & (numbers < IGNORE)).any():
            return True
    return False


def _check_numbers(seen: list[int], pairs: Mapping[str, int], name: str) -> None:
    """Refuses two-valued masks that are no class numbers, and tells others with gaps.

    Raises:
        UserError: Values 0 and, say, 128.
    """
    if not seen or pairs:
        return
    named = "{" + ", ".join(f"{value}: {number}" for number, value in enumerate(seen[:4]))
    example = named + (", ...}" if len(seen) > 4 else "}")
    if len(seen) == 2 and seen[0] == 0 and seen[1] >= _NO_CLASS:
        raise UserError(
            f"The masks of {name} have no values but 0 and {seen[1]}, which are no class numbers: "
            f"say what they mean with mask_values={example}."
        )
    if seen[0] > 0 or seen[-1] > 2 * len(seen):
        shown = ", ".join(map(str, seen[:12])) + (", ..." if len(seen) > 12 else "")
        logger.warning(
            "The masks of %s hold the values %s, taken for class numbers from 0 to %d: where they "
            "are not, say so with mask_values=%s.",
            name,
            shown,
            seen[-1],
            example,
        )
