"""What a run says while it runs: JSON lines, trackers, the progress bar; and when it is dead."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..files import write_text
from ..methods.base import SslOutput, collapse_meters
from .stopping import TrainingStopped

# A mean cosine above this, or fewer effective dimensions than that, over three log lines in a row
# after the warm-up: the features of different images are the same and no longer train.
COLLAPSED_COSINE, COLLAPSED_RANK, COLLAPSED_LINES = 0.999, 1.5, 3
# The rank of B centred features is at most B - 1: of a few images it says nothing.
MIN_RANK_BATCH = 8


@dataclass
class LogState:
    """What a log holds between two lines, so that a resumed run writes the same ones.

    Attributes:
        losses: Losses of the steps since the last line, of one process.
        collapsed_lines: Lines in a row whose features were dead.
    """

    losses: list[float] = field(default_factory=list)
    collapsed_lines: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class MetricsLog:
    """`metrics.jsonl` of a run, its trackers and the numbers on its bar.

    Args:
        path: The file; lines beyond `step` (of a run that was stopped later) are dropped.
        accelerator: Its main process writes.
        step: Step that the run starts or continues from.
        state: What the log held at that step.
        trackers: Log to accelerate's trackers too.
        warmup_epochs: Epochs before which the meters are not judged.
        stop_on_collapse: Whether the meters are judged at all.
    """

    def __init__(
        self,
        path: Path,
        accelerator: Accelerator,
        *,
        step: int,
        state: LogState,
        trackers: bool,
        warmup_epochs: float,
        stop_on_collapse: bool,
    ) -> None:
        """Opens the file where the run stands."""
        self.path, self.accelerator, self.trackers = path, accelerator, trackers
        self.warmup_epochs, self.stop_on_collapse = warmup_epochs, stop_on_collapse
        self.losses = [torch.tensor(loss, device=accelerator.device) for loss in state.losses]
        self.images, self.started = 0, time.perf_counter()
        self.collapsed_lines = state.collapsed_lines
        if accelerator.is_main_process:
            cut_back(path, step)

    @property
    def state(self) -> LogState:
        """What a checkpoint keeps of the log; reads the losses since the last line."""
        return LogState([loss.item() for loss in self.losses], self.collapsed_lines)

    def add(self, loss: torch.Tensor, images: int) -> None:
        """Keeps a step's loss on the device; it is read when a line is written."""
        self.losses.append(loss.float())
        self.images += images

    def write(self, output: SslOutput, bar: tqdm, *, step: int, epoch: float, lr: float) -> None:
        """One line: mean loss since the last, rate, images/s, the method's terms, the meters.

        Raises:
            TrainingStopped: The loss is no number, or the features have collapsed.
        """
        now = time.perf_counter()
        # Means over the processes, so that all of them judge the run alike and stop together.
        loss = self.accelerator.reduce(torch.stack(self.losses).mean(), "mean").item()
        line: dict[str, Any] = {
            "step": step,
            "epoch": epoch,
            "loss": loss,
            "lr": lr,
            "images_per_second": self.images / (now - self.started),
        }
        self.losses.clear()
        self.started, self.images = now, 0
        if output.terms:
            terms = torch.stack([value.float() for value in output.terms.values()])
            means = self.accelerator.reduce(terms, "mean").tolist()
            line |= dict(zip(output.terms, means, strict=True))
        self.refuse_nan(line["loss"], step)
        if output.embeddings is not None:
            meters = collapse_meters(output.embeddings)
            values = torch.tensor(list(meters.values()), device=self.accelerator.device)
            line |= dict(zip(meters, self.accelerator.reduce(values, "mean").tolist(), strict=True))
            if len(output.embeddings) < MIN_RANK_BATCH:
                line.pop("effective_rank")
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            bar.set_postfix_str(
                f"loss {line['loss']:.3f}, {line['images_per_second']:.0f} images/s, "
                f"std {line.get('feature_std', math.nan):.2f}, "
                f"cos {line.get('mean_cosine', math.nan):.2f}, "
                f"rank {line.get('effective_rank', math.nan):.0f}",
                refresh=False,  # with the next step
            )
        if self.trackers:
            self.accelerator.log({k: v for k, v in line.items() if k != "step"}, step=step)
        if self.stop_on_collapse and epoch >= self.warmup_epochs:
            self.refuse_collapse(line)

    def refuse_nan(self, loss: float, step: int) -> None:
        """Stops a run whose loss is no number."""
        if not math.isfinite(loss):
            raise TrainingStopped(
                f"the loss is {loss} at step {step}: lower optimizer.lr, set clip_norm, or use "
                "precision=no; the newest checkpoint is from before"
            )

    def refuse_collapse(self, line: dict[str, Any]) -> None:
        """Stops a run whose features have been equal for several lines."""
        dead = line.get("mean_cosine", 0.0) > COLLAPSED_COSINE
        dead |= line.get("effective_rank", math.inf) < COLLAPSED_RANK
        self.collapsed_lines = self.collapsed_lines + 1 if dead else 0
        if self.collapsed_lines >= COLLAPSED_LINES:
            raise TrainingStopped(
                f"the features have collapsed at step {line['step']} (mean cosine "
                f"{line['mean_cosine']:.4f}, effective rank {line['effective_rank']:.1f}): all "
                "images look the same to the backbone; lower optimizer.lr, raise batch_size or "
                "the warm-up (stop_on_collapse=false goes on regardless)"
            )

    def check_pending(self, step: int) -> None:
        """Reads the losses since the last line, so that no checkpoint is saved after a NaN."""
        if self.losses:
            loss = self.accelerator.reduce(torch.stack(self.losses).sum(), "mean").item()
            self.refuse_nan(loss, step)


def cut_back(path: Path, step: int) -> None:
    """Drops the lines of a log beyond a step, and those that a kill has torn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    if kept != lines:
        write_text(path, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    """The step of a logged line; one that a kill has torn belongs to no step."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf
