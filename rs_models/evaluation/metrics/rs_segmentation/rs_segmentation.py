"""OA, kappa, mIoU, F1 and IoU by class of semantic segmentation, from one confusion matrix."""

from typing import Any

import datasets
import evaluate
import numpy as np

from rs_models.evaluation.metrics import IGNORE, confusion_matrix, scores

_MOST = 255  # class numbers are those of uint8 masks


class RsSegmentation(evaluate.Metric):
    """`compute(num_labels=..., ignore_index=255)` after any number of `add_batch`.

    Batches are counted as they come and not kept, so the memory does not grow with the images.
    """

    def _info(self) -> evaluate.MetricInfo:
        pixels = datasets.Sequence(datasets.Sequence(datasets.Value("uint8")))
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions, references: class masks (H, W), 255 = no class",
            features=datasets.Features({"predictions": pixels, "references": pixels}),
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **_: Any) -> None:
        """Counts masks of a batch; every image may have its own size."""
        for found, true in zip(predictions, references, strict=True):
            found, true = np.asarray(found), np.asarray(true)
            counted = getattr(self, "_counted", np.zeros((_MOST + 1, _MOST + 1), np.int64))
            # References of `IGNORE` stay in the count: only `compute` knows what is ignored.
            self._counted = counted + confusion_matrix(found, true, _MOST + 1, ignore_index=None)

    def add(self, *, prediction: Any = None, reference: Any = None, **_: Any) -> None:
        """Counts one image's masks."""
        self.add_batch(predictions=[prediction], references=[reference])

    def compute(
        self,
        *,
        predictions: Any = None,
        references: Any = None,
        num_labels: int | None = None,
        ignore_index: int | None = IGNORE,
        **_: Any,
    ) -> dict[str, Any]:
        """Scores of all that was added, and starts anew."""
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        counted = getattr(self, "_counted", None)
        if counted is None:
            raise ValueError("Nothing was added: give predictions and references.")
        if num_labels is None:
            raise ValueError("Give num_labels.")
        if ignore_index is not None:
            counted[ignore_index] = 0
        rest = counted[num_labels:].sum() + counted[:, num_labels:].sum()
        if rest:
            raise ValueError(f"{rest} pixels have a class number above {num_labels - 1}.")
        del self._counted
        return scores(counted[:num_labels, :num_labels])

    def _compute(self, **_: Any) -> dict[str, Any]:
        raise AssertionError("compute does it")
