from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from rs_models import backbones
from rs_models.backbones.decoders import (
    AsppEncoder,
    DeepLabV3PlusDecoder,
    FcnDecoder,
    init_decoder_weights,
    resize,
)
from rs_models.errors import UserError
from tests.support.golden_weights import (
    TOLERANCE,
    fill_by_rule,
    glcnet_name,
    golden_input,
    rule_tensor,
)


class Glcnet(nn.Module):
    """The parts of GLCNet before its heads."""

    def __init__(self):
        super().__init__()
        backbone = backbones.build("resnet50", bands="rgbn")
        self.backbone = backbones.dilate(backbone, 16, first_block_dilated=True)
        self.encoder = AsppEncoder(2048)
        self.decoder = DeepLabV3PlusDecoder(256, 64)

    def forward(self, x):
        low, *_, last = backbones.stages(self.backbone, x)
        encoded = self.encoder(last)
        return low, last, encoded, self.decoder(encoded, low)


def test_glcnet_is_the_authors_network(golden):
    expected = np.load(golden / "architectures.npz")
    model = fill_by_rule(Glcnet(), glcnet_name)
    with torch.no_grad():
        low, last, encoded, decoded = model(golden_input("glcnet_x1"))
    for name, found in {
        "low_slice": low[:, :4, :4, :4],
        "backbone_slice": last[:, :8],
        "encoder_out": encoded,
        "decoder_slice": decoded[:, :8],
    }.items():
        wanted = torch.from_numpy(expected[f"glcnet/{name}"])
        torch.testing.assert_close(found, wanted, **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


def test_glcnet_has_the_authors_tensors(golden):
    keys = json.loads((golden / "glcnet_state_dict_keys.json").read_text())
    heads = {key for key in keys if key.startswith(("proj.", "proj1."))}
    with torch.device("meta"):
        model = Glcnet()
    ours = {glcnet_name(key): list(value.shape) for key, value in model.state_dict().items()}
    assert len(ours) == len(model.state_dict())  # one to one
    assert ours == {key: shape for key, shape in keys.items() if key not in heads}
    in_heads = sum(int(np.prod(keys[key])) for key in heads)
    assert sum(p.numel() for p in model.parameters()) == 40_522_464 - in_heads


def test_sizes_at_224_pixels():
    with torch.device("meta"):
        low, last, encoded, decoded = Glcnet().eval()(torch.empty(1, 4, 224, 224))
    assert low.shape == (1, 256, 56, 56) and last.shape == (1, 2048, 14, 14)
    assert encoded.shape == (1, 256, 14, 14) and decoded.shape == (1, 64, 56, 56)


def test_rule_of_the_golden_weights():
    weight = rule_tensor("backbone.conv1.weight", (64, 4, 7, 7))
    assert weight.dtype == torch.float32 and abs(float(weight.std()) * 14 - 1) < 0.02
    assert (rule_tensor("x.running_var", (8,)) >= 0.5).all()
    with pytest.raises(ValueError, match="says nothing of x"):
        rule_tensor("x", (8,))


@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
@pytest.mark.parametrize("name", ["resnet_nano", "resnet18"])
def test_sizes_follow_the_maps(name, size):
    low_channels, *_, channels = backbones.stage_dims(backbones.backbone_config(name))
    height, width = size
    last, low = torch.randn(2, channels, height, width), torch.randn(2, low_channels, 16, 12)
    encoded = AsppEncoder(channels, 32, rates=(2, 4))(last)
    assert encoded.shape == (2, 32, height, width)
    decoder = DeepLabV3PlusDecoder(low_channels, 5, channels=32, low_channels_out=8)
    assert decoder(encoded, low).shape == (2, 5, 16, 12)
    assert FcnDecoder(channels, 5)(last).shape == (2, 5, 4 * height, 4 * width)


def test_image_pooling_equals_upsampling_from_one_pixel():
    mean = torch.randn(2, 3, 1, 1)
    wanted = resize(mean, (4, 5), align_corners=True)
    torch.testing.assert_close(mean.expand(-1, -1, 4, 5), wanted)


def test_dropout_is_where_the_paper_has_it():
    for dropout in ((0.0, 0.0), (0.5, 0.1)):
        decoder = DeepLabV3PlusDecoder(4, 2, dropout=dropout)
        assert (decoder.dropout1.p, decoder.dropout2.p) == dropout
    encoder = AsppEncoder(8, 8, dropout=1.0)
    assert not encoder(torch.randn(2, 8, 4, 4)).any()
    assert encoder.eval()(torch.randn(2, 8, 4, 4)).any()


def test_norm_momentum_reaches_every_norm():
    parts = [
        AsppEncoder(8, 8, norm_momentum=0.9),
        DeepLabV3PlusDecoder(8, 2, norm_momentum=0.9),
        FcnDecoder(8, 2, norm_momentum=0.9),
    ]
    norms = [m for part in parts for m in part.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 6 + 3 + 3 and {norm.momentum for norm in norms} == {0.9}


def test_aspp_says_why_it_cannot_train_on_one_image():
    encoder, one = AsppEncoder(8, 8), torch.randn(1, 8, 4, 4)
    with pytest.raises(UserError, match="batch of one image"):
        encoder(one)
    encoder.pool.eval()  # frozen statistics need no batch
    assert encoder(one).shape == encoder.eval()(one).shape == (1, 8, 4, 4)


def test_initial_weights_are_kaiming_normal():
    torch.manual_seed(0)
    decoder = DeepLabV3PlusDecoder(64, 16)
    for parameter in decoder.parameters():
        nn.init.constant_(parameter, 7.0)
    decoder.apply(init_decoder_weights)
    for convolution in (decoder.refine1[0], decoder.refine2[0]):
        fan_in = convolution.weight[0].numel()
        assert abs(float(convolution.weight.detach().std()) / (2 / fan_in) ** 0.5 - 1) < 0.02
    assert (decoder.refine1[1].weight == 1).all() and (decoder.refine1[1].bias == 0).all()
    assert decoder.output.bias.abs().max() <= decoder.output.in_channels**-0.5
