"""The pretraining loop: flat, on accelerate, one process or many.

    cache -> batches -> views (on the device) -> method -> step -> meters -> checkpoint -> export

Every step is a function of the seed and its number, so a run continues to the bit after a stop.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, gather_object, set_seed
from tqdm import tqdm

from ..data import ImageCache
from ..errors import UserError
from ..methods.base import SslModel, SslOutput
from ..signals.views import ViewBatch, ViewMaker
from . import checkpoints
from .config import RECIPE, RunConfig
from .metrics import MetricsLog
from .optim import build_optimizer, build_schedule, set_weight_decay
from .setup import (
    Origin,
    Provenance,
    build_feed,
    build_method,
    knn_caches,
    knn_of,
    origin_of,
    provenance,
)
from .small_maps import use_small_maps
from .stopping import StopRequest


@dataclass
class Stage:
    """One stage in training: what the loop holds and where it stands."""

    config: RunConfig
    folder: Path
    method: SslModel  # unwrapped
    model: torch.nn.Module  # as accelerate prepared it
    optimizer: Any
    schedule: Any
    feed: Any
    views: ViewMaker
    origin: Origin  # what the weights had seen before
    knn: tuple[ImageCache, ImageCache] | None  # of the evaluation during training
    total_steps: int
    steps_per_epoch: int
    step: int = 0
    best_knn: float = -1.0
    last_views: ViewBatch | None = None


def pretrain(config: RunConfig) -> Path | None:
    """Run every stage of a pretraining and export the last.

    Args:
        config: Settings, see there.

    Returns:
        `<output_dir>/export`; None after a dry run or a stop on request (then the newest
        checkpoint continues the run).

    Raises:
        UserError: Settings or data that cannot be used, or no memory for them.
        TrainingStopped: A dead run.
    """
    config.check()
    stages = config.expand()
    set_threads()
    output = Path(config.output_dir)
    refuse_to_overwrite(config, output)
    # An earlier run of this Python process (a notebook, a study) may have had another precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        log_with=[*config.trackers] or None,
        project_dir=str(output),
        # The others wait while the main process downloads, decodes, exports or evaluates.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],
    )
    if config.trackers and not config.dry_run:
        accelerator.init_trackers("rs_models", config={"settings": json.dumps(asdict(config))})
    previous: Path | None = None
    for number, settings in enumerate(stages, start=1):
        last = number == len(stages)
        folder = output if len(stages) == 1 else output / "stages" / str(number)
        results = output if last else folder
        if (results / "pretraining").is_dir() and config.resume:
            accelerator.print(f"stage {number} of {len(stages)} is done")
            previous = results / "pretraining"
            continue
        if len(stages) > 1:
            accelerator.print(f"stage {number} of {len(stages)}: {settings.data.name}")
        try:
            finished = run_stage(
                settings, accelerator, folder, results, previous, recipe=config.recipe()
            )
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"out of memory with batch_size={settings.batch_size}, "
                f"image_size={settings.image_size}, precision={settings.precision}: raise "
                "gradient_accumulation, lower batch_size or image_size, or set precision=bf16"
            ) from error
        if not finished:
            accelerator.end_training()
            return None
        previous = None if config.dry_run else results / "pretraining"
    accelerator.end_training()
    return None if config.dry_run else output / "export"


def run_stage(
    config: RunConfig,
    accelerator: Accelerator,
    folder: Path,
    results: Path,
    previous: Path | None,
    *,
    recipe: str,
) -> bool:
    """Train one stage and write its results; False when it was stopped on request."""
    stage = setup(config, accelerator, folder, previous)
    if config.dry_run:
        report_dry_run(stage, accelerator)
        return True
    if accelerator.is_main_process:
        Path(config.output_dir).mkdir(parents=True, exist_ok=True)
        (Path(config.output_dir) / RECIPE).write_text(recipe, encoding="utf-8")
    kept = checkpoints.complete(folder / "checkpoints")
    if config.resume and kept:
        state = checkpoints.read_state(kept[-1])
        mine = {**comparable(config), "data": stage.feed.fingerprint, "steps": stage.total_steps}
        theirs = state["stage_settings"]
        if mine != theirs:
            changed = [key for key, value in mine.items() if theirs.get(key) != value]
            raise UserError(
                f"{kept[-1]} was made with other settings ({', '.join(changed)}): resume with the "
                "same ones, or start in another output_dir"
            )
        if len(state["positions"]) != accelerator.num_processes:
            raise UserError(
                f"{kept[-1]} was made by {len(state['positions'])} processes: resume with as many"
            )
        accelerator.load_state(str(kept[-1]))
        stage.step, stage.best_knn = state["step"], state["best_knn"]
        stage.schedule.load_state_dict(state["schedule"])
        stage.feed.position = state["positions"][accelerator.process_index]
        accelerator.print(f"continuing at step {stage.step} of {stage.total_steps}")
    with StopRequest() as stop:
        finished = train(stage, accelerator, stop)
    if not finished:
        accelerator.print(f"stopped and saved at step {stage.step}; continue with --resume")
        return False
    if accelerator.is_main_process:
        write_results(stage, results)
    accelerator.wait_for_everyone()
    return True


def setup(
    config: RunConfig, accelerator: Accelerator, folder: Path, previous: Path | None
) -> Stage:
    """Data, method, views, optimizer and schedule of a stage, prepared by accelerate."""
    accelerator.free_memory()  # the previous stage's model and optimizer are not this one's
    set_seed(config.seed)
    feed, data = build_feed(config, accelerator)
    origin = origin_of(config, previous)
    method = build_method(config, data, previous)
    knn = knn_caches(config, accelerator) if config.evaluation.every else None
    method.check_batch(config.batch_size // config.gradient_accumulation)
    if config.data.place is not None and method.recipe.transfer is None:
        raise UserError(
            f"data.place={config.data.place!r} is for scene transfer, which this run does not do: "
            "leave it out, or use method.name=sticl with method.transfer_probability above 0"
        )
    method.freeze()
    method.train()
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    network: torch.nn.Module = method
    network.to(memory_format=memory_format)
    if config.small_maps and accelerator.device.type == "cpu" and not config.compile:
        use_small_maps(network)
    if config.compile:
        # In place, so that the weights keep their names; one graph a size of the views.
        teachers = [teacher for _, teacher in method.momentum_pairs()]
        for module in (method.backbone, *teachers):
            module.compile(dynamic=False)
    model: torch.nn.Module = method
    distributed_gpus = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    if config.sync_batchnorm and distributed_gpus:
        model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
    optimizer = build_optimizer(method, config.optimizer, batch_size=config.batch_size)
    total = config.max_steps or round(config.epochs * feed.steps_per_epoch)
    schedule = build_schedule(
        optimizer,
        config.optimizer,
        steps=total,
        warmup_steps=min(total // 2, round(config.optimizer.warmup_epochs * feed.steps_per_epoch)),
    )
    # The schedule stays unprepared: a prepared one steps once a process and not once a step.
    model, optimizer = accelerator.prepare(model, optimizer)
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
        schedule=schedule,
        feed=feed,
        views=views,
        origin=origin,
        knn=knn,
        total_steps=total,
        steps_per_epoch=feed.steps_per_epoch,
    )


def train(stage: Stage, accelerator: Accelerator, stop: StopRequest) -> bool:
    """Steps `stage.step` to `stage.total_steps`; False when asked to stop before the end."""
    config, per_epoch = stage.config, stage.steps_per_epoch
    checkpoint_every = max(1, round(config.checkpoint_every * per_epoch))
    evaluate_every = max(1, round(config.evaluation.every * per_epoch))
    log = MetricsLog(
        stage.folder / "metrics.jsonl",
        accelerator,
        step=stage.step,
        trackers=bool(config.trackers),
        warmup_epochs=config.optimizer.warmup_epochs,
        stop_on_collapse=config.stop_on_collapse,
    )
    bar = tqdm(
        total=stage.total_steps,
        initial=stage.step,
        unit="step",
        disable=not accelerator.is_main_process,
        dynamic_ncols=True,
    )
    saved = stage.step
    for micro_batches in stage.feed.steps(stage.step, stage.total_steps):
        output, loss = optimizer_step(stage, accelerator, micro_batches)
        stage.step += 1
        log.add(loss, config.batch_size)
        bar.update()
        asked = bool(stop)
        if stage.step % config.log_every == 0 or stage.step == stage.total_steps:
            epoch, lr = stage.step / per_epoch, stage.schedule.get_last_lr()[0]
            log.write(output, bar, step=stage.step, epoch=epoch, lr=lr)
            if accelerator.num_processes > 1:  # all stop together, or none does
                flag = torch.tensor([float(asked)], device=accelerator.device)
                asked = bool(accelerator.reduce(flag, "max").item())
        elif accelerator.num_processes > 1:
            asked = False
        if stage.knn and stage.step % evaluate_every == 0:
            evaluate_during(stage, accelerator, bar)
        if stage.step % checkpoint_every == 0 or asked:
            log.check_pending(stage.step)
            save_checkpoint(stage, accelerator)
            saved = stage.step
        if asked and stage.step < stage.total_steps:
            bar.close()
            return False
    bar.close()
    if saved != stage.step:
        save_checkpoint(stage, accelerator)
    return True


def optimizer_step(
    stage: Stage, accelerator: Accelerator, micro_batches: list[Any]
) -> tuple[SslOutput, torch.Tensor]:
    """One optimizer step: the last micro-batch's output and the mean loss, not synchronised."""
    method, config = stage.method, stage.config
    method.before_step(stage.step, stage.total_steps)
    losses = []
    for number, micro in enumerate(micro_batches):
        # One number a (run, step, process, micro-batch): the draw of its views.
        seed = (
            config.seed * 1_000_003
            + (stage.step * accelerator.num_processes + accelerator.process_index)
            * len(micro_batches)
            + number
        )
        # Written over the last batch's memory: fresh memory for large views costs as they do.
        stage.last_views = stage.views(
            micro.images,
            seed,
            index=micro.index,
            labels=micro.labels,
            places=micro.places,
            out=stage.last_views,
        )
        last = number == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(stage.model):
            output = stage.model(stage.last_views)
            accelerator.backward(output.loss / len(micro_batches))
        losses.append(output.loss.detach())
    if config.clip_norm is not None:
        accelerator.clip_grad_norm_(stage.model.parameters(), config.clip_norm)
    method.before_update(stage.step, stage.total_steps)
    set_weight_decay(stage.optimizer, config.optimizer, step=stage.step, steps=stage.total_steps)
    stage.optimizer.step()
    stage.schedule.step()
    stage.optimizer.zero_grad()
    method.after_step(stage.step, stage.total_steps)
    return output, torch.stack(losses).mean()


