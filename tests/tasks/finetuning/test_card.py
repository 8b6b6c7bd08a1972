"""The card of a fine-tuned model says what its result says."""

from __future__ import annotations

import numpy as np
from huggingface_hub import ModelCard

from rs_models.evaluation.results import Result
from rs_models.tasks.finetuning.card import card


def result(task, values, scores, pretrained_on):
    return Result.now(
        model="rs/tov-resnet50",
        model_revision="r",
        data="fields",
        data_revision="d",
        protocol="finetune-n5",
        metric="miou" if task == "segmentation" else "accuracy",
        settings={
            "task": task,
            "runs": [{"labelled_images": 50}],
            "pretrained_on": pretrained_on,
            "bands": ["red", "nir"],
            "test_images": 77,
            "seeds": [3, 4][: len(values)],
            "validation": "a fifth of the labels",
        },
        values=values,
        interval=[float(np.min(values)) - 1, float(np.max(values)) + 1],
        command="rs-models finetune --config fields",
        scores=scores,
    )


def test_several_seeds_and_masks():
    scores = {"iou": [[0.5, None], [0.1, 0.2]]}
    made = result("segmentation", [50.0, 60.0], scores, ["aid96:train", "mm"])
    text = card(made, ["crop|fallow", "road"], "DeepLabV3PlusForSemanticSegmentation")
    data = ModelCard(text).data
    assert data.base_model == "rs/tov-resnet50" and data.pipeline_tag == "image-segmentation"
    assert data.eval_results[0].metric_value == 55.0
    assert "(pretrained without labels on aid96:train, mm) on 50 labelled images." in text
    assert "Bands: red, nir." in text
    assert "```python\nimport rs_models  # registers the network\nfrom transformers" in text
    assert "± is the deviation over 2 seeds" in text and "those of seed 3 (50.0)." in text
    assert "| class | IoU |\n|---|---|\n| crop\\|fallow | 50.0 |\n| road | - |\n" in text


def test_one_seed_without_scores_of_classes_or_a_known_origin():
    made = result("classification", [50.0], {}, None)
    text = card(made, ["crop", "road"], "ResNetForImageClassification")
    assert "fine-tuned from rs/tov-resnet50 on 50 labelled images." in text
    assert "```python\nfrom transformers import AutoModelForImageClassification" in text
    assert "Brackets hold the 95 % bootstrap interval" in text
    assert "| class |" not in text and "\n\n\n" not in text
    assert "```bash\nrs-models finetune --config fields\n```" in text
