"""A fine-tuning run: every seed trained, the test images looked at once, one result."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers import set_seed

from ...backbones.loading import no_progress_bars
from ...backbones.processor import processor_settings, processor_size
from ...bands import resolve_bands
from ...data import resolve_revision
from ...data.sampling import hash_indices
from ...errors import UserError
from ...evaluation.results import Result, write
from . import augment
from .card import card
from .config import FinetuneConfig, check, protocol_name
from .data import Examples, Split, class_count, content_hash, data_name, open_split
from .draws import draw, hold_out
from .learner import Learner, Network, Start, balanced_weights, build, find_start
from .scoring import METRICS, Row, all_scores, headline, interval
from .trainer import make_trainer

SETTINGS = "finetune.yaml"
# What may differ between two runs in one folder.
_FREE = ("output_dir", "results_dir", "workers", "report_to", "json", "dry_run", "seeds")


@dataclasses.dataclass
class _Plan:
    """What the seeds have in common."""

    start: Start
    bands: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    size: int
    classes: list[str]


def finetune(config: FinetuneConfig, *, command: str = "rs_models.finetune") -> Result | None:
    """Fine-tunes a model once a seed and measures it on the test images.

    `output_dir` gets `model/` (of the first seed, with its image processor), `seed-<n>/` and
    `results/`. Started again after a stop it goes on where it was; a finished seed is not repeated.

    Args:
        config: Settings.
        command: That measures it again, for the result.

    Returns:
        The result; None of a dry run.

    Raises:
        UserError: Settings, model or data that do not fit each other, or a folder that holds
            another run.
    """
    from accelerate import PartialState

    state = PartialState()
    check(config)
    plan = _plan(config)
    output = Path(config.output_dir)
    if config.dry_run:
        _dry_run(config, plan)
        return None
    # What does not fit is found here, before the folder is taken.
    first_labels = draw(plan.train, config.labels, config.seeds[0])
    _learner(config, plan, first_labels, config.seeds[0])
    if state.is_main_process:
        _claim(output, config)
    state.wait_for_everyone()
    runs, used = [], []
    folds = _folds(config, plan, output)
    for seed, part, folder in folds:
        rows, facts = _one_seed(config, part, seed, folder)
        runs.append(rows)
        used.append(facts)
    if not state.is_main_process:
        return None
    first = folds[0][2] / "model"
    shutil.rmtree(output / "model", ignore_errors=True)
    shutil.copytree(first, output / "model")
    result = _result(config, plan, runs, used, command)
    made = json.loads((output / "model" / "config.json").read_text(encoding="utf-8"))
    text = card(result, plan.classes, made["architectures"][0])
    (output / "model" / "README.md").write_text(text, encoding="utf-8")
    write(result, config.results_dir or output / "results")
    return result


def _folds(config: FinetuneConfig, plan: _Plan, output: Path) -> list[tuple[int, _Plan, Path]]:
    """Seed, data and folder of each run: one a seed, or one a place that is left out."""
    places = plan.train.places
    if places is None:
        return [(seed, plan, output / f"seed-{seed}") for seed in config.seeds]
    folds = []
    for number, place in enumerate(sorted(set(places.tolist()))):
        name = f"{data_name(config.data)} ({place})"
        here, others = np.flatnonzero(places == place), np.flatnonzero(places != place)
        part = dataclasses.replace(
            plan,
            train=plan.train.select(others, f"{data_name(config.data)} (all but {place})"),
            test=plan.train.select(here, name),
        )
        folds.append((config.seeds[0], part, output / f"place-{number}"))
    return folds


def _plan(config: FinetuneConfig) -> _Plan:
    data = config.data
    start = find_start(config)
    known = start.preprocessing
    bands = resolve_bands(data.bands or (known.bands if known else "rgb"))
    train = open_split(data, data.train_split, config.task, bands)
    test = train
    if data.place is None:
        test = open_split(data, data.test_split, config.task, bands)
    elif len(set(train.places if train.places is not None else ())) < 2:
        raise UserError(f"{train.name} is of one place: there is none to leave out.")
    validation = None
    if data.validation_split is not None:
        validation = open_split(data, data.validation_split, config.task, bands)
    for split in (test, validation):
        if split is not None and split.classes != train.classes:
            raise UserError(
                f"{split.name} has the classes {split.classes}, {train.name} {train.classes}: they "
                "must be the same, in the same order."
            )
    rows = np.unique(np.concatenate([draw(train, config.labels, seed) for seed in config.seeds]))
    count = class_count(train, rows, test)
    classes = train.classes or [f"class {number}" for number in range(count)]
    if config.task in ("classification", "segmentation") and count < 2:
        raise UserError(f"{train.name} has one class: there is nothing to tell apart.")
    size = config.image_size
    if size is None and config.task in ("classification", "multilabel") and known is not None:
        size = known.train_size
    if size is None:
        size = min(train.image(int(rows[0])).shape[:2])
    return _Plan(start, bands, train, validation, test, size, classes)


def _learner(
    config: FinetuneConfig, plan: _Plan, rows: np.ndarray, seed: int
) -> tuple[Learner, Network]:
    # Of the new parts, and of a random backbone; whatever ran before does not matter.
    set_seed(seed)
    with no_progress_bars():
        network = build(plan.start, config, plan.train, rows, plan.bands, plan.classes, plan.size)
    weights = None
    if config.class_weights == "balanced":
        weights = balanced_weights(plan.train, rows, len(plan.classes))
    learner = Learner(
        network.model,
        config.task,
        frozen=config.tune == "frozen",
        freeze_norm=config.freeze_norm,
        class_weights=weights,
    )
    return learner, network


def _examples(
    config: FinetuneConfig,
    plan: _Plan,
    network: Network,
    split: Split,
    rows: Any,
    *,
    seed: int | None = None,
) -> Examples:
    """Images to learn from where there is a seed of their augmentation, whole ones else."""
    whole = config.task in ("classification", "multilabel")
    transform = None
    if seed is not None:
        low, high = config.crop_scale
        transform = augment.build(
            config.augment,
            plan.size,
            (low, high),
            whole=whole,
            boxes=config.task == "detection",
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


def _one_seed(
    config: FinetuneConfig, plan: _Plan, seed: int, folder: Path
) -> tuple[list[Row], dict[str, Any]]:
    """Rows of the test images, and what the result says of this seed."""
    from accelerate import PartialState

    state, done = PartialState(), folder / "test.json"
    if done.is_file():
        kept = json.loads(done.read_text(encoding="utf-8"))
        return kept["rows"], kept["facts"]
    drawn = draw(plan.train, config.labels, seed)
    if plan.validation is not None:
        learned, split, held = drawn, plan.validation, np.arange(len(plan.validation))
    else:
        learned, held = hold_out(plan.train, drawn, config.holdout, seed)
        split = plan.train
    learner, network = _learner(config, plan, learned, seed)
    if len(learned) == 1:  # twice, under other crops: BatchNorm needs a variance
        learned = np.repeat(learned, 2)
    train = _examples(config, plan, network, plan.train, learned, seed=seed)
    validation = _examples(config, plan, network, split, held) if len(held) else None
    checkpoints = folder / "checkpoints"
    trainer = make_trainer(
        config,
        learner,
        train,
        validation,
        len(plan.classes),
        folder=str(checkpoints),
        seed=seed,
    )
    trainer.train(resume_from_checkpoint=True if any(checkpoints.glob("checkpoint-*")) else None)
    test = _examples(config, plan, network, plan.test, range(len(plan.test)))
    rows = trainer.rows(test)
    facts = {
        "seed": seed,
        "tested_on": plan.test.name,
        "labelled_images": len(drawn),
        "draw": hash_indices(drawn),
        "validation_images": len(held),
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "validation_score": trainer.state.best_metric,
        "revision": network.revision,
    }
    if state.is_main_process:
        _save(folder / "model", learner, network, config, plan)
        partial = folder / ".test.json"
        partial.write_text(json.dumps({"facts": facts, "rows": rows}), encoding="utf-8")
        partial.replace(done)
        shutil.rmtree(checkpoints, ignore_errors=True)
    state.wait_for_everyone()
    return rows, facts


def _save(
    folder: Path, learner: Learner, network: Network, config: FinetuneConfig, plan: _Plan
) -> None:
    """The network and its image processor, as transformers loads them."""
    model, task = network.model, config.task
    of_backbone = getattr(model.config, "backbone_config", None)
    record = getattr(model.config, "rs_models", None) or getattr(of_backbone, "rs_models", {})
    model.config.rs_models = {**record, **network.preprocessing.record()}
    model.config.finetuned = {
        "task": task,
        "from": plan.start.name,
        "data": data_name(config.data),
        "protocol": protocol_name(config),
    }
    size = plan.size
    if task in ("classification", "multilabel"):
        model.config.rs_models["train_size"] = size
        size = processor_size(model.config, size)
    settings = processor_settings(network.preprocessing.record(), size)
    if task == "segmentation":
        # What pipelines need to give masks at the image's size.
        settings |= {"image_processor_type": "SegformerImageProcessor", "do_resize": False}
    elif task == "detection":
        settings |= {"image_processor_type": "DetrImageProcessor", "do_resize": False}
        settings["do_pad"] = True
    with no_progress_bars():
        model.eval().cpu().save_pretrained(folder)
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def _result(
    config: FinetuneConfig,
    plan: _Plan,
    runs: list[list[Row]],
    used: list[dict[str, Any]],
    command: str,
) -> Result:
    task = config.task
    every = [all_scores(task, rows) for rows in runs]
    values = [round(headline(task, rows), 4) for rows in runs]
    ends, samples = interval(task, runs, same_images=plan.train.places is None)
    settings = {
        key: value
        for key, value in dataclasses.asdict(config).items()
        if key not in (*_FREE, "data", "model", "name", "revision")
    }
    if task != "segmentation":
        settings.pop("head")
    settings |= {
        "pretrained_on": plan.start.pretrained_on,
        "bands": list(plan.bands),
        "image_size": plan.size,
        "classes": len(plan.classes),
        "ignored_classes": config.data.ignored_classes,
        "validation": config.data.validation_split or "held out from the labelled images",
        "test_images": sum(map(len, runs)) if config.data.place else len(plan.test),
        "bootstrap_samples": samples,
        "seeds": config.seeds,
        "runs": used,
    }
    return Result.now(
        values=values,
        interval=ends,
        metric=METRICS[task][0],
        model=plan.start.name,
        model_revision=used[0]["revision"],
        data=data_name(config.data),
        data_revision=resolve_revision(config.data.name, config.data.revision)
        or content_hash(plan.test),
        protocol=protocol_name(config),
        settings=settings,
        scores={key: _rounded([row[key] for row in every]) for key in every[0]},
        command=command,
    )


def _rounded(values: Any) -> Any:
    """Numbers with four digits; NaN, which JSON lacks, as None."""
    if isinstance(values, dict):
        return {str(key): _rounded(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return None if np.isnan(values) else round(float(values), 4)


def _dry_run(config: FinetuneConfig, plan: _Plan) -> None:
    """One step on the first images; says what a run would do."""
    seed = config.seeds[0]
    drawn = draw(plan.train, config.labels, seed)
    held = np.arange(len(plan.validation or ()))
    learned = drawn
    if plan.validation is None:
        learned, held = hold_out(plan.train, drawn, config.holdout, seed)
    learner, network = _learner(config, plan, learned, seed)
    from .data import collate

    examples = _examples(config, plan, network, plan.train, learned, seed=seed)
    batch = collate([examples[i] for i in range(min(len(examples), config.batch_size))])
    loss = learner.train()(batch["pixel_values"], batch["labels"])["loss"]
    loss.backward()
    trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    total = sum(p.numel() for p in learner.parameters())
    print(
        f"{config.task} of {plan.start.name} on {data_name(config.data)}, protocol "
        f"{protocol_name(config)}: "
        f"{len(plan.classes)} classes, {len(learned)} labelled images to learn from, {len(held)} "
        f"for validation, {len(plan.test)} for the test, {len(config.seeds)} seeds; "
        f"{trained:,} of {total:,} weights learn at {plan.size} pixels; "
        f"the first loss is {loss.item():.3f}. Nothing was written."
    )


def _claim(output: Path, config: FinetuneConfig) -> None:
    """Writes the settings into a new folder; refuses one that holds another run."""
    path = output / SETTINGS
    mine = {k: v for k, v in dataclasses.asdict(config).items() if k not in _FREE}
    if path.is_file():
        theirs = yaml.safe_load(path.read_text(encoding="utf-8"))
        changed = [key for key in mine if theirs.get(key) != mine[key]]
        if changed and any(output.glob("*-*/*")):
            raise UserError(
                f"{output} holds another run ({', '.join(changed)} differ): choose another "
                "output_dir, or remove it."
            )
        if not changed:
            return
    elif output.is_dir() and any(output.iterdir()):
        raise UserError(f"{output} is not empty and holds no run: choose another output_dir.")
    output.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(mine, sort_keys=False), encoding="utf-8")
