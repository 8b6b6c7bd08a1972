"""The pretraining loop: flat, on accelerate, one process or many.

    cache -> batches -> views (on the device) -> method -> step -> meters -> checkpoint -> export

Every step is a function of the seed and its number, so a run continues to the bit after a stop.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from tqdm import tqdm

from ..errors import UserError, out_of_memory
from ..files import replaced, write_text
from ..methods.base import SslOutput
from ..settings import no_progress_bars, progress_bar
from .batches import MicroBatch
from .config import RECIPE, RunConfig
from .dry_run import report_dry_run
from .folder import claimed
from .knn import knn_of
from .metrics import MetricsLog, cut_back
from .optim import set_rate, set_weight_decay
from .stage import Stage, build_stage
from .stopping import StopRequest
from .trackers import refuse_missing

# k-NN during training, a line each.
KNN_LOG = "knn.jsonl"


def pretrain(config: RunConfig) -> Path | None:
    """Runs every stage of a pretraining and exports the last.

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
    refuse_missing(config.trackers)
    set_threads()
    # An earlier run of this Python process (a notebook, a study) may have had another precision.
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        log_with=[*config.trackers] or None,
        project_dir=config.output_dir,
        # The others wait while the main process downloads, decodes, exports or evaluates.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=12))],
    )
    with nullcontext() if config.dry_run else claimed(config, stages, accelerator):
        if config.trackers and not config.dry_run:
            accelerator.init_trackers("rs_models", config={"settings": json.dumps(asdict(config))})
        with repeatable(config.deterministic):
            finished = run_stages(config, stages, accelerator)
        accelerator.end_training()
    return Path(config.output_dir) / "export" if finished and not config.dry_run else None


def run_stages(config: RunConfig, stages: list[RunConfig], accelerator: Accelerator) -> bool:
    """Trains the stages that are not done; False when one was stopped on request."""
    output = Path(config.output_dir)
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
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"No memory was left with batch_size={settings.batch_size}, "
                f"image_size={settings.image_size}, precision={settings.precision}: raise "
                "gradient_accumulation, lower batch_size or image_size, or set precision=bf16."
            ) from error
        if not finished:
            return False
        previous = None if config.dry_run else results / "pretraining"
    return True


def run_stage(
    config: RunConfig,
    accelerator: Accelerator,
    folder: Path,
    results: Path,
    previous: Path | None,
    *,
    recipe: str,
) -> bool:
    """Trains one stage and writes its results; False when it was stopped on request."""
    stage = build_stage(config, accelerator, folder, previous)
    if config.dry_run:
        report_dry_run(stage, accelerator, optimizer_step)
        return True
    if accelerator.is_main_process:
        write_text(Path(config.output_dir) / RECIPE, recipe)
    if config.resume and stage.restore(accelerator):
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


def train(stage: Stage, accelerator: Accelerator, stop: StopRequest) -> bool:
    """Steps `stage.step` to `stage.total_steps`; False when asked to stop before the end."""
    config, per_epoch = stage.config, stage.feed.steps_per_epoch
    checkpoint_every = max(1, round(config.checkpoint_every * per_epoch))
    evaluate_every = max(1, round(config.evaluation.every * per_epoch))
    log = MetricsLog(
        stage.folder / "metrics.jsonl",
        accelerator,
        step=stage.step,
        state=stage.log_state,
        trackers=bool(config.trackers),
        warmup_epochs=config.optimizer.warmup_epochs,
        stop_on_collapse=config.stop_on_collapse,
    )
    if accelerator.is_main_process:
        cut_back(stage.folder / KNN_LOG, stage.step)
    saved = stage.step
    bar = progress_bar(
        stage.total_steps,
        "training",
        "step",
        shown=accelerator.is_main_process,
        initial=stage.step,
    )
    with bar:  # closed by an error too, whose sentence begins a line of its own then
        for micro_batches in stage.feed.steps(stage.step, stage.total_steps):
            output, loss = optimizer_step(stage, accelerator, micro_batches)
            stage.step += 1
            log.add(loss, config.batch_size)
            bar.update()
            asked = bool(stop)
            if stage.step % config.log_every == 0 or stage.step == stage.total_steps:
                epoch = stage.step / per_epoch
                log.write(output, bar, step=stage.step, epoch=epoch, lr=stage.rate)
                if accelerator.num_processes > 1:  # all stop together, or none does
                    flag = torch.tensor([float(asked)], device=accelerator.device)
                    asked = bool(accelerator.reduce(flag, "max").item())
            elif accelerator.num_processes > 1:
                asked = False
            if stage.knn and stage.step % evaluate_every == 0:
                evaluate_during(stage, accelerator, bar)
            if stage.step % checkpoint_every == 0 or asked:
                log.check_pending(stage.step)
                stage.save(accelerator, log.state)
                saved = stage.step
            if asked and stage.step < stage.total_steps:
                return False
    if saved != stage.step:
        stage.save(accelerator, log.state)
    return True


def optimizer_step(
    stage: Stage, accelerator: Accelerator, micro_batches: list[MicroBatch]
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
    set_rate(stage.optimizer, stage.rate)
    set_weight_decay(stage.optimizer, config.optimizer, step=stage.step, steps=stage.total_steps)
    stage.optimizer.step()
    stage.optimizer.zero_grad()
    method.after_step(stage.step, stage.total_steps)
    return output, torch.stack(losses).mean()


def write_results(stage: Stage, results: Path) -> None:
    """Writes `pretraining/` (the whole method) and `export/` (the native backbone).

    A method with a decoder also leaves `segmentation/`, which fine-tuning can start from. The
    weights travel with what repeats them: `pretrain.py --config run.yaml`.
    """
    from ..export import export, export_segmentation

    recipe = (Path(stage.config.output_dir) / RECIPE).read_text(encoding="utf-8")
    stage.method.config.rs_models = stage.provenance()
    export(stage.method, results / "export", provenance=stage.provenance())
    write_text(results / "export" / RECIPE, recipe)
    export_segmentation(stage.method, results / "segmentation", provenance=stage.provenance())
    # Last and at once: where it lies, the stage is done.
    with no_progress_bars(), replaced(results / "pretraining") as partial:
        stage.method.save_pretrained(partial)
        write_text(partial / RECIPE, recipe)


def evaluate_during(stage: Stage, accelerator: Accelerator, bar: tqdm) -> None:
    """k-NN on the validation split; the best export so far is kept as `export-best`."""
    from ..export import export

    if accelerator.is_main_process:
        assert stage.knn is not None  # the caller looked
        accuracy = knn_of(stage.method, stage.config, stage.knn)
        bar.write(f"step {stage.step}: k-NN {accuracy:.2f} % on validation")
        with (stage.folder / KNN_LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": stage.step, "knn20": accuracy}) + "\n")
        if accuracy > stage.best_knn:
            stage.best_knn = accuracy
            export(stage.method, stage.folder / "export-best", provenance=stage.provenance())
    accelerator.wait_for_everyone()


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Takes only algorithms that give the same bits each time while the block runs, where wanted.

    On CPU they all do. Of a GPU's fastest some add up in the order that threads come in.
    """
    before = torch.are_deterministic_algorithms_enabled()
    before_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    if wanted:
        # What cuBLAS asks for (CUDA's documentation, "Results reproducibility").
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=before_warned)


def set_threads() -> None:
    """Uses this machine's cores: `accelerate launch` leaves OMP_NUM_THREADS=1 behind."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(max(1, (cores or 1) // local))
