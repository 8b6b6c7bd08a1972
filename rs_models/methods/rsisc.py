"""The 2020 self-supervised paradigm for remote sensing image scene classification (RSISC).

Paper: Tao, Qi, Lu, Wang, Li, "Remote Sensing Image Scene Classification With Self-Supervised
Paradigm Under Limited Labeled Samples", IEEE GRSL 2020, arXiv 2010.00882.
Official code: ErenTuring/RSISC_SSL_Paradigm.

The letter asks which signal that an image carries by itself makes good features. Three of them:

* instance discrimination: two views of an image are alike, other images are not. This is SimCLR
  (standard NT-Xent, temperature 0.5, projector D-512-128) and the zoo's SimCLR baseline;
* inpainting: fill the centre of the image (a context encoder that skips the stem's pooling, with
  skip connections from the second and third stage);
* relative position: a puzzle of 2 x 2 or 3 x 3 cells; which of its orders is it?

Beside them `autoencoder` gives the image back from its last map alone, nothing hidden and without
skip connections: no signal of the letter's, but the reviews' unsupervised baseline.

What differs from the code: negatives are those of all processes, not of each; both views pass in
one forward; the orders of the 3 x 3 puzzle are our own (see `signals.puzzle`); crops are drawn as
torchvision does. Images of 13 bands need no other code: `bands=sentinel2`.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from .. import backbones
from ..errors import UserError
from ..signals.losses import masked_reconstruction
from ..signals.multi_crop import multi_crop_nt_xent
from ..signals.puzzle import cell_size, permutation_table
from ..signals.views import Puzzle, Recipe, ViewBatch
from .base import SslOutput
from .heads import projector
from .multi_crop import MultiCropConfig, MultiCropModel

RECIPES = {
    "instance_discrimination": "rsisc",
    "inpainting": "inpainting",
    "relative_position": "jigsaw",
    "autoencoder": "inpainting",
}
_TWO_VIEWS = "instance_discrimination"
_RESTORING = ("inpainting", "autoencoder")


@strict
class RsiscConfig(MultiCropConfig):
    """Settings of the 2020 paradigm beyond those of every method and of small crops.

    Args:
        signal: `instance_discrimination`, `inpainting`, `relative_position` or `autoencoder`.
        recipe: View recipe; null is the signal's own.
        temperature: Temperature of NT-Xent, > 0.
        projector_hidden_dim: Width of the projector's hidden layer.
        projector_dim: Width of the embedding that NT-Xent sees.
        visible_weight: Weight of the visible part in inpainting's loss, 0 to 1.
        decoder_dim: Channels of the decoder of inpainting and autoencoder.
        puzzle_grid: Cells a side, 2 or 3.
        permutations: Orders to tell apart: up to 24 of 2 x 2 cells, up to 1512 of 3 x 3 (the letter
            has 24 and 1000).
    """

    model_type = "rs_rsisc"

    signal: Literal["instance_discrimination", "inpainting", "relative_position", "autoencoder"] = (
        "instance_discrimination"
    )
    recipe: str | None = None  # type: ignore[assignment]  # the signal decides
    temperature: float = 0.5
    projector_hidden_dim: int = 512
    projector_dim: int = 128
    visible_weight: float = 0.01
    decoder_dim: int = 256
    puzzle_grid: int = 2
    permutations: int = 24

    def __post_init__(self, **kwargs: Any) -> None:
        """Chooses the signal's views where none are named."""
        self.recipe = self.recipe or RECIPES[self.signal]
        super().__post_init__(**kwargs)

    def validate_signal(self) -> None:
        """Ranges of the signals' settings."""
        self.refuse(
            temperature=(self.temperature <= 0, "above 0"),
            visible_weight=(not 0 <= self.visible_weight <= 1, "from 0 to 1"),
            decoder_dim=(self.decoder_dim < 1, "1 or more"),
            local_views=(
                self.local_views > 0 and self.signal != _TWO_VIEWS,
                f"0 with {self.signal}, which learns from one view",
            ),
            teachers=(
                len(self.teachers) > 0 and self.signal != _TWO_VIEWS,
                f"left out with {self.signal}, which learns from one view",
            ),
        )
        if self.signal == "relative_position":
            permutation_table(self.puzzle_grid, self.permutations)


