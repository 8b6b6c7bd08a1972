"""One job: pretrain (or go on), export, evaluate. Everything that is there already is kept."""

from __future__ import annotations

import copy
import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import claim, read_job, write_json, write_text
from ..settings import build, merge
from .config import Evaluation, Job

# Beside pretraining's own record, `job.json`, whose name the study's had in earlier versions.
RECORD, _EARLIER = "cell.json", "job.json"
DONE = ".done"


def run_job(job: Job) -> str:
    """Does what is not done of a job.

    Returns:
        "done", or "stopped" where a signal ended it early; its newest checkpoint goes on.

    Raises:
        UserError: Settings or data that cannot be used, or a folder of another run.
        TrainingStopped: A dead run.
    """
    folder = Path(job.folder)
    _rename_earlier(folder)
    what = {"fingerprint": job.fingerprint, "settings": job.settings, "model": job.model}
    # Held for a moment: the study holds the folder around, and pretraining claims this one.
    with claim(folder, what, record=RECORD, adopts=lambda _: True):
        pass
    record = read_job(folder, RECORD) or {}
    if job.settings is not None and not is_trained(folder):
        from ..trainer import pretrain
        from ..trainer.config import RunConfig

        settings = copy.deepcopy(job.settings)
        merge(settings, {"output_dir": str(folder), "resume": True})
        started = time.perf_counter()
        ended = pretrain(build(RunConfig, settings)) is not None
        record["seconds"] = round(record.get("seconds", 0) + time.perf_counter() - started, 1)
        write_json(folder / RECORD, record)
        if not ended:
            return "stopped"
    model = job.model or str(folder / "export")
    for name, evaluation in job.evaluations.items():
        target = folder / "results" / name
        if not is_measured(target, evaluation):
            for old in target.glob("*.json"):  # of other protocols or settings
                old.unlink()
            _evaluate(job, model, evaluation, target)
            write_text(target / DONE, evaluation.fingerprint)
    return "done"


def is_done(job: Job) -> bool:
    """Whether nothing is left to do of a job."""
    folder = Path(job.folder)
    trained = job.settings is None or is_trained(folder)
    return trained and all(
        is_measured(folder / "results" / name, evaluation)
        for name, evaluation in job.evaluations.items()
    )


def is_trained(folder: Path) -> bool:
    """Whether a cell's pretraining has come to its end.

    A run that was killed while it wrote its results has an export, and still holds its record.
    """
    if not (folder / "export").is_dir():
        return False
    with suppress(UserError):  # the record of an earlier version
        return "held_by" not in (read_job(folder) or {})
    return True


def is_measured(target: Path, evaluation: Evaluation) -> bool:
    """Whether a folder holds the results of just these settings.

    Empty marks are of studies that did not keep the settings; what they measured counts.
    """
    mark = target / DONE
    return mark.is_file() and mark.read_text(encoding="utf-8") in ("", evaluation.fingerprint)


def seconds_of(folder: Path) -> float:
    """How long a cell was pretrained, of any version's record; 0 where nothing was."""
    _rename_earlier(folder)
    return float((read_job(folder, RECORD) or {}).get("seconds", 0))


def _rename_earlier(folder: Path) -> None:
    """Gives the record of an earlier version the name and the form of today's."""
    path = folder / _EARLIER
    record: Any = {}
    if path.is_file():
        with suppress(ValueError):  # no record of a study
            record = json.loads(path.read_text(encoding="utf-8"))
    if "fingerprint" not in record:
        return
    if not (folder / RECORD).is_file():
        what = {key: record.pop(key) for key in ("fingerprint", "settings", "model")}
        write_json(folder / RECORD, {"job": what, **record})
    path.unlink()


def _evaluate(job: Job, model: str, evaluation: Evaluation, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if evaluation.probe is not None:
        from ..evaluation.probe import ProbeConfig, measure

        probe = build(ProbeConfig, copy.deepcopy(evaluation.probe))
        probe = replace(
            probe,
            model=model,
            names=[job.cell],
            output_dir=str(target),
            seed=job.seed,
            baselines=[],
        )
        measure(probe, progress=False)
    elif evaluation.finetune is not None:
        from ..tasks.finetuning.config import FinetuneConfig
        from ..tasks.finetuning.run import finetune

        tuning = build(FinetuneConfig, copy.deepcopy(evaluation.finetune))
        whole = Path(job.folder) / "segmentation"
        if evaluation.decoder and job.model is None and whole.is_dir():
            model = str(whole)
        # One seed for all that is random: paired cells share labels, head and order.
        tuning = replace(
            tuning,
            model=model,
            name=job.cell,
            seeds=[job.seed],
            output_dir=str(target / "run"),
            results_dir=str(target),
        )
        finetune(tuning)
    else:
        assert evaluation.geometry is not None  # the config was checked
        _geometry(job, model, evaluation.geometry, target)


def _geometry(job: Job, model: str, settings: dict[str, Any], target: Path) -> None:
    """Alignment of two views, uniformity and effective rank, as results."""
    import torch

    from ..data import build_cache, load
    from ..data.cache import default_cache_dir
    from ..data.names import data_name
    from ..evaluation import geometry
    from ..evaluation.loading import load_encoder
    from ..evaluation.protocols import content_hash
    from ..evaluation.results import Result, write

    name, split = settings["data"], settings.get("split", "test")
    count = int(settings.get("images", 1000))
    rows = load(name, split)
    rows = rows.shuffle(seed=0).select(range(min(count, len(rows))))
    cache = build_cache(rows, cache_dir=default_cache_dir() / "images", progress=False)
    encoder: Any = load_encoder(model, seed=job.seed).fit(cache)
    images = cache.images  # (N, C, H, W)
    found: list[list[torch.Tensor]] = [[], [], []]
    with torch.inference_mode():
        for start in range(0, len(images), 256):
            batch = torch.as_tensor(images[start : start + 256])
            for kept, view in zip(found, (batch, *_two_views(batch)), strict=True):
                kept.append(encoder(view))
    whole, first, second = (torch.cat(parts) for parts in found)
    values = {
        "alignment": geometry.alignment(first, second),
        "uniformity": geometry.uniformity(whole),
        "effective-rank": geometry.effective_rank(whole),
    }
    for protocol, value in values.items():
        result = Result.now(
            model=job.cell,
            model_revision=encoder.revision or "unknown",
            data=data_name(name),
            data_revision=content_hash(cache),
            protocol=protocol,
            metric=protocol,
            settings={
                "pretrained_on": encoder.pretrained_on,
                "image_size": encoder.train_size,
                "test_images": len(cache),
            },
            values=[round(value, 4)],
            interval=[round(value, 4)] * 2,
            command="training/study.py",
        )
        write(result, target)


def _two_views(images: Any) -> tuple[Any, Any]:
    """Two crops of three quarters of the side, the second mirrored: (B, C, h, w) each.

    The same for every method, so that none is measured by the views that it was trained with.
    """
    side = images.shape[-1] * 3 // 4
    return images[..., :side, :side], images[..., -side:, -side:].flip(-1)
