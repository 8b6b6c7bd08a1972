"""transformers' Trainer with our rates, our batches and our scores."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from .config import FinetuneConfig
from .data import Examples, collate
from .learner import Learner, parameter_groups
from .scoring import Row, headline, rows_of

SCORE = "score"


class _Epoch(TrainerCallback):
    """Tells the training images which epoch it is."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **keys: Any) -> None:
        self.examples.epoch.fill_(int(state.epoch or 0))


class FinetuneTrainer(Trainer):
    """Trains a `Learner`; `evaluate` gives the task's headline as `eval_score`."""

    def __init__(self, settings: FinetuneConfig, num_classes: int, **keys: Any) -> None:
        """Keep the settings; the rest is the Trainer's."""
        super().__init__(**keys)
        self.settings, self.num_classes = settings, num_classes

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
                done = (step - warmup) / max(1, num_training_steps - warmup)
                if settings.schedule == "cosine":
                    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
                if settings.schedule == "poly":
                    return (1 - min(done, 1.0)) ** 0.9
                if settings.schedule == "exponential":
                    return 0.98 ** (step // epoch)
                if settings.schedule == "steps":
                    return 0.1 ** ((done >= 8 / 15) + (done >= 4 / 5))
                return 1.0

            self.lr_scheduler = LambdaLR(optimizer or self.create_optimizer(), factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        """The learner's own."""
        return model(inputs["pixel_values"], inputs["labels"])["loss"]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The headline on the validation images."""
        rows = self.rows(eval_dataset or self.eval_dataset)
        metrics = {f"{metric_key_prefix}_{SCORE}": headline(self.settings.task, rows)}
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
        found: dict[int, Row] = {}
        with torch.inference_mode():
            for batch in self.get_eval_dataloader(examples):
                batch = self._prepare_inputs(batch)
                numbers = [int(number) for number in batch["index"]]
                rows: list[Row] = []
                images = batch["pixel_values"]
                # Images of one size at once; of several, one by one.
                parts = [images] if isinstance(images, torch.Tensor) else [x[None] for x in images]
                labels = [batch["labels"]] if len(parts) == 1 else [[y] for y in batch["labels"]]
                for part, known in zip(parts, labels, strict=True):
                    with self.compute_loss_context_manager():
                        output = learner(part)
                    rows += rows_of(self.settings.task, output, known, self.num_classes)
                pairs = list(zip(numbers, rows, strict=True))
                # By number: the last batch is filled up with images that have been counted.
                found.update(self.accelerator.gather_for_metrics(pairs, use_gather_object=True))
        learner.train(was)
        return [found[number] for number in sorted(found)]


def make_trainer(
    config: FinetuneConfig,
    learner: Learner,
    train: Examples,
    validation: Examples | None,
    num_classes: int,
    *,
    folder: str,
    seed: int,
) -> FinetuneTrainer:
    """A trainer of one seed.

    Args:
        config: Settings.
        learner: What learns.
        train: Augmented.
        validation: Whole images; None trains to the end.
        num_classes: K.
        folder: Of the checkpoints.
        seed: Of the order and the augmentation.
    """
    from accelerate import PartialState

    together = config.batch_size * PartialState().num_processes
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
        save_total_limit=1,
        load_best_model_at_end=looks,
        metric_for_best_model=f"eval_{SCORE}" if looks else None,
        greater_is_better=True if looks else None,
        logging_steps=every,
        max_grad_norm=0.0,
        bf16=config.precision == "bf16",
        seed=seed,
        data_seed=seed,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        dataloader_persistent_workers=config.workers > 0,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=config.report_to or "none",
        disable_tqdm=False,
        ddp_find_unused_parameters=False,
    )
    # Without a launcher the Trainer would split batches over all GPUs by torch's DataParallel,
    # which cannot split boxes: several GPUs are accelerate's, one process each.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    callbacks: list[Any] = [_Epoch(train)]
    if looks and config.patience is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=config.patience))
    return FinetuneTrainer(
        config,
        num_classes,
        model=learner,
        args=arguments,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=validation,
        callbacks=callbacks,
    )
