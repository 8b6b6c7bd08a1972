"""STICL: spatial-temporal invariant contrastive learning.

Paper: Huang, Mou, Li, Li, Chen, Li, "Spatial-Temporal Invariant Contrastive Learning for Remote
Sensing Scene Classification", IEEE GRSL 2022, doi 10.1109/LGRS.2022.3173419.
Official code: GeoX-Lab/G-RSIM, folder T-SC-STICL.

Two images of one class differ by place, season and sensor, and two crops of one image do not.
STICL makes such pairs: with a small probability the key's view is not of the image itself but of
the image in the colours of another scene, carried over by optimal transport between the two
images' colours (see `signals.transport`). The rest is MoCo v2: InfoNCE against a queue of earlier
keys, which a slowly moving copy of the encoder made. `transfer_probability=0` is MoCo v2 with the
views of MoCo v1, `recipe=moco_v2` gives it its own (the released README runs without `--aug-plus`).

Differences: the scene is another image of the batch, which is drawn at random from the data, and
never the image itself; with `data.place` it comes from another place (or class). The transfer works
at the stored size rather than at 256 pixels. Sampled positions are new every time where the
released code draws the same ones. Keys are shuffled over the GPUs as MoCo does, which tells
BatchNorm's statistics apart only with `sync_batchnorm=false`, as in the recipe.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

import copy
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn

from .. import backbones
from ..errors import UserError
from ..signals.gather import gather, shuffle_over_processes, unshuffle_over_processes
from ..signals.losses import queue_info_nce
from ..signals.views import Recipe, SceneTransfer, ViewBatch
from .base import IMAGENET_MEAN, IMAGENET_STD, SslOutput
from .distillation import DistillationConfig, DistilledModel
from .heads import mlp


@strict
class SticlConfig(DistillationConfig):
    """Settings of STICL beyond those of every method and of distillation, which is none by default.

    Args:
        temperature: Temperature of InfoNCE, > 0.
        momentum: Momentum of the key encoder, 0 to 1; it moves before every step.
        queue_size: Earlier keys that serve as negatives, a multiple of the global batch.
        projector_dim: Width of queries and keys.
        transfer_probability: Share of keys made of a transferred image, 0 (MoCo v2) to 1.
        transfer_solver: `emd` (exact, as released; solved on the CPU within the step, which a GPU
            waits for), `gaussian` or `sliced` (on the device).
        transfer_samples: Pixels that the transport is solved for.
    """

    model_type = "rs_sticl"

    recipe: str = "moco_v1"
    image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN
    image_std: list[float] | tuple[float, ...] = IMAGENET_STD
    # GeoX-Lab/G-RSIM, T-SC-STICL/main_moco.py.
    temperature: float = 0.2
    momentum: float = 0.999
    queue_size: int = 65536
    projector_dim: int = 128
    transfer_probability: float = 0.1
    transfer_solver: Literal["emd", "gaussian", "sliced"] = "emd"
    transfer_samples: int = 1000

    def validate_queue(self) -> None:
        """Ranges of the settings."""
        self.refuse(
            temperature=(self.temperature <= 0, "above 0"),
            momentum=(not 0 <= self.momentum <= 1, "from 0 to 1"),
            queue_size=(self.queue_size < 1, "1 or more"),
            transfer_probability=(not 0 <= self.transfer_probability <= 1, "from 0 to 1"),
            transfer_samples=(self.transfer_samples < 2, "2 or more"),
        )


class SticlForPreTraining(DistilledModel):
    """Query encoder, key encoder, queue and InfoNCE."""

    config_class = SticlConfig
    queue: Tensor
    queue_place: Tensor

    def __init__(self, config: SticlConfig) -> None:
        """Builds both encoders and the queue."""
        super().__init__(config)
        width = backbones.feature_dim(config.native)
        self.projector = mlp(width, width, config.projector_dim)
        self.key_backbone = backbones.from_config(copy.deepcopy(config.native))
        self.key_projector = mlp(width, width, config.projector_dim)
        queue = F.normalize(torch.randn(config.projector_dim, config.queue_size), dim=0)
        self.register_buffer("queue", queue)  # (projector_dim, K)
        self.register_buffer("queue_place", torch.zeros(1, dtype=torch.long))
        # Every process fills its queue alike: DistributedDataParallel need not send it each step.
        self._ddp_params_and_buffers_to_ignore = ["queue", "queue_place"]
        self.post_init()

    @property
    def recipe(self) -> Recipe:
        """Two views, the second one transferred now and then."""
        config = self.config
        if config.transfer_probability == 0:
            return super().recipe
        transfer = SceneTransfer(
            config.transfer_probability, config.transfer_solver, config.transfer_samples
        )
        return replace(super().recipe, transfer=transfer)

    def momentum_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """The key encoder follows the query encoder."""
        return [(self.backbone, self.key_backbone), (self.projector, self.key_projector)]

    def before_step(self, step: int, total_steps: int) -> None:
        """Moves the key encoder before it makes keys, as MoCo does."""
        self.update_momentum(self.config.momentum)

    def forward(self, batch: ViewBatch) -> SslOutput:
        """InfoNCE of the first views against the second ones and the queue.

        Args:
            batch: One crop size, (2*B, C, H, W), queries' views then keys' views.
        """
        for_query, for_key = batch.crops[0].chunk(2)  # (B, C, H, W) each
        h = self.features(for_query)  # (B, D)
        query = self.projector(h)  # (B, projector_dim)
        key = self.keys(for_key)
        # A copy, since the backward needs the queue as it was and the new keys are written into it.
        queue = self.queue.clone()
        loss = queue_info_nce(query, key, queue, temperature=self.config.temperature)
        if self.training:
            self.enqueue(key)
        loss, terms = self.with_teachers(loss, {}, h, for_query)
        return SslOutput(loss=loss, terms=terms, embeddings=h.detach())

    @torch.no_grad()
    def keys(self, pixel_values: Tensor) -> Tensor:
        """Unit keys by the momentum encoder, (B, C, H, W) -> (B, projector_dim)."""
        rows, order = shuffle_over_processes(pixel_values)
        key = self.key_projector(backbones.pooled(self.key_backbone, rows))
        return unshuffle_over_processes(F.normalize(key.float(), dim=1), order)

    def check_batch(self, size: int) -> None:
        """The queue holds whole batches."""
        if self.config.queue_size % size:
            raise UserError(
                f"The setting method.queue_size={self.config.queue_size} must be a multiple of the "
                f"{size} keys of a micro-batch over all processes: change it or batch_size."
            )

    @torch.no_grad()
    def enqueue(self, key: Tensor) -> None:
        """Replaces the oldest keys by those of all processes.

        Raises:
            UserError: The queue is not a multiple of the global batch.
        """
        keys = gather(key)  # (W*B, projector_dim)
        queue = self.queue
        self.check_batch(len(keys))
        # Places on the device: reading the pointer here would wait for it.
        places = (self.queue_place + torch.arange(len(keys), device=queue.device)) % queue.shape[1]
        queue.index_copy_(1, places, keys.T.to(queue.dtype))
        self.queue_place.copy_((self.queue_place + len(keys)) % queue.shape[1])
