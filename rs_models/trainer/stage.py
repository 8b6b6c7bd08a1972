"""A stage of a run: what the loop holds, how it is built, kept in checkpoints and given back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed

from ..data import ImageCache
from ..errors import UserError
from ..methods.base import SslModel
from ..methods.distillation import DistillationConfig, DistilledModel
from ..signals.views import ViewBatch, ViewMaker
from . import checkpoints
from .batches import CachedBatches, Feed
from .config import RunConfig
from .feeds import build_feed
from .folder import changed, comparable
from .knn import knn_caches
from .method import build_method
from .metrics import LogState
from .optim import build_optimizer, rate_at
from .origin import Origin, Provenance, origin_of, provenance
from .small_maps import use_small_maps
from .whitening import stage_whitenings


@dataclass
class Stage:
    """One stage in training: what the loop holds and where it stands."""

    config: RunConfig
    folder: Path
    method: SslModel  # unwrapped
    model: torch.nn.Module  # as accelerate prepared it
    optimizer: torch.optim.Optimizer
    feed: Feed
    views: ViewMaker
    origin: Origin  # what the weights had seen before
    knn: tuple[ImageCache, ImageCache] | None  # of the evaluation during training
    total_steps: int
    step: int = 0
    best_knn: float = -1.0
    log_state: LogState = field(default_factory=LogState)
    last_views: ViewBatch | None = None

    @property
    def rate(self) -> float:
        """The rate of the step that comes next."""
        warmup = round(self.config.optimizer.warmup_epochs * self.feed.steps_per_epoch)
        return rate_at(
            self.config.optimizer,
            self.step,
            batch_size=self.config.batch_size,
            steps=self.total_steps,
            warmup_steps=min(self.total_steps // 2, warmup),
        )

    def provenance(self) -> Provenance:
        """What the exported weights say of themselves, at this step."""
        epochs = self.feed.passes(self.step)
        return provenance(self.config, self.method, epochs=epochs, origin=self.origin)

    def save(self, accelerator: Accelerator, log: LogState) -> None:
        """Writes `checkpoints/step-N`."""
        state = {
            "step": self.step,
            "best_knn": self.best_knn,
            "positions": gather_object([self.feed.position]),
            "log": gather_object([log.as_dict()]),
            "stage_settings": {
                **comparable(self.config),
                "data": self.feed.fingerprints[0],
                "steps": self.total_steps,
            },
        }
        folder = self.folder / "checkpoints"
        checkpoints.save(accelerator, folder, state, keep_last=self.config.keep_last)

    def restore(self, accelerator: Accelerator) -> bool:
        """Goes back to where the newest complete checkpoint stood; False where there is none.

        Raises:
            UserError: It was made with other settings, on other images or by more processes.
        """
        folder = self.folder / "checkpoints"
        if accelerator.is_main_process:
            checkpoints.tidy(folder, keep_last=self.config.keep_last)
        accelerator.wait_for_everyone()
        kept = checkpoints.complete(folder)
        if not kept:
            return False
        state = checkpoints.read_state(kept[-1])
        theirs = state["stage_settings"]
        differing = changed(self.config, theirs)
        if theirs.get("data") not in self.feed.fingerprints:
            differing.append("data")
        if theirs.get("steps") != self.total_steps:
            differing.append("steps")
        if differing:
            raise UserError(
                f"{kept[-1]} was made with other settings ({', '.join(differing)}): resume with "
                "the same ones, or start in another output_dir."
            )
        if len(state["positions"]) != accelerator.num_processes:
            raise UserError(
                f"{kept[-1]} was made by {len(state['positions'])} processes: resume with as many."
            )
        # A checkpoint of an earlier version holds a rate schedule too: the step's number says it.
        accelerator.load_state(str(kept[-1]))
        self.step, self.best_knn = state["step"], state["best_knn"]
        self.feed.position = state["positions"][accelerator.process_index]
        if "log" in state:
            self.log_state = LogState(**state["log"][accelerator.process_index])
        return True


def build_stage(
    config: RunConfig, accelerator: Accelerator, folder: Path, previous: Path | None
) -> Stage:
    """Data, method, views and optimizer of a stage, prepared by accelerate.

    Args:
        config: The stage's settings.
        accelerator: Where it trains.
        folder: Folder of the stage's checkpoints and logs.
        previous: The method that the stage before left, or None.

    Raises:
        UserError: Settings or data that cannot be used.
    """
    accelerator.free_memory()  # the previous stage's model and optimizer are not this one's
    set_seed(config.seed)
    feed, data = build_feed(config, accelerator)
    origin = origin_of(config, previous)
    method = build_method(config, data, previous)
    if isinstance(method, DistilledModel) and isinstance(feed, CachedBatches):
        settings = cast(DistillationConfig, method.config)
        if settings.teachers and settings.teacher_readout == "stages":
            device = accelerator.device
            method.teach(
                stage_whitenings(settings, feed.cache, size=config.image_size, device=device)
            )
    knn = knn_caches(config, accelerator) if config.evaluation.every else None
    method.check_batch(config.batch_size // config.gradient_accumulation)
    if config.data.place is not None and method.recipe.transfer is None:
        raise UserError(
            f"The setting data.place={config.data.place!r} is for scene transfer, which this run "
            "does not do: leave it out, or use method.name=sticl with method.transfer_probability "
            "above 0."
        )
    method.freeze()
    method.train()
    network = _network(method, config, accelerator)
    optimizer: Any = build_optimizer(method, config.optimizer, batch_size=config.batch_size)
    model, optimizer = accelerator.prepare(network, optimizer)
    views = ViewMaker(
        method.recipe,
        bands=method.config.bands,
        image_mean=method.config.image_mean,
        image_std=method.config.image_std,
        value_range=tuple(method.config.value_range),
    )
    return Stage(
        config=config,
        folder=folder,
        method=method,
        model=model,
        optimizer=optimizer,
        feed=feed,
        views=views,
        origin=origin,
        knn=knn,
        total_steps=config.max_steps or round(config.epochs * feed.steps_per_epoch),
    )


def _network(method: SslModel, config: RunConfig, accelerator: Accelerator) -> torch.nn.Module:
    """The method in the memory format, compiled, with BatchNorm over all GPUs, as set."""
    network: torch.nn.Module = method
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    network.to(memory_format=memory_format)
    if config.small_maps and accelerator.device.type == "cpu" and not config.compile:
        use_small_maps(network)
    if config.compile:
        # In place, so that the weights keep their names; one graph a size of the views.
        teachers = [teacher for _, teacher in method.momentum_pairs()]
        for module in (method.backbone, *teachers):
            module.compile(dynamic=False)
    distributed_gpus = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    if config.sync_batchnorm and distributed_gpus:
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
    return network
