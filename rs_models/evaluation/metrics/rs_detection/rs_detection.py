"""COCO's mAP, AP50 and AP75 of object detection."""

from typing import Any

import datasets
import evaluate

from rs_models.evaluation.metrics import detection_scores

_BOXES = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
_NUMBERS = datasets.Sequence(datasets.Value("int64"))


class RsDetection(evaluate.Metric):
    """`compute(predictions=..., references=...)`, an image a dict, boxes as x0 y0 x1 y1."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions: boxes, scores, labels; references: boxes, labels",
            features=datasets.Features(
                {
                    "predictions": {"boxes": _BOXES, "scores": scores, "labels": _NUMBERS},
                    "references": {"boxes": _BOXES, "labels": _NUMBERS},
                }
            ),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        found = detection_scores(predictions, references)
        found["map_per_class"] = {str(key): value for key, value in found["map_per_class"].items()}
        return found
