"""Decoders over the feature maps of a backbone: DeepLabV3+ (GLCNet) and FCN (TOV).

GLCNet pretrains its ASPP and its decoder together with the backbone, and the segmentation task
fine-tunes the same modules, so they live here and know of neither. All of them give maps below the
image's size: the caller upsamples where it needs to.

Sources: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation" (DeepLabV3+), ECCV 2018, here with plain instead of separable convolutions, as in
GeoX-Lab/G-RSIM, T-SS-GLCNet; Long et al., "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015, in the form of GeoX-Lab/G-RSIM, TOV_v1 (`FCN_d8`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ..errors import UserError


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, *, rate: int = 1, norm_momentum: float = 0.1
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, ReLU: (B, in, h, w) -> (B, out, h, w).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel, odd.
        rate: Dilation; the padding keeps the size.
        norm_momentum: Share of the new batch in BatchNorm's running statistics.
    """
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(out_channels, momentum=norm_momentum),
        nn.ReLU(inplace=True),
    )


class AsppEncoder(nn.Module):
    """Atrous spatial pyramid pooling: context at several scales, (B, in, h, w) -> (B, D, h, w).

    Branches: a 1x1 convolution, one 3x3 for each dilation, and the image's mean; concatenated in
    this order and fused by a 1x1.

    Args:
        in_channels: Channels of the backbone's last map.
        channels: Channels D of each branch and of the output.
        rates: Dilations of the 3x3 branches. 6, 12, 18 are DeepLab's for output stride 16.
        dropout: Probability of dropping an element of the output.
        norm_momentum: Share of the new batch in BatchNorm's running statistics. GLCNet's code has
            0.9: statistics of little more than the last batch.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        dropout: float = 0.5,
        *,
        norm_momentum: float = 0.1,
    ) -> None:
        """Builds the branches and the fusion."""
        super().__init__()
        self.in_channels, self.channels = in_channels, channels
        self.rates, self.norm_momentum = tuple(rates), norm_momentum
        self.branches = nn.ModuleList(
            [conv_norm_relu(in_channels, channels, 1, norm_momentum=norm_momentum)]
        )
        for rate in rates:
            self.branches.append(
                conv_norm_relu(in_channels, channels, 3, rate=rate, norm_momentum=norm_momentum)
            )
        self.pool = conv_norm_relu(in_channels, channels, 1, norm_momentum=norm_momentum)
        self.fuse = conv_norm_relu(
            (len(self.branches) + 1) * channels, channels, 1, norm_momentum=norm_momentum
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes the last map of a backbone.

        Args:
            x: (B, in_channels, h, w).

        Returns:
            (B, channels, h, w), after dropout.

        Raises:
            UserError: A batch of one image in training: the pooled branch has one value a channel,
                which BatchNorm cannot normalise.
        """
        norm = self.pool[1]
        if len(x) == 1 and isinstance(norm, nn.BatchNorm2d) and norm.training:
            raise UserError(
                "ASPP cannot train on a batch of one image, whose mean has no variance: use a "
                "batch size of at least 2 and drop the last, smaller batch."
            )
        mean = self.pool(x.mean((2, 3), keepdim=True))  # (B, D, 1, 1)
        # The papers upsample it bilinearly; from a single pixel that is a constant map.
        mean = mean.expand(-1, -1, *x.shape[2:])
        maps = [*(branch(x) for branch in self.branches), mean]
        return self.dropout(self.fuse(torch.cat(maps, dim=1)))


