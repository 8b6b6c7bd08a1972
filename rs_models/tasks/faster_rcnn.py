"""A detection network: Faster R-CNN with a feature pyramid on a native backbone.

The parts are torchvision's (Ren et al., 2015, arXiv 1506.01497; Lin et al., 2017, arXiv
1612.03144); labels and outputs are transformers'. `import rs_models` registers it, so that
`AutoModelForObjectDetection.from_pretrained` restores it.
"""

# No `from __future__ import annotations` here: strict configs check types that are not strings.

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .. import backbones
from ..backbones.nested import NestedBackboneConfig, OverBackbone
from ..errors import UserError

_FLOOR = 1e-9  # probability of the classes that a detection is not of


@strict
class FasterRcnnConfig(NestedBackboneConfig):
    """Settings; the classes are transformers' `num_labels` or `id2label`.

    Args:
        backbone_config: Config of the native backbone, a ResNet or Swin; a ResNet-50 over RGB when
            none is given.
        pyramid_channels: Channels of every level of the pyramid.
        anchor_scales: Sides of the anchors over the stride of their level: one anchor side of
            scale x stride pixels for each. torchvision's 8 (32 pixels at stride 4) suits
            photographs; objects seen from above are often smaller.
        anchor_ratios: Height over width of the anchors.
        detections: Most boxes an image.
        score_threshold: Boxes below it are dropped.
        nms_threshold: IoU from which on the weaker of two boxes of a class is dropped.
        roi_size: Side of the pooled features of a box.
        head_dim: Width of the box head.
    """

    model_type = "rs_faster_rcnn"
    # All constants: torchvision's fasterrcnn_resnet50_fpn, but for the anchors' second scale.
    pyramid_channels: int = 256
    anchor_scales: list[float] | tuple[float, ...] = (4.0, 8.0)
    anchor_ratios: list[float] | tuple[float, ...] = (0.5, 1.0, 2.0)
    detections: int = 100
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    roi_size: int = 7
    head_dim: int = 1024

    def validate_backbone(self) -> None:
        """A pyramid needs several resolutions."""
        kind = backbones.family_or_none(self.backbone_config)
        if kind is not None and not kind.has_stages:
            raise ValueError("A feature pyramid needs a ResNet or a Swin.")


@dataclass
class DetectionOutput(ModelOutput):
    """What a detector gives.

    Attributes:
        loss: Sum of the four losses, where labels are given.
        loss_dict: Each of them.
        logits: (B, Q, num_labels + 1), whose softmax is a box's probability of each class and,
            last, of none; None in training mode.
        pred_boxes: (B, Q, 4), centre x, centre y, width and height over the image's sides; Q is
            `config.detections`, and boxes beyond those found have the class "none".
    """

    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    pred_boxes: Tensor | None = None


class _Body(nn.Module):
    """A backbone and the pyramid over its stages."""

    def __init__(self, config: FasterRcnnConfig) -> None:
        from torchvision.ops import FeaturePyramidNetwork
        from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

        super().__init__()
        self.pyramid = FeaturePyramidNetwork(
            list(backbones.stage_dims(config.native)),
            config.pyramid_channels,
            extra_blocks=LastLevelMaxPool(),
        )

    def forward(self, stages: Sequence[Tensor]) -> dict[str, Tensor]:
        named = OrderedDict((str(i), stage) for i, stage in enumerate(stages))
        return self.pyramid(named)


