"""Augmentation for images from above, the same for pixels, masks and boxes.

Built on torchvision's transforms, which know all three; what is ours is what they lack: quarter
turns without interpolation, and light for any number of bands.
"""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

_LIGHT = 0.2  # largest change of brightness and contrast
_STRONG_LIGHT = 0.5  # the same of a strong view
_STRONG_SCALE = (0.5, 1.0)  # areas of a strong view's crop, over the whole image
_MIN_SIDE = 2.0  # pixels of a box that a crop leaves


class RandomWindow(v2.Transform):
    """A random square cut out and brought to a size.

    Args:
        size: Side of the result in pixels.
        scale: Smallest and largest area of the square, over that of `reference`.
        whole: Whether the reference is the largest square of the image, else the square of side
            `size` (or the image's, where that is smaller), so that ground size is kept on average.
    """

    def __init__(self, size: int, scale: tuple[float, float], *, whole: bool) -> None:
        """Keeps the settings."""
        super().__init__()
        self.size, self.scale, self.whole = size, scale, whole

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the square."""
        height, width = F.get_size(flat_inputs[0])
        reference = min(height, width) if self.whole else min(height, width, self.size)
        low, high = self.scale
        area = low + (high - low) * float(torch.rand(()))
        side = max(1, min(round(reference * area**0.5), height, width))
        top = int(torch.randint(height - side + 1, ()))
        left = int(torch.randint(width - side + 1, ()))
        return {"top": top, "left": left, "height": side, "width": side}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cuts the square out of an image, a mask or boxes."""
        return self._call_kernel(
            F.resized_crop, inpt, **params, size=[self.size, self.size], antialias=True
        )


class RandomQuarterTurn(v2.Transform):
    """0, 90, 180 or 270 degrees, exact to the pixel."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the number of turns."""
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turns an image, a mask or boxes counter-clockwise."""
        turns = params["turns"]
        if not isinstance(inpt, tv_tensors.BoundingBoxes):
            return tv_tensors.wrap(torch.rot90(inpt, turns, (-2, -1)), like=inpt)
        boxes, (height, width) = inpt.as_subclass(torch.Tensor), inpt.canvas_size
        for _ in range(turns):
            x0, y0, x1, y1 = boxes.unbind(-1)
            boxes = torch.stack((y0, width - x1, y1, width - x0), dim=-1)
            height, width = width, height
        return tv_tensors.wrap(boxes, like=inpt, canvas_size=(height, width))


class RandomLight(v2.Transform):
    """Brightness and contrast of an image whose values are from 0 on, 1 being full scale.

    Args:
        change: Largest change of either.
    """

    def __init__(self, change: float = _LIGHT) -> None:
        """Keeps the setting."""
        super().__init__()
        self.change = change

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws both factors."""
        brightness, contrast = (1 + self.change * (2 * torch.rand(2) - 1)).tolist()
        return {"brightness": brightness, "contrast": contrast}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Changes an image; masks and boxes stay."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        values = inpt.as_subclass(torch.Tensor)
        mean = values.mean()
        values = (values - mean) * params["contrast"] + mean * params["brightness"]
        return tv_tensors.wrap(values.clamp_min(0), like=inpt)


def build(
    augment: str, size: int | None, scale: tuple[float, float], *, whole: bool, boxes: bool = False
) -> Any:
    """The transform of training images.

    Args:
        augment: "overhead", "flips" or "none".
        size: Side of the result; None keeps that of the image.
        scale: Areas of the crops, see `RandomWindow`.
        whole: See `RandomWindow`.
        boxes: Whether samples have `boxes`, with a class each in `classes`; those of which a crop
            leaves a sliver are dropped.

    Returns:
        A transform of a dict of `tv_tensors`, the first an image (C, H, W) float with values from
        0 on; masks (H, W), boxes (N, 4) as x0 y0 x1 y1.
    """
    steps: list[Any] = []
    if augment != "none":
        if size is not None:
            steps.append(RandomWindow(size, scale, whole=whole))
        steps += [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
        if augment == "overhead":
            steps += [RandomQuarterTurn(), RandomLight()]
    elif size is not None:
        steps.append(RandomWindow(size, (1.0, 1.0), whole=whole))
    if boxes:
        steps += [
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(_MIN_SIDE, labels_getter=lambda sample: sample["classes"]),
        ]
    return v2.Compose(steps or [v2.Identity()])


def strong(size: int) -> Any:
    """The transform of a strong view: crops, all turns and much light.

    Blur, cut-outs and crops down to a fifth, which are usual for it, leave too little of a small
    image: of UC Merced's at 64 pixels a classifier on frozen features knew 64 %, and 39, 34 and
    55 % after these.
    """
    return v2.Compose(
        [
            RandomWindow(size, _STRONG_SCALE, whole=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            RandomQuarterTurn(),
            RandomLight(_STRONG_LIGHT),
        ]
    )