class RsiscForPreTraining(MultiCropModel):
    """Backbone and the head of one signal."""

    config_class = RsiscConfig
    band_mean: Tensor
    band_std: Tensor

    def __init__(self, config: RsiscConfig) -> None:
        """Builds backbone and head."""
        super().__init__(config)
        width = backbones.feature_dim(config.native)
        if config.signal in _RESTORING:
            self.decoder = ContextDecoder(
                config.native,
                len(config.bands),
                width=config.decoder_dim,
                skips=config.signal == "inpainting",
            )
            # (1, C, 1, 1), to bring any bands' values to the range of the decoder's tanh.
            for key, values in (("mean", config.image_mean), ("std", config.image_std)):
                self.register_buffer(f"band_{key}", torch.tensor(values).view(1, -1, 1, 1))
        elif config.signal == "relative_position":
            self.solver = PuzzleHead(width, config.puzzle_grid**2, config.permutations)
        else:
            self.projector = projector(width, config.projector_hidden_dim, config.projector_dim)
        self.post_init()

    @property
    def recipe(self) -> Recipe:
        """The signal's views."""
        config, recipe = self.config, self.named_recipe()
        views = 2 if config.signal == _TWO_VIEWS else 1
        is_puzzle = recipe.puzzle is not None
        if len(recipe.views) != views or is_puzzle != (config.signal == "relative_position"):
            raise UserError(
                f"Recipe {config.recipe!r} does not make the views of {config.signal}: choose "
                f"{RECIPES[config.signal]!r}, or leave method.recipe out."
            )
        if is_puzzle:
            return replace(recipe, puzzle=Puzzle(config.puzzle_grid, config.permutations))
        return self.with_local_views(recipe) if views == 2 else recipe

    @property
    def seen_size(self) -> int:
        """Of a puzzle the network sees the cells alone."""
        size, puzzle = self.config.image_size, self.recipe.puzzle
        return size if puzzle is None else cell_size(size, puzzle.grid, puzzle.margin)

    def forward(self, batch: ViewBatch) -> SslOutput:
        """The loss of the signal.

        Args:
            batch: Two views for instance discrimination, (2*B, C, H, W), and small crops behind
                them or in a second tensor; one for inpainting and autoencoder, (B, C, H, W); the
                cells of a puzzle, (cells*B, C, s, s), with `targets`.
        """
        if self.config.signal in _RESTORING:
            return self._restore(batch.crops[0])
        if self.config.signal == "relative_position":
            return self._solve(batch.crops[0], batch.targets)
        views = 2 + self.config.local_views
        h = self.view_features(batch)  # (V*B, D)
        z = self.projector(h)
        loss = multi_crop_nt_xent(z, views=views, temperature=self.config.temperature)
        return self.learned(loss, {}, h, batch)

    def _restore(self, x: Tensor) -> SslOutput:
        """Hides the central square of half height and width, or nothing, and gives all back."""
        target = 2 * (x.float() * self.band_std + self.band_mean) - 1  # black -1, full scale 1
        if self.config.signal == "inpainting":
            hidden = central_mask(x)  # (1, 1, H, W)
            output, deepest = self.decoder(self.backbone, x * (1 - hidden))
            loss = masked_reconstruction(
                output, target, hidden, visible_weight=self.config.visible_weight
            )
        else:
            output, deepest = self.decoder(self.backbone, x)
            loss = F.mse_loss(output.float(), target)
        return SslOutput(loss=loss, terms={}, embeddings=deepest.detach().mean(dim=(2, 3)))

    def _solve(self, cells: Tensor, order: Tensor | None) -> SslOutput:
        """Which order are the cells in?"""
        if order is None:
            raise UserError("The signal relative_position wants the views of the recipe 'jigsaw'.")
        maps = backbones.dense(self.backbone, cells)  # (cells*B, D, h, w)
        logits = self.solver(maps)  # (B, permutations)
        loss = F.cross_entropy(logits.float(), order)
        right = (logits.argmax(dim=1) == order).float().mean()
        features = maps.detach()[: len(order)].mean(dim=(2, 3))
        return SslOutput(loss=loss, terms={"solved": right.detach()}, embeddings=features)


