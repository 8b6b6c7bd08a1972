"""Scenes and models for the tests of whole-scene prediction."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torch import nn

from rs_models.predict import Predictor
from rs_models.preprocessing import Preprocessing

RGB = Preprocessing(("red", "green", "blue"), (0.0, 255.0), (0.0,) * 3, (1.0,) * 3, 64)
UTM = "EPSG:32631"


def pixels(height, width, channels=3, seed=0):
    """Smooth random images, (C, H, W) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 255, (channels, -(-height // 8), -(-width // 8)), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]


def write(path, image, *, crs=UTM, transform=None, names=None, **profile):
    """A GeoTIFF of an image (C, H, W); half a metre a pixel."""
    transform = transform or from_origin(500_000, 5_000_000, 0.5, 0.5)
    count, height, width = image.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=image.dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as file:
        file.write(image)
        for number, name in enumerate(names or []):
            file.set_band_description(number + 1, name)
    return Path(path)


class PixelModel(nn.Module):
    """Class scores from a pixel's own colours: nothing depends on where a tile lies."""

    config = SimpleNamespace(model_type="rs_test", id2label={0: "dark", 1: "red", 2: "blue"})

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.calls = 0
        self.fail_after = None

    def forward(self, x):
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        red, green, blue = x[:, 0], x[:, 1], x[:, 2]
        # The constants, between steps of a 255th, keep classes from being level.
        scores = (1 - red - blue, red - green + 0.0013, blue - green + 0.0026)
        return self.scale * torch.stack(scores, dim=1)


def predictor(model=None, preprocessing=RGB, task="segmentation", stride=1):
    """A predictor around a network that is called as it is."""
    model = model or PixelModel()
    names = list(model.config.id2label.values())
    return Predictor(task, model, preprocessing, names, "test", "1", stride, model)


def expected(image, model=None):
    """Class of each pixel, computed at once, (H, W)."""
    x = torch.from_numpy(image)[None].float() / 255
    with torch.no_grad():
        return (model or PixelModel())(x).argmax(1)[0].numpy()


def read(path):
    """Bands of a file, (C, H, W)."""
    with rasterio.open(path) as file:
        return file.read()
