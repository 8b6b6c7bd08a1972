"""mAP and F1 of images that may have several labels."""

from typing import Any

import datasets
import evaluate

from rs_models.evaluation.metrics import multilabel_scores


class RsMultilabel(evaluate.Metric):
    """`compute(predictions=..., references=..., threshold=0.5)`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions: probabilities (N, C); references: 0 or 1 (N, C)",
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions: Any, references: Any, threshold: float = 0.5) -> dict[str, Any]:
        return multilabel_scores(predictions, references, threshold=threshold)