def central_mask(x: Tensor) -> Tensor:
    """1 in the central square of half height and width, else 0: (1, 1, H, W) for (B, C, H, W)."""
    height, width = x.shape[-2:]
    mask = x.new_zeros(1, 1, height, width)
    mask[..., height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = 1
    return mask


class ContextDecoder(nn.Module):
    """The encoder's way without pooling, and back to the image with two skip connections.

    Args:
        native: Config of a ResNet with four stages.
        bands: Channels of the image.
        width: Channels of its maps.
        skips: Whether the second and third stage's maps are handed over.
    """

    def __init__(self, native: Any, bands: int, *, width: int = 256, skips: bool = True) -> None:
        """Builds the layers from the bottleneck up to the image."""
        super().__init__()
        if native.model_type != "resnet" or len(native.hidden_sizes) != 4:
            raise UserError("Inpainting and autoencoder need a ResNet backbone of four stages.")
        self.skips = skips
        _, second, third, last = native.hidden_sizes
        if not skips:
            second = third = 0
        narrow = min(64, width)

        def up(inner: int, outer: int, kernel: int, extra: int = 1) -> nn.Sequential:
            half = kernel // 2
            convolution = nn.ConvTranspose2d(inner, outer, kernel, 2, half, output_padding=extra)
            return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.ReLU(inplace=True))

        self.bottleneck = nn.Sequential(
            nn.Conv2d(last, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.up4 = up(width, width, 5, extra=0)
        self.up3 = up(width + third, width, 5)
        self.up2 = up(width + second, width, 3)
        self.up1 = up(width, narrow, 3)
        self.final = nn.Conv2d(narrow, bands, 7, padding=3)

    def forward(self, backbone: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the filled image (B, C, H, W) in [-1, 1], the last stage's map."""
        maps = [backbone.embedder.embedder(x)]  # stride 2: the stem without its max pooling
        for stage in backbone.encoder.stages:
            maps.append(stage(maps[-1]))  # strides 2, 4, 8, 16
        _, _, second, third, last = maps
        d = _resized(self.up4(self.bottleneck(last)), third)
        d = _resized(self.up3(torch.cat([d, third], dim=1) if self.skips else d), second)
        d = self.up2(torch.cat([d, second], dim=1) if self.skips else d)
        d = _resized(self.up1(d), x)
        return self.final(d).tanh(), last


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """Nearest neighbours to the size of another map, where a transposed convolution misses it."""
    return x if x.shape[-2:] == like.shape[-2:] else F.interpolate(x, size=like.shape[-2:])


class PuzzleHead(nn.Module):
    """From the maps of all cells to the order that they are in.

    Args:
        width: Channels D of the backbone's maps.
        cells: Cells of a puzzle.
        permutations: Orders to tell apart.
    """

    def __init__(self, width: int, cells: int, permutations: int) -> None:
        """Builds the layers."""
        super().__init__()
        self.cells = cells
        self.compress = nn.Conv2d(width, 512, 3, padding=1)
        self.cell = nn.Sequential(nn.Linear(512 * 4, 512), nn.ReLU(inplace=True), nn.Dropout(0.1))
        self.puzzle = nn.Sequential(
            nn.Linear(512 * cells, 2048), nn.ReLU(inplace=True), nn.Dropout(0.1)
        )
        self.order = nn.Linear(2048, permutations)

    def forward(self, maps: Tensor) -> Tensor:
        """(cells*B, D, h, w), place-major -> (B, permutations) logits."""
        x = F.adaptive_avg_pool2d(self.compress(maps), 2).flatten(1)  # (cells*B, 2048)
        x = self.cell(x).unflatten(0, (self.cells, -1))  # (cells, B, 512)
        return self.order(self.puzzle(x.transpose(0, 1).flatten(1)))