class DeepLabV3PlusDecoder(nn.Module):
    """Refines the encoder's map with the backbone's early, sharper one.

    GLCNet pretrains it with 64 outputs and no dropout; its fine-tuning has one output a class and
    dropout (0.5, 0.1).

    Args:
        low_channels: Channels of the low-level map (stage 1 of the backbone).
        num_outputs: Channels of the result: classes or features.
        channels: Channels of the encoder's map and of the two 3x3 convolutions.
        low_channels_out: Channels that the low-level map is reduced to.
        dropout: Probabilities after the first and the second 3x3 convolution.
        norm_momentum: Share of the new batch in BatchNorm's running statistics; GLCNet's code has
            0.9.
    """

    def __init__(
        self,
        low_channels: int,
        num_outputs: int,
        *,
        channels: int = 256,
        low_channels_out: int = 48,
        dropout: tuple[float, float] = (0.0, 0.0),
        norm_momentum: float = 0.1,
    ) -> None:
        """Builds the reduction, the two 3x3 convolutions and the output layer."""
        super().__init__()
        self.channels, self.low_channels_out = channels, low_channels_out
        self.reduce = conv_norm_relu(low_channels, low_channels_out, 1, norm_momentum=norm_momentum)
        self.refine1 = conv_norm_relu(
            channels + low_channels_out, channels, 3, norm_momentum=norm_momentum
        )
        self.dropout1 = nn.Dropout(dropout[0])
        self.refine2 = conv_norm_relu(channels, channels, 3, norm_momentum=norm_momentum)
        self.dropout2 = nn.Dropout(dropout[1])
        self.output = nn.Conv2d(channels, num_outputs, 1)

    def forward(self, encoded: Tensor, low_level: Tensor) -> Tensor:
        """Decodes at the size of the low-level map.

        Args:
            encoded: (B, channels, h, w), from `AsppEncoder`.
            low_level: (B, low_channels, h_low, w_low).

        Returns:
            (B, num_outputs, h_low, w_low); GLCNet upsamples it with `align_corners=True`.
        """
        encoded = resize(encoded, low_level.shape[2:], align_corners=True)
        x = torch.cat((encoded, self.reduce(low_level)), dim=1)  # encoder first
        x = self.dropout1(self.refine1(x))
        x = self.dropout2(self.refine2(x))
        return self.output(x)


class FcnDecoder(nn.Module):
    """TOV's decoder: two steps of convolution and doubling, then one convolution to the classes.

    As released: no ReLU between the two steps, and BatchNorm instead of a bias on the logits.

    Args:
        in_channels: Channels D of the backbone's last map, divisible by 4.
        num_outputs: Number of classes.
        norm_momentum: Share of the new batch in BatchNorm's running statistics.
    """

    def __init__(self, in_channels: int, num_outputs: int, *, norm_momentum: float = 0.1) -> None:
        """Builds the three convolutions."""
        super().__init__()

        def conv_norm(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs, momentum=norm_momentum),
            )

        self.up1 = conv_norm(in_channels, in_channels // 2)
        self.up2 = conv_norm(in_channels // 2, in_channels // 4)
        self.output = conv_norm(in_channels // 4, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Decodes the last map of a backbone, (B, D, h, w) -> (B, num_outputs, 4h, 4w)."""
        height, width = x.shape[2:]
        x = resize(self.up1(x), (2 * height, 2 * width), align_corners=False)  # (B, D/2, 2h, 2w)
        x = resize(self.up2(x), (4 * height, 4 * width), align_corners=False)  # (B, D/4, 4h, 4w)
        return self.output(F.relu(x))


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool) -> Tensor:
    """Bilinear interpolation of maps, (B, D, h, w) -> (B, D, *size)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=align_corners)


@torch.no_grad()
def init_decoder_weights(module: nn.Module) -> None:
    """Initial values of one layer of a decoder; other layers are left alone.

    Kaiming-normal convolutions, BatchNorm with weight 1 and bias 0 (GLCNet's); biases of
    convolutions as torch has them. For `PreTrainedModel._init_weights`: the functions are those of
    transformers, which skip what a checkpoint has filled already. Elsewhere
    `decoder.apply(init_decoder_weights)`.
    """
    if isinstance(module, nn.Conv2d):
        init.kaiming_normal_(module.weight)
        if module.bias is not None:
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.bias, -bound, bound)
    elif isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
        for buffer, value in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
            if getattr(module, buffer) is not None:
                init.constant_(getattr(module, buffer), value)