def comparable(config: RunConfig) -> dict[str, Any]:
    """The settings that a resumed run must share with its checkpoint."""
    free = {"resume", "dry_run", "output_dir", "log_every", "keep_last", "checkpoint_every"}
    free |= {"trackers", "evaluation", "stop_on_collapse", "stages", "data", "small_maps"}
    values = {key: value for key, value in asdict(config).items() if key not in free}
    # Which images these are is told by their fingerprint; how they are drawn is a setting.
    data = config.data
    return values | {"sampling": [data.sampling, data.guidance, data.place, data.limit]}


def save_checkpoint(stage: Stage, accelerator: Accelerator) -> None:
    """Write `checkpoints/step-N`."""
    state = {
        "step": stage.step,
        "best_knn": stage.best_knn,
        "schedule": stage.schedule.state_dict(),
        "positions": gather_object([stage.feed.position]),
        "stage_settings": {
            **comparable(stage.config),
            "data": stage.feed.fingerprint,
            "steps": stage.total_steps,
        },
    }
    folder = stage.folder / "checkpoints"
    checkpoints.save(accelerator, folder, state, keep_last=stage.config.keep_last)


def facts(stage: Stage) -> Provenance:
    """What the exported weights say of themselves, at this step."""
    epochs = stage.feed.passes(stage.step)
    return provenance(stage.config, stage.method, epochs=epochs, origin=stage.origin)


def write_results(stage: Stage, results: Path) -> None:
    """Write `pretraining/` (the whole method) and `export/` (the native backbone).

    A method with a decoder also leaves `segmentation/`, which fine-tuning can start from.
    """
    from ..export import export, export_segmentation

    stage.method.config.rs_models = facts(stage)
    export(stage.method, results / "export", provenance=facts(stage))
    export_segmentation(stage.method, results / "segmentation", provenance=facts(stage))
    checkpoints.write_folder(results / "pretraining", stage.method.save_pretrained)
    # The weights travel with what repeats them: `pretrain.py --config run.yaml`.
    recipe = Path(stage.config.output_dir) / RECIPE
    for part in ("export", "pretraining"):
        if recipe.is_file():
            shutil.copyfile(recipe, results / part / RECIPE)


def evaluate_during(stage: Stage, accelerator: Accelerator, bar: tqdm) -> None:
    """k-NN on the validation split; the best export so far is kept as `export-best`."""
    from ..export import export

    if accelerator.is_main_process:
        assert stage.knn is not None  # the caller looked
        accuracy = knn_of(stage.method, stage.config, stage.knn)
        bar.write(f"step {stage.step}: k-NN {accuracy:.2f} % on validation")
        with (stage.folder / "knn.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": stage.step, "knn20": accuracy}) + "\n")
        if accuracy > stage.best_knn:
            stage.best_knn = accuracy
            export(stage.method, stage.folder / "export-best", provenance=facts(stage))
    accelerator.wait_for_everyone()


