"""What every method shares: a native backbone, its settings, a momentum copy, collapse meters."""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.configuration_utils import SubConfigSpec
from transformers.utils import ModelOutput

from .. import backbones
from ..bands import resolve_bands
from ..errors import UserError
from ..signals.views import Recipe, ViewBatch, recipe_from_settings

# What torchvision's weights are normalised with; FALSE, STICL and DINO keep it.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@strict
class SslConfig(PreTrainedConfig):
    """Settings that every method has; a method's config adds its own.

    Args:
        backbone_config: Config of the native backbone (`ResNetConfig`, `SwinConfig`, `ViTConfig`).
        bands: Band names in channel order, or a group such as "rgb"; stored as canonical names.
        value_range: Stored value that means black and the one that means full scale.
        image_mean: Mean of each band after division by `value_range[1]`.
        image_std: Standard deviation of each band on the same scale, > 0.
        image_size: Side of the (first) views in pixels: the size that the weights are trained at.
        recipe: Name of the view recipe in `signals.recipes.RECIPES`.
        view_settings: Overrides of that recipe's constants.
    """

    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="resnet")
    }

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    bands: str | list[str] | tuple[str, ...] = ("red", "green", "blue")
    value_range: list[float | int] | tuple[float | int, ...] = (0, 255)
    # 0.5 for every band is what TOV, the 2020 paradigm and GLCNet feed their networks with.
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_size: int = 224
    recipe: str = "simclr"
    view_settings: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Builds the nested backbone config (a ResNet-50 over the bands when none is given)."""
        self.bands = list(resolve_bands(self.bands))
        if self.backbone_config is None:
            self.backbone_config = backbones.backbone_config(
                "resnet50", bands=self.bands, image_size=self.image_size
            )
        elif isinstance(self.backbone_config, dict):
            settings = dict(self.backbone_config)
            self.backbone_config = AutoConfig.for_model(
                settings.pop("model_type", "resnet"), **settings
            )
        super().__post_init__(**kwargs)

    @property
    def native(self) -> PreTrainedConfig:
        """The backbone's config, which is never a plain dict after construction."""
        return cast(PreTrainedConfig, self.backbone_config)

    def refuse(self, **wrong: tuple[bool, str]) -> None:
        """Raises ValueError for the first wrong setting, given `name=(is it wrong, the rule)`."""
        for name, (is_wrong, rule) in wrong.items():
            if is_wrong:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {rule}.")

    def validate_widths(self) -> None:
        """A layer without a channel would train to nothing, without a word."""
        widths = [field.name for field in fields(self) if field.name.endswith("_dim")]
        self.refuse(**{name: (getattr(self, name) < 1, "1 or more") for name in widths})

    def validate_bands(self) -> None:
        """Every per-band list has one entry a band, and so has the backbone's stem."""
        for key in ("image_mean", "image_std"):
            if len(getattr(self, key)) != len(self.bands):
                raise ValueError(
                    f"{key} has {len(getattr(self, key))} values for {len(self.bands)} bands."
                )
        channels = getattr(self.backbone_config, "num_channels", len(self.bands))
        if channels != len(self.bands):
            raise ValueError(
                f"The backbone takes {channels} channels, not {len(self.bands)} bands."
            )


@dataclass
class SslOutput(ModelOutput):
    """What one forward pass of a method returns.

    Attributes:
        loss: Scalar.
        terms: Detached scalars to log beside the loss.
        embeddings: (B, D) detached backbone features of the first views, for the meters.
    """

    loss: Tensor | None = None
    terms: dict[str, Tensor] | None = None
    embeddings: Tensor | None = None


