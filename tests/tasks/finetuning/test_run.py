"""Whole runs: every task, resumed, refused, loaded again by transformers alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from rs_models.cli import main
from rs_models.errors import UserError
from rs_models.evaluation.results import read_all
from rs_models.tasks.detection import Detection
from rs_models.tasks.finetuning import FinetuneConfig, FinetuneData, finetune
from rs_models.tasks.finetuning import run as run_module
from rs_models.tasks.finetuning.data import open_split

SMALL = {
    "segmentation": {"decoder_channels": 8, "low_level_channels": 4},
    "detection": {"pyramid_channels": 8, "head_dim": 16},
}


def config(folder, task="classification", **changes):
    settings = {
        "task": task,
        "model": "baseline:random-resnet_nano",
        "data": FinetuneData("synthetic:num=60,size=32", label="scenes"),
        "labels": "2/class" if task == "classification" else 10,
        "head_settings": SMALL.get(task, {}),
        "seeds": [0, 1],
        "max_steps": 4,
        "evaluations": 2,
        "batch_size": 4,
        "output_dir": str(folder),
    }
    return FinetuneConfig(**{**settings, **changes})


def test_a_run_leaves_a_result_and_a_model_that_transformers_loads(tmp_path):
    result = finetune(config(tmp_path / "run"), command="python training/finetune.py")
    assert result.protocol == "finetune-n2" and result.metric == "accuracy"
    assert result.data == "scenes" and len(result.values) == 2
    assert result.interval[0] <= result.mean <= result.interval[1]
    assert {run["draw"] for run in result.settings["runs"]} != {1}
    assert result.settings["runs"][0]["labelled_images"] == 24
    assert len(result.scores["kappa"]) == 2
    assert read_all(tmp_path / "run" / "results") == [result]
    assert not list((tmp_path / "run").glob("seed-*/checkpoints"))

    from rs_models.publish.staging import stage_model

    (tmp_path / "staged").mkdir()
    stage_model(tmp_path / "run", tmp_path / "staged", repo_id="rs/scenes", results=[])
    text = (tmp_path / "staged" / "README.md").read_text()
    assert "pipeline_tag: image-classification" in text and f"{result.mean:.1f} ±" in text
    assert "on 24 labelled images" in text and "| airport |" in text
    assert (tmp_path / "staged" / "LICENSE").is_file()

    pipe = transformers.pipeline("image-classification", str(tmp_path / "run" / "model"))
    split = open_split(
        FinetuneData("synthetic:num=60,size=32"), "test", "classification", ("red", "green", "blue")
    )
    import PIL.Image

    kept = json.loads((tmp_path / "run" / "seed-0" / "test.json").read_text())["rows"]
    names = split.classes
    for row in range(8):
        best = pipe(PIL.Image.fromarray(split.image(row)))[0]["label"]
        assert names.index(best) == kept[row]["predicted"]


def test_finished_seeds_are_not_repeated_and_other_settings_refused(tmp_path, monkeypatch):
    first = finetune(config(tmp_path / "run"))
    trained = []
    monkeypatch.setattr(run_module, "make_trainer", lambda *a, **k: trained.append(a))
    again = finetune(config(tmp_path / "run"))
    assert not trained and again.values == first.values
    with pytest.raises(UserError, match=r"holds another job \(max_steps differ\)"):
        finetune(config(tmp_path / "run", max_steps=5))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        finetune(config(tmp_path / "full"))


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    settings = {"seeds": [3], "max_steps": 6, "evaluations": 3}
    whole = finetune(config(tmp_path / "whole", **settings))
    from rs_models.tasks.finetuning.trainer import FinetuneTrainer

    plain, calls = FinetuneTrainer.compute_loss, []

    def stops(self, *args, **keys):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return plain(self, *args, **keys)

    monkeypatch.setattr(FinetuneTrainer, "compute_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        finetune(config(tmp_path / "run", **settings))
    before = len(calls)
    done = finetune(config(tmp_path / "run", **settings))
    assert len(calls) - before == 2  # steps 5 and 6
    assert done.values == whole.values
    weights = [
        transformers.AutoModelForImageClassification.from_pretrained(tmp_path / name / "model")
        for name in ("whole", "run")
    ]
    for one, other in zip(*(model.state_dict().values() for model in weights), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_test_images_are_looked_at_once_a_seed(tmp_path, monkeypatch):
    """Validation comes of the labels, and the test split is scored at the end alone."""
    seen = []
    plain = run_module.Examples.__getitem__

    def noted(self, index):
        seen.append((self.split.name, self.transform is None))
        return plain(self, index)

    monkeypatch.setattr(run_module.Examples, "__getitem__", noted)
    finetune(config(tmp_path / "run", labels="5/class", seeds=[0], holdout=0.4))
    looks = [what for what in seen if what[1]]
    first = next(i for i, (name, _) in enumerate(looks) if "(test)" in name)
    assert all("(train)" in name for name, _ in looks[:first]) and first >= 2 * 24
    assert all("(test)" in name for name, _ in looks[first:]) and len(looks) - first == 60


def test_a_dry_run_tells_and_writes_nothing(tmp_path, capsys):
    assert finetune(config(tmp_path / "run", dry_run=True)) is None
    said = capsys.readouterr().out
    assert "12 classes, 24 labelled images" in said and "first loss" in said
    assert not (tmp_path / "run").exists()


def test_labels_are_held_out_where_there_is_no_validation_split(tmp_path, capsys):
    from rs_models.data import load

    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        rows = load("synthetic:num=60,size=32", split)
        rows.to_parquet(tmp_path / "data" / f"{split}.parquet")
    data = FinetuneData(str(tmp_path / "data"), validation_split="auto")
    settings = {"labels": "3/class", "seeds": [0], "holdout": 0.4}
    result = finetune(config(tmp_path / "run", data=data, **settings))
    assert "12 of 36 labelled images are held out for validation" in capsys.readouterr().err
    assert result.settings["validation"] == "held out from the labelled images"
    assert result.settings["runs"][0]["validation_images"] == 12
    again = finetune(config(tmp_path / "again", data=data, **settings))
    assert again.settings["runs"] == result.settings["runs"]  # the same ones

    capsys.readouterr()
    data = FinetuneData("synthetic:num=60,size=32", validation_split="auto")
    result = finetune(config(tmp_path / "own", data=data, **settings))
    assert "held out" not in capsys.readouterr().err
    assert result.settings["validation"] == "validation"
    assert result.settings["runs"][0]["validation_images"] == 60

    data = FinetuneData(str(tmp_path / "data"), validation_split="validation")
    with pytest.raises(UserError, match="has no split 'validation'"):
        finetune(config(tmp_path / "named", data=data))


def test_a_second_run_of_a_folder_is_told_who_works_there(tmp_path):
    from rs_models.files import claim
    from rs_models.tasks.finetuning.run import job_of

    settings = config(tmp_path / "run")
    with (
        claim(tmp_path / "run", job_of(settings)),
        pytest.raises(UserError, match="is being worked on by process"),
    ):
        finetune(settings)


def test_a_folder_of_an_earlier_version_is_gone_on_with(tmp_path):
    import yaml

    settings = config(tmp_path / "run")
    first = finetune(settings)
    (tmp_path / "run" / "job.json").unlink()
    written = yaml.safe_load((tmp_path / "run" / "finetune.yaml").read_text())
    written.pop("crop_scale")  # a setting that came later has its default
    (tmp_path / "run" / "finetune.yaml").write_text(yaml.safe_dump(written))
    assert finetune(settings).values == first.values
    (tmp_path / "run" / "job.json").unlink()
    with pytest.raises(UserError, match=r"holds another run \(max_steps differ\)"):
        finetune(config(tmp_path / "run", max_steps=5))


def test_early_stopping_stops(tmp_path):
    result = finetune(
        config(
            tmp_path / "run",
            labels="5/class",
            seeds=[0],
            max_steps=40,
            evaluations=20,
            patience=2,
            learning_rate=1e-9,  # nothing gets better
        )
    )
    assert result.settings["runs"][0]["steps"] < 12


@pytest.mark.parametrize("head", ["deeplabv3plus", "upernet"])
def test_segmentation(tmp_path, head):
    small = {"hidden_size": 8, "pool_scales": [1]} if head == "upernet" else SMALL["segmentation"]
    result = finetune(
        config(
            tmp_path / "run",
            "segmentation",
            head=head,
            head_settings=small,
            seeds=[0],
            class_weights="balanced",
        )
    )
    assert result.protocol == "segmentation-10" and result.metric == "mIoU"
    assert len(result.scores["iou"][0]) == result.settings["classes"]
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "run/model")
    assert len(model.config.id2label) == result.settings["classes"]
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "run" / "model")
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    inputs = processor(image, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 96)
    with torch.no_grad():
        outputs = model(pixel_values=inputs["pixel_values"])
    (mask,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(64, 96)])
    assert mask.shape == (64, 96)


def test_bf16_needs_no_gpu(tmp_path):
    result = finetune(config(tmp_path / "run", seeds=[0], precision="bf16", evaluations=1))
    assert result.settings["precision"] == "bf16" and len(result.values) == 1


def test_detection(tmp_path, monkeypatch):
    monkeypatch.setattr(Detection, "resamples", 5)  # each is an evaluation by COCO's rules
    result = finetune(config(tmp_path / "run", "detection", seeds=[0]))
    assert result.protocol == "detection-10" and result.metric == "AP50"
    pipe = transformers.pipeline("object-detection", str(tmp_path / "run" / "model"))
    import PIL.Image

    image = PIL.Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    )
    for found in pipe(image, threshold=0.05):
        box = found["box"]
        assert -1 <= box["xmin"] <= box["xmax"] <= 97 and -1 <= box["ymin"] <= box["ymax"] <= 65
        assert found["label"] in {"house", "car", "plane", "ship"}


def test_each_place_is_left_out_in_turn(tmp_path):
    import datasets

    from rs_models.data import load

    rows = load("synthetic:num=36,size=32", "train")
    places = [("oslo", "rome", "lima")[i % 3] for i in range(36)]
    features = datasets.Features({**rows.features, "town": datasets.Value("string")})
    towns = rows.add_column("town", places).cast(features)
    (tmp_path / "data").mkdir()
    towns.to_parquet(tmp_path / "data" / "train.parquet")
    data = FinetuneData(str(tmp_path / "data"), label="towns", place="town")
    result = finetune(config(tmp_path / "run", "segmentation", data=data, labels=8))
    assert result.protocol == "segmentation-8-leave-one-out" and len(result.values) == 3
    runs = result.settings["runs"]
    assert [run["tested_on"] for run in runs] == ["towns (lima)", "towns (oslo)", "towns (rome)"]
    assert result.settings["test_images"] == 36
    for number in range(3):
        kept = json.loads((tmp_path / "run" / f"place-{number}" / "test.json").read_text())
        assert len(kept["rows"]) == 12
    with pytest.raises(UserError, match="no column 'city'"):
        finetune(config(tmp_path / "x", data=FinetuneData(str(tmp_path / "data"), place="city")))


@pytest.mark.parametrize("labels", [1, 5])
def test_batches_of_one_image_do_not_stop_a_run(tmp_path, labels):
    """ASPP pools an image to one value a channel: five images in batches of four leave one."""
    settings = {"seeds": [0], "holdout": 0.0, "max_steps": 3}
    result = finetune(config(tmp_path / "run", "segmentation", labels=labels, **settings))
    assert result.settings["runs"][0]["steps"] == 3


def test_several_labels_an_image(tmp_path):
    result = finetune(config(tmp_path / "run", "multilabel", seeds=[0]))
    assert result.protocol == "multilabel-10" and result.metric == "mAP"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels=9/class", "data.name=synthetic:num=48,size=32"], "9 per class are asked for"),
        (["task=detection", "labels=all", "model=baseline:random-vit_nano"], "no stages"),
        (["task=segmentation", "labels=1/class"], "one class an image"),
        (["task=segmentation", "labels=4", "head_settings={depth: 3}"], "no setting depth"),
        (["protocol=glcnet"], "is for segmentation"),
        (["data.name=nowhere"], "no folder or file 'nowhere'"),
        (["model=baseline:nothing"], "no weights to fine-tune"),
        (["learning_rates=1"], "did you mean learning_rate"),
        (["task=segmentation", "labels=4", "output_stride=3"], "Unknown setting"),
    ],
)
def test_bad_input_ends_in_a_sentence_and_nothing_is_written(tmp_path, capsys, arguments, message):
    base = [f"output_dir={tmp_path}/run", "data.name=synthetic:num=48,size=32", "max_steps=1"]
    assert main(["finetune", *base, *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()
