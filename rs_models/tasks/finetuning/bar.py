"""One bar for all trainings of a run, in place of the Trainer's bars and printed dicts."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from ...settings import progress_bar


class JobBar(TrainerCallback):
    """Tells which training of how many it is, the loss, and the score on the validation images.

    Args:
        trainings: How many there are.
        shown: Whether this process draws.
    """

    def __init__(self, trainings: int, *, shown: bool) -> None:
        """Draws nothing yet: the number of steps is not known."""
        self.trainings, self.shown, self.ended = trainings, shown, 0
        self.bar: tqdm | None = None
        self.told: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **keys: Any) -> None:
        """Learns how many steps a training has."""
        total = state.max_steps * self.trainings
        if self.bar is None:
            self.bar = progress_bar(total, "fine-tuning", "step", shown=self.shown)
        self._move(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **keys: Any) -> None:
        """Moves on."""
        self._move(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **keys: Any) -> None:
        """Keeps the newest loss and score."""
        names = {"loss": ("loss", "{:.3f}"), "eval_score": ("validation", "{:.1f}")}
        for key, (name, form) in names.items():
            if key in (logs or {}):
                self.told[name] = form.format(logs[key])

    def training_is_done(self) -> None:
        """Counts a training, also one that was done before or that stopped early."""
        self.ended += 1
        self.told = {}
        if self.bar is not None and self.bar.total:
            self.bar.n = self.ended * self.bar.total // self.trainings
            self.bar.refresh()

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.close()

    def _move(self, step: int, steps: int) -> None:
        assert self.bar is not None  # a training has begun
        parts = [f"{name} {value}" for name, value in self.told.items()]
        if self.trainings > 1:
            parts.insert(0, f"training {self.ended + 1} of {self.trainings}")
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update(self.ended * steps + step - self.bar.n)
