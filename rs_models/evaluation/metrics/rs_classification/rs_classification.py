"""OA, AA, kappa and F1 of scene classification, from one confusion matrix."""

from typing import Any

import datasets
import evaluate

from rs_models.evaluation.metrics import confusion_matrix, scores


class RsClassification(evaluate.Metric):
    """`compute(predictions=..., references=..., num_labels=...)`."""

    def _info(self) -> evaluate.MetricInfo:
        numbers = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions, references: class numbers",
            features=datasets.Features({"predictions": numbers, "references": numbers}),
        )

    def _compute(
        self, predictions: Any, references: Any, num_labels: int | None = None
    ) -> dict[str, Any]:
        count = num_labels or int(max(max(predictions), max(references))) + 1
        return scores(confusion_matrix(predictions, references, count, ignore_index=None))
