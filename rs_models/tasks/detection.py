"""Object detection: boxes and their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from transformers import PreTrainedModel

from ..evaluation.metrics import detection_scores
from .faster_rcnn import FasterRcnnForObjectDetection
from .task import Column, Row, Task, label_classes

_LEAST_SCORE = 0.01  # queries beyond the boxes found have the class "none"
_SIDE = 1000  # pixels of the image that boxes over the sides are counted in: IoU is the same

Boxes = tuple[np.ndarray, np.ndarray]


class Detection(Task):
    """Boxes; a label is (N, 4) float32 x0 y0 x1 y1 in pixels and (N,) int64 classes."""

    name = "detection"
    columns = ("objects",)
    metric = ("AP50", "map_50")
    resamples = 100  # an evaluation by COCO's rules takes tens of milliseconds
    has_boxes = True
    pipeline = "object-detection"
    auto_class = "AutoModelForObjectDetection"
    answer = "boxes.geojson"
    processor = {  # noqa: RUF012
        "image_processor_type": "DetrImageProcessor",
        "do_resize": False,
        "do_pad": True,
    }

    def class_feature(self, feature: Any) -> Any:
        """The part of the feature that holds the class names."""
        return feature["category"]

    def read(self, row: Mapping[str, Any], column: Column, where: str) -> Boxes:
        """The boxes of a stored row, which `data.load` has checked."""
        objects = row[column.name]
        boxes = np.asarray(objects["bbox"], np.float32).reshape(-1, 4).copy()
        boxes[:, 2:] += boxes[:, :2]
        return boxes, np.asarray(objects["category"], np.int64).reshape(-1)

    def present(self, label: Boxes) -> np.ndarray:
        """The class of each box."""
        return label[1]

    def nothing(self, name: str) -> str:
        """What is said of a split in which no image has a label."""
        return f"No image of {name} holds a box: there is nothing to learn or to count."

    def inputs(self, label: Boxes, size: tuple[int, int]) -> dict[str, Any]:
        """The boxes and their classes."""
        kind: Any = tv_tensors.BoundingBoxFormat.XYXY
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(label[0]), format=kind, canvas_size=size)
        return {"boxes": boxes, "classes": torch.from_numpy(label[1])}

    def target(self, inputs: Mapping[str, Any], label: Boxes, num_classes: int) -> dict[str, Any]:
        """`class_labels` (n,) and `boxes` (n, 4): centres and sides over the image's sides."""
        x0, y0, x1, y1 = inputs["boxes"].as_subclass(Tensor).float().unbind(-1)
        height, width = inputs["image"].shape[-2:]
        centres = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height)
        sides = ((x1 - x0) / width, (y1 - y0) / height)
        return {
            "class_labels": inputs["classes"].long(),
            "boxes": torch.stack((*centres, *sides), dim=-1),
        }

    def network(
        self,
        backbone: PreTrainedModel,
        id2label: Mapping[int, str],
        *,
        head: str,
        settings: Mapping[str, Any],
    ) -> PreTrainedModel:
        """A Faster R-CNN over a native backbone."""
        model = FasterRcnnForObjectDetection.over(
            backbone, **{"num_labels": len(id2label), **settings}
        )
        label_classes(model.config, id2label)
        return model

    def outputs(self, model: nn.Module, pixel_values: Tensor) -> dict[str, Tensor]:
        """`logits` (B, Q, K + 1) and `pred_boxes` (B, Q, 4)."""
        output = model(pixel_values=pixel_values)
        return {"logits": output.logits, "pred_boxes": output.pred_boxes}

    def loss(
        self, model: nn.Module, pixel_values: Tensor, labels: Any, class_weights: Tensor | None
    ) -> Tensor:
        """Sum of the network's own losses."""
        return model(pixel_values=pixel_values, labels=labels).loss

    def rows(self, output: Mapping[str, Tensor], labels: Any, num_classes: int) -> list[Row]:
        """`{"boxes", "scores", "labels", "true_boxes", "true_labels"}` of each image."""
        from torchvision.ops import box_convert
        from transformers.utils import ModelOutput

        detections = FasterRcnnForObjectDetection.post_process_object_detection(
            ModelOutput(output), threshold=0.0
        )
        rows = []
        for boxes, true in zip(detections, labels, strict=True):
            real = boxes["scores"] > _LEAST_SCORE
            corners = box_convert(true["boxes"].float(), "cxcywh", "xyxy")
            rows.append(
                {
                    # Over the image's sides; COCO's measure knows sizes in pixels by extras only.
                    "boxes": boxes["boxes"][real].float().cpu().tolist(),
                    "scores": boxes["scores"][real].float().cpu().tolist(),
                    "labels": boxes["labels"][real].cpu().tolist(),
                    "true_boxes": corners.cpu().tolist(),
                    "true_labels": true["class_labels"].cpu().tolist(),
                }
            )
        return rows

    def scores(self, rows: Sequence[Row]) -> dict[str, Any]:
        """COCO's scores over some images, from 0 to 1."""
        predicted = [{key: row[key] for key in ("boxes", "scores", "labels")} for row in rows]
        true = [{"boxes": row["true_boxes"], "labels": row["true_labels"]} for row in rows]
        return detection_scores(_enlarged(predicted), _enlarged(true))


def _enlarged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**row, "boxes": torch.as_tensor(row["boxes"], dtype=torch.float32).reshape(-1, 4) * _SIDE}
        for row in rows
    ]
