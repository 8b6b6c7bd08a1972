"""transformers' Trainer with our rates, our batches and our scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, TrainerState

from ... import schedules
from ...errors import UserError
from ..task import Row, Task
from . import checkpoints
from .bar import JobBar
from .config import FinetuneConfig
from .examples import Examples, collate
from .learner import Learner, parameter_groups
from .self_training import Averaging, SelfLearner, WithUnlabelled, collate_both

SCORE = "score"
_BOARD = "tensorboard"
# Rate over the peak rate, of the steps after the warm-up and their number.
_AFTER_WARMUP: dict[str, Callable[[int, int], float]] = {
    "cosine": lambda step, total: schedules.cosine(1.0, 0.0, step, total),
    "poly": lambda step, total: schedules.polynomial(1.0, 0.0, step, total, power=0.9),
    "steps": lambda step, total: schedules.stepped(1.0, 0.1, step, total, at=(8 / 15, 4 / 5)),
    "constant": lambda step, total: 1.0,
}


class _Epoch(TrainerCallback):
    """Tells the training images which epoch it is."""

    def __init__(self, examples: Examples | WithUnlabelled) -> None:
        self.examples = examples

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **keys: Any) -> None:
        self.examples.epoch.fill_(int(state.epoch or 0))


class FinetuneTrainer(Trainer):
    """Trains a `Learner`; `evaluate` gives the task's headline as `eval_score`.

    Its checkpoints are marked when they are complete, and only such are gone on from.
    """

    def __init__(self, settings: FinetuneConfig, num_classes: int, **keys: Any) -> None:
        """Keeps the settings; the rest is the Trainer's."""
        super().__init__(**keys)
        self.settings, self.num_classes = settings, num_classes

    def finish(self) -> None:
        """Trains to the end, from the newest complete checkpoint where there is one."""
        folder = Path(cast(str, self.args.output_dir))
        if self.accelerator.is_main_process:
            checkpoints.remove_incomplete(folder)
        self.accelerator.wait_for_everyone()
        newest = checkpoints.newest(folder)
        if newest is None:
            self.train()
            return
        state = TrainerState.load_from_json(str(newest / "trainer_state.json"))
        control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
        if state.global_step < self.args.max_steps and not control.get("should_training_stop"):
            self.train(resume_from_checkpoint=str(newest))
            return
        # The Trainer would train one step more: all that is left is what its end does.
        self.state = state
        best = state.best_model_checkpoint if self.args.load_best_model_at_end else None
        self._load_from_checkpoint(best or str(newest))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            checkpoints.complete(
                Path(cast(str, self.args.output_dir)),
                self.state.global_step,
                best=self.state.best_model_checkpoint,
            )

    def get_train_dataloader(self) -> Any:
        """Without a last, smaller batch, which may be one image: BatchNorm needs a variance.

        Which images that leaves out changes by epoch. Evaluation, under the same setting of the
        Trainer's, must see all of them.
        """
        self.args.dataloader_drop_last = len(cast(Any, self.train_dataset)) > self._together
        try:
            return super().get_train_dataloader()
        finally:
            self.args.dataloader_drop_last = False

    @property
    def _task(self) -> Task:
        return cast(Learner, self.accelerator.unwrap_model(self.model)).task

    @property
    def _together(self) -> int:
        """Images in a step over all processes."""
        return self.settings.batch_size * self.accelerator.num_processes

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Adam, AdamW or SGD over head and backbone."""
        if self.optimizer is None:
            learner = self.accelerator.unwrap_model(self.model)
            assert isinstance(learner, Learner)
            groups = parameter_groups(learner, self.settings)
            if self.settings.optimizer == "sgd":
                self.optimizer = torch.optim.SGD(groups, momentum=0.9)
            elif self.settings.optimizer == "adam":
                self.optimizer = torch.optim.Adam(groups)
            else:
                self.optimizer = torch.optim.AdamW(groups)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Rate of each step over the peak rate, see `FinetuneConfig.schedule`."""
        if self.lr_scheduler is None:
            epoch = max(1, len(self.get_train_dataloader()))
            settings = self.settings
            warmup = round(settings.warmup * num_training_steps)

            def factor(step: int) -> float:
                if step < warmup:
                    return (step + 1) / (warmup + 1)
                if settings.schedule == "exponential":
                    return 0.98 ** (step // epoch)
                return _AFTER_WARMUP[settings.schedule](
                    min(step, num_training_steps) - warmup, num_training_steps - warmup
                )

            self.lr_scheduler = LambdaLR(optimizer or self.create_optimizer(), factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        """The learner's own."""
        more = {key: inputs[key] for key in ("weak", "strong", "targets") if key in inputs}
        if more:
            switch = self.settings.self_training.switch * self.args.max_steps
            more["own"] = self.state.global_step >= switch
        return model(inputs["pixel_values"], inputs["labels"], **more)["loss"]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The headline on the validation images."""
        rows = self.rows(eval_dataset or self.eval_dataset)
        metrics = {f"{metric_key_prefix}_{SCORE}": self._task.headline(rows)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def rows(self, examples: Any) -> list[Row]:
        """What each image of a data set adds, in its order, on every process."""
        learner = self.accelerator.unwrap_model(self.model)
        was = learner.training
        learner.eval()
        by_number: dict[int, Row] = {}
        with torch.inference_mode():
            for batch in self.get_eval_dataloader(examples):
                batch = self._prepare_inputs(batch)
                numbers = [int(number) for number in batch["index"]]
                rows: list[Row] = []
                images = batch["pixel_values"]
                # Images of one size at once; of several, one by one.
                parts = [images] if isinstance(images, torch.Tensor) else [x[None] for x in images]
                labels = [batch["labels"]] if len(parts) == 1 else [[y] for y in batch["labels"]]
                for part, label in zip(parts, labels, strict=True):
                    with self.compute_loss_context_manager():
                        output = learner(part)
                    rows += self._task.rows(output, label, self.num_classes)
                pairs = list(zip(numbers, rows, strict=True))
                # By number: the last batch is filled up with images that have been counted.
                by_number.update(self.accelerator.gather_for_metrics(pairs, use_gather_object=True))
        learner.train(was)
        return [by_number[number] for number in sorted(by_number)]


def make_trainer(
    config: FinetuneConfig,
    learner: Learner,
    train: Examples | WithUnlabelled,
    validation: Examples | None,
    num_classes: int,
    *,
    folder: str,
    seed: int,
    bar: JobBar,
) -> FinetuneTrainer:
    """A trainer of one seed.

    Args:
        config: Settings.
        learner: What learns.
        train: Augmented.
        validation: Whole images; None trains to the end.
        num_classes: Number of classes K.
        folder: Folder of the checkpoints.
        seed: Seed of the order and the augmentation.
        bar: The run's bar.
    """
    from ...evaluation.processes import processes

    state = processes()
    together = config.batch_size * state.num_processes
    batches = max(1, len(train) // together)  # see `get_train_dataloader`
    steps = config.max_steps or max(1, math.ceil(config.epochs * batches))
    every = max(1, steps // config.evaluations)
    looks = validation is not None
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        eval_strategy="steps" if looks else "no",
        eval_steps=every if looks else None,
        save_strategy="steps",
        save_steps=every,
        load_best_model_at_end=looks,
        metric_for_best_model=f"eval_{SCORE}" if looks else None,
        greater_is_better=True if looks else None,
        logging_steps=every,
        max_grad_norm=0.0,
        bf16=config.precision == "bf16",
        use_cpu=state.device.type == "cpu",  # else bf16 is refused there
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_persistent_workers=config.workers > 0,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[name for name in config.report_to if name != _BOARD] or "none",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )
    # Without a launcher the Trainer would split batches over all GPUs by torch's DataParallel,
    # which cannot split boxes: several GPUs are accelerate's, one process each.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    callbacks: list[Any] = [_Epoch(train), bar]
    if isinstance(learner, SelfLearner):
        callbacks.append(Averaging(learner))
    if _BOARD in config.report_to:
        board = TensorBoardCallback()
        board.logging_dir = str(Path(folder).with_name("logs"))  # checkpoints go at the end
        callbacks.append(board)
    if looks and config.patience is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=config.patience))
    trainer = FinetuneTrainer(
        config,
        num_classes,
        model=learner,
        args=arguments,
        data_collator=collate_both if isinstance(train, WithUnlabelled) else collate,
        train_dataset=train,
        eval_dataset=validation,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # of dicts; the bar tells what is in them
    return trainer


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that are not installed, before anything is trained.

    Raises:
        UserError: Naming them and those that are.
    """
    from transformers.integrations import get_available_reporting_integrations

    there = get_available_reporting_integrations()
    absent = [name for name in names if name not in (*there, "none")]
    if absent:
        raise UserError(
            f"The setting report_to names {', '.join(absent)}, which "
            f"{'is' if len(absent) == 1 else 'are'} not installed (installed: "
            f"{', '.join(there) or 'none'}): install it, or leave it out."
        )