class FasterRcnnForObjectDetection(OverBackbone, PreTrainedModel):
    """Faster R-CNN with FPN on a ResNet or Swin, for any number of bands.

    Images come normalised as the backbone expects (`config.backbone_config.rs_models` says how,
    where it is one of ours); nothing is resized.
    """

    config_class = FasterRcnnConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = "image"

    def __init__(self, config: FasterRcnnConfig) -> None:
        """Builds backbone, pyramid, proposal network and box head."""
        from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
        from torchvision.models.detection.roi_heads import RoIHeads
        from torchvision.models.detection.rpn import (
            AnchorGenerator,
            RegionProposalNetwork,
            RPNHead,
        )
        from torchvision.ops import MultiScaleRoIAlign

        super().__init__(config)
        self.backbone = backbones.from_config(config.native)
        self.body = _Body(config)
        levels = len(backbones.stage_dims(config.native))
        strides = [
            4 * 2**i for i in range(levels + 1)
        ]  # the last one is pooled from the one before
        anchors = AnchorGenerator(
            tuple(tuple(scale * stride for scale in config.anchor_scales) for stride in strides),
            (tuple(config.anchor_ratios),) * len(strides),
        )
        channels = config.pyramid_channels
        self.rpn = RegionProposalNetwork(
            anchors,
            RPNHead(channels, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": 2000, "testing": 1000},
            nms_thresh=0.7,
        )
        names = [str(i) for i in range(levels)]
        self.roi_heads = RoIHeads(
            MultiScaleRoIAlign(names, output_size=config.roi_size, sampling_ratio=2),
            TwoMLPHead(channels * config.roi_size**2, config.head_dim),
            FastRCNNPredictor(config.head_dim, cast(int, config.num_labels) + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=512,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.detections,
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initial values as torchvision has them for these parts."""
        if isinstance(module, nn.Conv2d):
            if self._is_rpn(module):
                init.normal_(module.weight, std=0.01)
            else:
                init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            bound = module.in_features**-0.5
            init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)

    def _is_rpn(self, module: nn.Module) -> bool:
        return any(module is other for other in self.rpn.modules())

    def forward(
        self,
        pixel_values: Tensor,
        labels: Sequence[Mapping[str, Tensor]] | None = None,
        pixel_mask: Tensor | None = None,
    ) -> DetectionOutput:
        """Boxes, and the loss where labels are given.

        Args:
            pixel_values: Normalised images, (B, C, H, W).
            labels: An image each: `class_labels` (n,) from 0 on and `boxes` (n, 4), centre x,
                centre y, width and height over the image's sides; n may be 0.
            pixel_mask: (B, H, W), 1 where images of different sizes have pixels and 0 where
                transformers' processors have padded them right and below; boxes are over the
                sides of the former.

        Returns:
            See `DetectionOutput`.

        Raises:
            UserError: Labels of another number of images, or in training mode none.
        """
        from torchvision.models.detection.image_list import ImageList

        if self.training and labels is None:
            raise UserError("A detector in training mode needs labels.")
        count, _, height, width = pixel_values.shape
        sizes = [(height, width)] * count
        if pixel_mask is not None:
            sizes = [(int(m.any(1).sum()), int(m.any(0).sum())) for m in pixel_mask]
        if labels is not None and len(labels) != count:
            raise UserError(f"Labels of {len(labels)} images do not fit {count} images.")
        images = ImageList(pixel_values, sizes)
        maps = self.body(backbones.stages(self.backbone, pixel_values))
        output = DetectionOutput()
        if labels is not None:
            device = pixel_values.device
            targets = [_target(row, *size, device) for row, size in zip(labels, sizes, strict=True)]
            output.loss_dict = self._losses(images, maps, targets)
            output.loss = cast(Tensor, sum(output.loss_dict.values()))
        if not self.training:
            proposals, _ = self.rpn(images, maps)
            found, _ = self.roi_heads(maps, proposals, images.image_sizes)
            output.logits, output.pred_boxes = self._as_queries(found, sizes)
        return output

    def _losses(self, images: Any, maps: Any, targets: Any) -> dict[str, Tensor]:
        """The four losses; the two heads compute them in training mode only."""
        heads = (self.rpn, self.roi_heads)
        was = self.training
        for head in heads:
            head.train()
        proposals, of_proposals = self.rpn(images, maps, targets)
        _, of_boxes = self.roi_heads(maps, proposals, images.image_sizes, targets)
        for head in heads:
            head.train(was)
        return {**of_proposals, **of_boxes}

    def _as_queries(
        self, found: Sequence[dict[str, Tensor]], sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Boxes of all images in one tensor, as transformers' detectors give them."""
        config, device = self.config, found[0]["boxes"].device
        classes = cast(int, config.num_labels)
        shape = (len(found), config.detections)
        odds = torch.full((*shape, classes + 1), _FLOOR, device=device)
        odds[..., -1] = 1.0
        boxes = torch.zeros((*shape, 4), device=device)
        for i, (row, (height, width)) in enumerate(zip(found, sizes, strict=True)):
            sides = torch.tensor([width, height, width, height], device=device)
            number = len(row["scores"])
            odds[i, range(number), row["labels"] - 1] = row["scores"].float().clamp_min(_FLOOR)
            odds[i, :number, -1] = (1 - row["scores"].float()).clamp_min(_FLOOR)
            x0, y0, x1, y1 = (row["boxes"] / sides).float().unbind(1)
            boxes[i, :number] = torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), dim=1)
        return odds.log(), boxes

    @staticmethod
    def post_process_object_detection(
        outputs: Any, threshold: float = 0.5, target_sizes: Any = None
    ) -> list[dict[str, Tensor]]:
        """Boxes in pixels, as the image processors of transformers' detectors give them.

        Args:
            outputs: Outputs of a detector, with `logits` and `pred_boxes`.
            threshold: Least score.
            target_sizes: (height, width) of each image; None leaves boxes over the images' sides.

        Returns:
            An image each: `scores` (n,), `labels` (n,), `boxes` (n, 4) as x0 y0 x1 y1, best first.
        """
        from torchvision.ops import box_convert

        probabilities = outputs.logits.softmax(-1)
        rows = []
        for i, (odds, boxes) in enumerate(zip(probabilities, outputs.pred_boxes, strict=True)):
            scores, labels = odds[:, :-1].max(-1)
            order = scores.argsort(descending=True, stable=True)
            order = order[scores[order] > threshold]
            corners = box_convert(boxes[order], "cxcywh", "xyxy")
            if target_sizes is not None:
                height, width = (int(side) for side in target_sizes[i])
                corners = corners * corners.new_tensor([width, height, width, height])
            rows.append({"scores": scores[order], "labels": labels[order], "boxes": corners})
        return rows

    @classmethod
    def check_backbone(cls, native: PreTrainedConfig) -> None:
        """Refuses a backbone of one resolution."""
        backbones.stage_dims(native)


def _target(
    row: Mapping[str, Tensor], height: int, width: int, device: torch.device
) -> dict[str, Tensor]:
    """Labels of an image as torchvision wants them: corners in pixels, classes from 1 on."""
    from torchvision.ops import box_convert

    boxes = torch.as_tensor(row["boxes"], dtype=torch.float32, device=device).reshape(-1, 4)
    sides = boxes.new_tensor([width, height, width, height])
    labels = torch.as_tensor(row["class_labels"], device=device).long().reshape(-1)
    return {"boxes": box_convert(boxes * sides, "cxcywh", "xyxy"), "labels": labels + 1}
