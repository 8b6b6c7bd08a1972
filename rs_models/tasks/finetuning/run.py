"""A fine-tuning run: every seed trained, the test images looked at once, one result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import set_seed

from ...backbones.processor import processor_settings, processor_size
from ...data import resolve_revision
from ...data.sampling import hash_indices
from ...errors import UserError
from ...evaluation.processes import processes
from ...evaluation.results import Result, write
from ...files import claim, replaced, write_json, write_text
from ...settings import no_progress_bars
from . import augment
from .bar import JobBar
from .card import card
from .config import FinetuneConfig, protocol_name
from .data import Split, content_hash
from .draws import Draw
from .examples import Examples, collate
from .learner import Learner, balanced_weights
from .network import Network, build
from .plan import Plan
from .scoring import interval
from .self_training import SelfLearner, WithUnlabelled, beginning, embeddings, stage_embeddings
from .trainer import make_trainer

SETTINGS = "finetune.yaml"
_HELD_OUT = "held out from the labelled images"
# What may differ between two runs in one folder.
_FREE = ("output_dir", "results_dir", "workers", "report_to", "json", "dry_run", "seeds")


def finetune(config: FinetuneConfig, *, command: str = "rs_models.finetune") -> Result | None:
    """Fine-tunes a model once a seed and measures it on the test images.

    `output_dir` gets `model/` (of the first seed, with its image processor), `seed-<n>/` and
    `results/`. Started again after a stop it goes on where it was; a finished seed is not repeated.

    Args:
        config: Settings.
        command: Command that measures it again, for the result.

    Returns:
        The result; None of a dry run.

    Raises:
        UserError: Settings, model or data that do not fit each other, or a folder that holds
            another run.
    """
    run = Run(Plan.of(config), command)
    if config.dry_run:
        run.dry()
        return None
    return run.all()


class Run:
    """What a plan becomes: trainings, a model, and a result.

    Attributes:
        plan: What is fine-tuned on what.
        config: Its settings.
        command: Command that measures it again.
        output: Folder of the run.
    """

    def __init__(self, plan: Plan, command: str) -> None:
        """Keeps the plan; nothing is written."""
        self.plan, self.config, self.command = plan, plan.config, command
        self.output = Path(plan.config.output_dir)
        self.state = processes()

    def all(self) -> Result | None:
        """Every training, the model and the result; None on processes beside the first."""
        config, plan = self.config, self.plan
        # What does not fit is found here, before the folder is taken.
        first = plan.draw(config.seeds[0])
        self._learner(plan, first.learned, config.seeds[0])
        if self.state.is_main_process and (line := plan.said(first)):
            print(line, file=sys.stderr)
        with self._claimed():
            folds = plan.folds()
            with contextlib.closing(JobBar(len(folds), shown=self.state.is_main_process)) as bar:
                trainings = [
                    self._training(part, seed, self.output / name, bar)
                    for seed, part, name in folds
                ]
            if not self.state.is_main_process:
                return None
            result = self._result(
                [rows for rows, _ in trainings], [facts for _, facts in trainings]
            )
            with replaced(self.output / "model") as folder:
                shutil.copytree(self.output / folds[0][2] / "model", folder, dirs_exist_ok=True)
                made = json.loads((folder / "config.json").read_text(encoding="utf-8"))
                text = card(result, plan.classes, made["architectures"][0])
                (folder / "README.md").write_text(text, encoding="utf-8")
            write(result, config.results_dir or self.output / "results")
            return result

    def dry(self) -> None:
        """Tries one step on the first images and says what a run would do."""
        config, plan, seed = self.config, self.plan, self.config.seeds[0]
        drawn = plan.draw(seed)
        learner, network = self._learner(plan, drawn.learned, seed)
        examples = self._examples(plan, network, plan.train, drawn.learned, seed=seed)
        batch = collate([examples[i] for i in range(min(len(examples), config.batch_size))])
        loss = learner.train()(batch["pixel_values"], batch["labels"])["loss"]
        loss.backward()
        trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
        total = sum(p.numel() for p in learner.model.parameters())
        print(
            f"{config.task} of {plan.start.name} on {plan.data}, protocol "
            f"{protocol_name(config)}: {len(plan.classes)} classes, {len(drawn.learned)} labelled "
            f"images to learn from, {len(drawn.held)} for validation, {len(plan.test)} for the "
            f"test, {len(config.seeds)} seeds; {trained:,} of {total:,} weights learn at "
            f"{plan.size} pixels; the first loss is {loss.item():.3f}. Nothing was written."
        )

    def _learner(self, plan: Plan, rows: np.ndarray, seed: int) -> tuple[Learner, Network]:
        # Of the new parts, and of a random backbone; whatever ran before does not matter.
        set_seed(seed)
        with no_progress_bars():
            network = build(plan, rows)
        weights = None
        if self.config.class_weights == "balanced":
            weights = balanced_weights(plan.train, rows, len(plan.classes))
        keys: dict[str, Any] = {
            "frozen": self.config.tune == "frozen",
            "freeze_norm": self.config.freeze_norm,
            "class_weights": weights,
        }
        more = self.config.self_training
        if more.weight:
            keys |= {"settings": more, "num_classes": len(plan.classes)}
        return (SelfLearner if more.weight else Learner)(network.model, plan.task, **keys), network

    def _examples(
        self, plan: Plan, network: Network, split: Split, rows: Any, *, seed: int | None = None
    ) -> Examples:
        """Images to learn from where there is a seed of their augmentation, whole ones else."""
        whole, transform = plan.task.whole_image, None
        if seed is not None:
            low, high = self.config.crop_scale
            transform = augment.build(
                self.config.augment,
                plan.size,
                (low, high),
                whole=whole,
                boxes=plan.task.has_boxes,
            )
        return Examples(
            split,
            rows,
            network.preprocessing,
            len(plan.classes),
            transform=transform,
            size=plan.size if whole else None,
            seed=seed or 0,
        )

    def _training(
        self, plan: Plan, seed: int, folder: Path, bar: JobBar
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows of the test images, and what the result says of this seed."""
        done, checkpoints = folder / "test.json", folder / "checkpoints"
        if not done.is_file():
            self._train(plan, seed, folder, bar)
        bar.training_is_done()
        if self.state.is_main_process:
            shutil.rmtree(checkpoints, ignore_errors=True)
        self.state.wait_for_everyone()
        kept = json.loads(done.read_text(encoding="utf-8"))
        return kept["rows"], kept["facts"]

    def _train(self, plan: Plan, seed: int, folder: Path, bar: JobBar) -> None:
        drawn = plan.draw(seed)
        learner, network = self._learner(plan, drawn.learned, seed)
        learned = drawn.learned
        if len(learned) == 1:  # twice, under other crops: BatchNorm needs a variance
            learned = np.repeat(learned, 2)
        labelled = self._examples(plan, network, plan.train, learned, seed=seed)
        train: Examples | WithUnlabelled = labelled
        if isinstance(learner, SelfLearner):
            train = self._with_unlabelled(plan, network, learner, labelled, drawn, seed)
        validation = None
        if len(drawn.held):
            validation = self._examples(plan, network, drawn.validation, drawn.held)
        trainer = make_trainer(
            self.config,
            learner,
            train,
            validation,
            len(plan.classes),
            folder=str(folder / "checkpoints"),
            seed=seed,
            bar=bar,
        )
        trainer.finish()
        rows = trainer.rows(self._examples(plan, network, plan.test, range(len(plan.test))))
        facts = self._facts(plan, drawn, seed, network, trainer.state)
        if self.state.is_main_process:
            self._save(plan, folder / "model", learner, network)
            write_json(folder / "test.json", {"facts": facts, "rows": rows})
        self.state.wait_for_everyone()

    def _with_unlabelled(
        self,
        plan: Plan,
        network: Network,
        learner: SelfLearner,
        labelled: Examples,
        drawn: Draw,
        seed: int,
    ) -> WithUnlabelled:
        """The labelled images with the split's others beside; the learner starts from both."""
        settings = self.config.self_training
        held: Any = drawn.held if plan.validation is None else []
        rows = np.setdiff1d(np.arange(len(plan.train)), held)
        assert plan.train.labels is not None  # `check` has seen to it
        labels = np.where(np.isin(rows, drawn.learned), plan.train.labels[rows], -1)
        if not (labels < 0).any():
            raise UserError(
                f"{plan.train.name} has no image without a label beside the {len(drawn.labelled)} "
                "drawn: leave self_training out, or draw fewer labels."
            )
        whole = self._examples(plan, network, plan.train, rows)
        network.model.to(self.state.device)
        probe, targets = beginning(
            embeddings(network.model, whole),
            stage_embeddings(network.model, whole, network.preprocessing),
            labels,
            len(plan.classes),
            settings,
        )
        learner.begin(probe)
        others = labels < 0
        if self.state.is_main_process:
            print(f"{plan.data}: {others.sum()} images without labels help.", file=sys.stderr)
        weak = self._examples(plan, network, plan.train, rows[others], seed=seed)
        strong = augment.strong(plan.size)
        return WithUnlabelled(labelled, weak, strong, targets[others], settings.ratio)

    def _facts(
        self, plan: Plan, drawn: Draw, seed: int, network: Network, trained: Any
    ) -> dict[str, Any]:
        return {
            "seed": seed,
            "tested_on": plan.test.name,
            "labelled_images": len(drawn.labelled),
            "draw": hash_indices(drawn.labelled),
            "validation_images": len(drawn.held),
            "steps": trained.global_step,
            "best_step": trained.best_global_step,
            "validation_score": trained.best_metric,
            "revision": network.revision,
        }

    def _save(self, plan: Plan, folder: Path, learner: Learner, network: Network) -> None:
        """Writes the network and its image processor, as transformers loads them."""
        model = learner.tested
        of_backbone = getattr(model.config, "backbone_config", None)
        record = getattr(model.config, "rs_models", None) or getattr(of_backbone, "rs_models", {})
        model.config.rs_models = {**record, **network.preprocessing.record()}
        model.config.finetuned = {
            "task": plan.task.name,
            "from": plan.start.name,
            "data": plan.data,
            "protocol": protocol_name(self.config),
        }
        size = plan.size
        if plan.task.whole_image:
            model.config.rs_models["train_size"] = size
            size = processor_size(model.config, size)
        settings = processor_settings(network.preprocessing.record(), size)
        settings |= plan.task.processor
        with replaced(folder) as partial:
            with no_progress_bars():
                model.eval().cpu().save_pretrained(partial)
            write_json(partial / "preprocessor_config.json", settings)

    def _result(self, runs: list[list[dict[str, Any]]], facts: list[dict[str, Any]]) -> Result:
        config, plan, task = self.config, self.plan, self.plan.task
        scores = [task.scores(rows) for rows in runs]
        values = [round(task.headline(rows), 4) for rows in runs]
        ends, samples = interval(task, runs, same_images=plan.train.places is None)
        settings = {
            key: value
            for key, value in dataclasses.asdict(config).items()
            if key not in (*_FREE, "data", "model", "name", "revision")
        }
        if not task.has_heads:
            settings.pop("head")
        if not config.self_training.weight:
            settings.pop("self_training")
        settings |= {
            "pretrained_on": plan.start.pretrained_on,
            "bands": list(plan.bands),
            "image_size": plan.size,
            "classes": len(plan.classes),
            "ignored_classes": config.data.ignored_classes,
            "validation": plan.validation_name or (_HELD_OUT if config.holdout else "none"),
            "test_images": sum(map(len, runs)) if config.data.place else len(plan.test),
            "bootstrap_samples": samples,
            "seeds": config.seeds,
            "runs": facts,
        }
        return Result.now(
            values=values,
            interval=ends,
            metric=task.metric[0],
            model=plan.start.name,
            model_revision=facts[0]["revision"],
            data=plan.data,
            data_revision=resolve_revision(config.data.name, config.data.revision)
            or content_hash(plan.test),
            protocol=protocol_name(config),
            settings=settings,
            scores={key: _rounded([row[key] for row in scores]) for key in scores[0]},
            command=self.command,
        )

    @contextlib.contextmanager
    def _claimed(self) -> Iterator[None]:
        """Holds the output folder for these settings; they lie in it for people to read."""
        if not self.state.is_main_process:
            self.state.wait_for_everyone()
            yield
            return
        job = job_of(self.config)
        with claim(self.output, job, adopts=lambda folder: _earlier(folder, job)):
            write_text(self.output / SETTINGS, yaml.safe_dump(job, sort_keys=False))
            self.state.wait_for_everyone()
            yield


def job_of(config: FinetuneConfig) -> dict[str, Any]:
    """What makes a run this one and no other: the settings that are the same when it goes on."""
    job = {key: value for key, value in dataclasses.asdict(config).items() if key not in _FREE}
    if not config.self_training.weight:
        del job["self_training"]
    return job


def _earlier(folder: Path, job: dict[str, Any]) -> bool:
    """Whether a folder without a record holds this run, begun by an earlier version.

    Raises:
        UserError: It holds another run.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return False
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeError):
        settings = None
    if not isinstance(settings, dict):  # killed while it was written, before all else
        return not any(folder.glob("*-*/*"))
    theirs = {**job_of(FinetuneConfig()), **settings}
    changed = sorted(key for key in job if theirs.get(key) != job[key])
    if changed:
        raise UserError(
            f"{folder} holds another run ({', '.join(changed)} differ): choose another "
            "output_dir, or remove it."
        )
    return True


def _rounded(values: Any) -> Any:
    """Numbers with four digits; NaN, which JSON lacks, as None."""
    if isinstance(values, dict):
        return {str(key): _rounded(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return None if np.isnan(values) else round(float(values), 4)
