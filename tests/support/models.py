"""Small backbones whose every weight and buffer differs from its initial value."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rs_models import backbones
from rs_models.bands import resolve_bands

# One small backbone of each family.
NANOS = tuple(name for name in backbones.BACKBONES if name.endswith("_nano"))
STAGED = tuple(n for n in NANOS if backbones.family(backbones.backbone_config(n)).has_stages)


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Moves all weights and statistics, so that a swapped or dropped one shows in the features."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if not value.is_floating_point() or key.startswith("pooler."):
                continue
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(noise + 0.5) if key.endswith("running_var") else value.add_(
                noise * 0.2 - 0.1
            )
    return model.eval()


def nano(
    name: str, bands: str = "rgb", image_size: int = 64, seed: int = 0
) -> backbones.PreTrainedModel:
    return shaken(backbones.build(name, bands=bands, image_size=image_size), seed)


def images(
    bands: int = 3, size: int | tuple[int, int] = 64, batch: int = 2, seed: int = 0
) -> torch.Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, bands, height, width, generator=torch.Generator().manual_seed(seed))


def assert_features(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Equal up to the rounding of another order of summation, relative to the largest feature."""
    scale = float(expected.detach().abs().max().clamp_min(1.0))
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * scale)


def glcnet_run(folder: Path) -> Path:
    """The folder of a small GLCNet's run: a backbone, and the network of its decoder."""
    from rs_models import GlcnetConfig, GlcnetForPreTraining
    from rs_models.export import export, export_segmentation

    native = backbones.backbone_config("resnet_nano", image_size=64)
    config = GlcnetConfig(backbone_config=native, image_size=64, encoder_dim=16, decoder_dim=16)
    method = shaken(GlcnetForPreTraining(config))
    statistics = {"image_mean": list(config.image_mean), "image_std": list(config.image_std)}
    record = provenance(method.backbone, method="glcnet", **statistics)
    export(method, folder / "export", provenance=record)
    export_segmentation(method, folder / "segmentation", provenance=record)
    return folder


def provenance(model, bands="rgb", train_size=64, **changes):
    """The `rs_models` dict of a backbone, complete."""
    names = resolve_bands(bands)
    sixteen_bit = len(names) > 4
    return {
        "method": "tov",
        "bands": list(names),
        "value_range": [0, 10_000] if sixteen_bit else [0, 255],
        "image_mean": [0.3 + 0.01 * i for i in range(len(names))],
        "image_std": [0.2 + 0.01 * i for i in range(len(names))],
        "train_size": train_size,
        "output_stride": backbones.output_stride(model.config),
        "data": "synthetic",
        "data_revision": None,
        "epochs": 3,
        "version": "0.1.0",
        "commit": None,
        **changes,
    }