def report_dry_run(stage: Stage, accelerator: Accelerator) -> None:
    """Time a few steps and print what the whole run would take; nothing is written."""
    warm, timed = 1, 3
    seconds: list[float] = []
    for micro_batches in stage.feed.steps(0, min(warm + timed, stage.total_steps)):
        started = time.perf_counter()
        _, loss = optimizer_step(stage, accelerator, micro_batches)
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - started)
        stage.step += 1
    each = sorted(seconds[warm:] or seconds)[len(seconds[warm:] or seconds) // 2]
    if accelerator.device.type == "cuda":
        memory, where = torch.cuda.max_memory_allocated(), "device"
    else:
        import resource

        memory, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "process"
    parameters = sum(p.numel() for p in stage.method.parameters())
    accelerator.print(
        f"parameters: {parameters / 1e6:.1f} M "
        f"(backbone {sum(p.numel() for p in stage.method.backbone.parameters()) / 1e6:.1f} M)\n"
        f"peak {where} memory: {memory / 2**30:.2f} GiB\n"
        f"steps: {stage.total_steps} of {stage.config.batch_size} images "
        f"({stage.steps_per_epoch} an epoch)\n"
        f"time: {each:.3f} s a step, {stage.config.batch_size / each:.1f} images/s, "
        f"{stage.total_steps * each / 3600:.2f} hours in all"
    )


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the host had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def refuse_to_overwrite(config: RunConfig, output: Path) -> None:
    """A folder with a run in it is continued or left alone, never overwritten."""
    if config.resume or config.dry_run:
        return
    for there in ("checkpoints", "pretraining", "stages"):
        if (output / there).exists():
            raise UserError(
                f"{output} already holds a run ({there}/): add --resume to continue it, or choose "
                "another output_dir"
            )


def set_threads() -> None:
    """Use this machine's cores: `accelerate launch` leaves OMP_NUM_THREADS=1 behind."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(max(1, (cores or 1) // local))