class SslModel(PreTrainedModel):
    """A self-supervised method around a native backbone.

    A method defines `config_class`, heads in `__init__` (ending in `post_init()`) and `forward`;
    it overrides `before_step` and `after_step` when something moves besides the optimizer.
    """

    config_class = SslConfig
    base_model_prefix = "backbone"
    main_input_name = "batch"
    input_modalities = "image"
    backbone_types: ClassVar[tuple[str, ...]] = backbones.NATIVE_TYPES

    def __init__(self, config: SslConfig) -> None:
        """Builds the native backbone; a subclass adds its heads and calls `post_init()`."""
        super().__init__(config)
        if config.native.model_type not in self.backbone_types:
            raise UserError(
                f"{type(self).__name__} works on {' or '.join(self.backbone_types)} backbones, not "
                f"on {config.native.model_type}."
            )
        self.backbone = backbones.from_config(config.native)

    @property
    def exported(self) -> PreTrainedModel:
        """The backbone that is evaluated and published."""
        return self.backbone

    @property
    def seen_size(self) -> int:
        """Side in pixels of the images that the backbone was trained on."""
        return self.config.image_size

    def check_batch(self, size: int) -> None:
        """Refuses a number of images a micro-batch, over all processes, that cannot be trained on.

        Raises:
            UserError: Before any training.
        """

    @property
    def recipe(self) -> Recipe:
        """The views that this method learns from: two of each image, unless it says otherwise.

        Raises:
            UserError: The recipe of the settings makes another number of views.
        """
        recipe = self.named_recipe()
        if len(recipe.views) != 2:
            raise UserError(
                f"{type(self).__name__} learns from two views of an image, and recipe "
                f"{self.config.recipe!r} makes {len(recipe.views)}: choose another method.recipe."
            )
        return recipe

    def named_recipe(self) -> Recipe:
        """The recipe that the settings name, with their overrides."""
        config = self.config
        return recipe_from_settings(config.recipe, config.image_size, config.view_settings or {})

    def features(self, pixel_values: Tensor) -> Tensor:
        """Pooled backbone features, (B, C, H, W) -> (B, D)."""
        return backbones.pooled(self.backbone, pixel_values)

    def forward(self, batch: ViewBatch) -> SslOutput:
        """The loss of one batch of views."""
        raise NotImplementedError(f"{type(self).__name__} defines its own forward.")

    def before_step(self, step: int, total_steps: int) -> None:
        """Called before the forward of optimizer step `step` (0-based) of `total_steps`."""

    def before_update(self, step: int, total_steps: int) -> None:
        """Called between the backward (and clipping) and the update of optimizer step `step`."""

    def after_step(self, step: int, total_steps: int) -> None:
        """Called after optimizer step `step`."""

    @classmethod
    def from_backbone(cls, name_or_path: str, **settings: Any) -> Self:
        """Starts a method from trained weights: a native folder, a Hub id or a timm name.

        Weights are loaded here and not in `__init__`, where `post_init()` would overwrite them.
        The stem is adapted when `bands` name other bands than the weights have.

        Args:
            name_or_path: What `backbones.load` takes.
            **settings: Fields of the method's config.
        """
        bands = resolve_bands(settings.get("bands", "rgb"))
        trained = backbones.load(name_or_path, bands=bands)
        model = cls(cls.config_class(backbone_config=trained.config.to_dict(), **settings))
        model.backbone.load_state_dict(trained.state_dict())
        model.sync_momentum()
        return model

    # --- momentum copies -------------------------------------------------------------------------

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(student, teacher) modules that an exponential moving average ties; none by default."""
        return []

    def post_init(self) -> None:
        """Initialise, then make every teacher equal its student.

        `PreTrainedModel.post_init` initialises each submodule by itself, so that a deep-copied
        head would start from other weights than its original.
        """
        super().post_init()
        self.freeze()
        self.sync_momentum()

    def freeze(self) -> None:
        """Marks what no optimizer may touch: teachers, and the identity pooler of a ViT.

        Called when training starts too: `from_pretrained` makes every parameter trainable again.
        """
        backbones.reset_pooler(self.backbone)
        for _, teacher in self.momentum_pairs():
            teacher.requires_grad_(False)

    @torch.no_grad()
    def sync_momentum(self) -> None:
        """Copies students to teachers, parameters and buffers."""
        for student, teacher in self.momentum_pairs():
            teacher.load_state_dict(student.state_dict())

    @torch.no_grad()
    def update_momentum(self, momentum: float) -> None:
        """Teacher <- momentum * teacher + (1 - momentum) * student, one fused call a dtype.

        Buffers stay: a teacher's BatchNorm keeps the statistics of its own features, as in MoCo and
        DINO. Those of the student's weights and views would not fit it.
        """
        for student, teacher in self.momentum_pairs():
            torch._foreach_lerp_(
                list(teacher.parameters()), list(student.parameters()), 1 - momentum
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Heads keep torch's own defaults; transformers' normal(0, 0.02) is for transformers."""
        from transformers import initialization as init

        if isinstance(module, nn.Linear) and hasattr(module, "init_std"):
            init.trunc_normal_(module.weight, std=cast(float, module.init_std))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = module.in_features**-0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm1d):
            super()._init_weights(module)


@torch.no_grad()
def collapse_meters(embeddings: Tensor) -> dict[str, float]:
    """How far the features of a batch are from having collapsed.

    Args:
        embeddings: (B, D) backbone features, any scale.

    Returns:
        `feature_std`: mean over dimensions of the standard deviation of unit vectors, times
        sqrt(D): 1 when spread over the sphere, 0 when all are equal. `mean_cosine`: mean cosine of
        different samples, 1 when all are equal. `effective_rank`: exponential of the entropy of
        the normalised singular values of the centred features (Roy & Vetterli, 2007), 1 to
        min(B - 1, D).
    """
    z = F.normalize(embeddings.float(), dim=1)
    n, dim = z.shape
    feature_std = z.std(dim=0, correction=0).mean() * dim**0.5
    mean_cosine = (z.sum(dim=0).square().sum() - n) / (n * (n - 1))
    # Singular values by way of the smaller (B, B) or (D, D) product: several times faster.
    centred = (z - z.mean(dim=0)).double()
    product = centred @ centred.T if n <= dim else centred.T @ centred
    share = torch.linalg.eigvalsh(product).clamp_min(0).sqrt()
    share = share / share.sum().clamp_min(1e-12)
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    values = torch.stack([feature_std, mean_cosine, entropy.exp().float()]).tolist()  # one sync
    return dict(zip(("feature_std", "mean_cosine", "effective_rank"), values, strict=True))
