"""Steps of every method on a device: precision, memory format, compiler, BatchNorm over GPUs."""

from __future__ import annotations

import copy
import dataclasses
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel

from rs_models.methods import METHODS
from rs_models.trainer import loop, stage
from tests.gpu.devices import on, on_devices, used
from tests.methods.test_methods import VARIANTS, make, views_of
from tests.trainer.helpers import tiny
from tests.trainer.test_methods import settings

STEPS = 3
# bfloat16 rounds to 2^-9, some forty times there and back, and a contrastive gradient is what is
# left over of nearly equal terms. Measured on the CPU with 8 images of 64 pixels: cosines of 0.96
# to 0.97 to float32's gradient, of FALSE (one pair of the batch is chosen) 0.93, of LaST 1.00, and
# lengths within 12 %. What a fault does: one dropout mask that differed left 0.15.
COSINE, LENGTH = 0.85, 0.25


def changes_of(name: str, device: torch.device) -> dict:
    """A method small enough for the CPU; on a GPU at twice the side and eight times the batch."""
    changes = {**settings(name), "image_size": 64}
    if name == "last":
        # A Swin drops layers at random, and compiled code draws other random numbers.
        changes["backbone"] = "vit_nano"
        changes["method"] = {**changes["method"], "local_size": 32}
    if name == "glcnet":
        # Its mask is drawn in the order of memory, which differs between the formats.
        changes["method"] = {**changes["method"], "dropout": 0.0}
    if device.type == "cuda":
        changes |= {"data": {"name": "synthetic:num=128,size=64"}, "batch_size": 64}
        if name == "sticl":
            changes["method"] = {**changes["method"], "queue_size": 256}
    return changes


def first_steps(folder, device: torch.device, **changes) -> tuple[list[float], torch.Tensor]:
    """Losses of the trainer's own first steps, and the gradient of the first as one vector."""
    config = tiny(folder, **changes)
    torch._dynamo.reset()  # of earlier checks: torch compiles the same code so many times at most
    counters.clear()
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(mixed_precision=config.precision)
    assert accelerator.device.type == device.type
    training = stage.build_stage(config, accelerator, folder, None)
    clear = training.optimizer.zero_grad
    gradients: list[torch.Tensor] = []

    def keep_and_clear() -> None:
        grads = [p.grad for p in training.method.parameters() if p.grad is not None]
        gradients.append(torch.cat([grad.flatten().float().cpu() for grad in grads]))
        clear()

    training.optimizer.zero_grad = keep_and_clear
    losses = []
    for micro_batches in training.feed.steps(0, STEPS):
        _, loss = loop.optimizer_step(training, accelerator, micro_batches)
        training.step += 1
        losses.append(loss.item())
    assert bool(counters["stats"]["unique_graphs"]) == config.compile
    return losses, gradients[0]


# Compiled, one is enough to know that the check runs: a minute of a core, most of it in a compiler.
CASES = [on(device, name, "eager", slow=True) for device in ("cpu", "cuda") for name in METHODS]
CASES += [on("cpu", "tov", "compiled", slow=True)]
CASES += [on("cuda", name, "compiled") for name in METHODS]


@pytest.mark.parametrize(("device", "name", "how"), CASES, indirect=["device"])
def test_bfloat16_points_where_float32_does(device, tmp_path, name, how):
    changes = changes_of(name, device)
    plain = {"precision": "no", "channels_last": False, "small_maps": False}
    fast = {"precision": "bf16", "channels_last": True, "compile": how == "compiled"}
    with used(device):
        wanted, direction = first_steps(tmp_path, device, **changes, **plain)
        losses, gradient = first_steps(tmp_path, device, **changes, **fast)
    assert all(torch.tensor(losses).isfinite())
    # Two digits: those of bfloat16.
    assert losses[0] == pytest.approx(wanted[0], rel=0.02)
    assert gradient.isfinite().all()
    assert torch.cosine_similarity(gradient, direction, dim=0) > COSINE
    assert gradient.norm() / direction.norm() == pytest.approx(1, abs=LENGTH)


@contextmanager
def group_of_one(device: torch.device, tmp_path):
    """A process group that this process has to itself."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@on_devices()
@pytest.mark.parametrize("name", ["tov", "sticl", "glcnet"])
def test_synchronised_batchnorm_in_a_group_of_one_changes_nothing(device, tmp_path, name):
    """As the trainer wraps a method for several GPUs; torch has no such BatchNorm on the CPU.

    There the conversion is looked at, and the unconverted method goes through the wrapper.
    """
    config = tiny(tmp_path, precision="bf16", small_maps=False)
    several = SimpleNamespace(num_processes=2, device=torch.device("cuda"))
    dropout = {"dropout": 0.0} if name == "glcnet" else {}
    alone = make(name, "resnet_nano", **dropout).train()
    alone.to(device, memory_format=torch.channels_last)
    batch = views_of(alone)
    batch = dataclasses.replace(batch, crops=[crop.to(device) for crop in batch.crops])
    together = stage._network(copy.deepcopy(alone), config, several)
    layers = [m for m in alone.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    synced = [m for m in together.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(synced) == len(layers) > 0
    assert together.state_dict().keys() == alone.state_dict().keys()
    if device.type == "cpu":
        together = copy.deepcopy(alone)

    def gradients(network: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = network(batch).loss
        loss.backward()
        return loss, {k.removeprefix("module."): p.grad for k, p in network.named_parameters()}

    wanted_loss, wanted = gradients(alone)
    with group_of_one(device, tmp_path):
        numbers = [0] if device.type == "cuda" else None
        wrapped = DistributedDataParallel(together, device_ids=numbers)
        loss, got = gradients(wrapped)
        # The same kernels on the same numbers: what differs is the order that a GPU adds up in.
        torch.testing.assert_close(loss, wanted_loss, rtol=0.005, atol=0)
        assert got.keys() == wanted.keys()
        pairs = [(got[key], wanted[key]) for key in wanted if wanted[key] is not None]
        mine, theirs = (
            torch.cat([p.flatten().float() for p in side]) for side in zip(*pairs, strict=True)
        )
        assert torch.cosine_similarity(mine, theirs, dim=0) > 0.99


@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_no_forward_mixes_devices_or_waits_for_one(name):
    """Without a GPU: torch's stand-ins for tensors on one refuse both."""
    model = make(name, "swin_nano" if name.startswith("last") else "resnet_nano").train()
    batch = views_of(model)

    def on_gpu(tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        return torch.empty_like(tensor, device="cuda")

    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for key, weight in module.named_parameters(recurse=False):
                there = nn.Parameter(on_gpu(weight), requires_grad=weight.requires_grad)
                module._parameters[key] = there
            for key, buffer in module.named_buffers(recurse=False):
                module._buffers[key] = on_gpu(buffer)
        batch = dataclasses.replace(
            batch,
            crops=[on_gpu(crop) for crop in batch.crops],
            targets=on_gpu(batch.targets),
            boxes=on_gpu(batch.boxes),
            index=torch.arange(6),  # these stay on the CPU
            labels=torch.zeros(6, dtype=torch.long),
        )
        model.before_step(0, 10)
        output = model(batch)
        model.after_step(0, 10)
    tensors = [output.loss, output.embeddings, *output.terms.values()]
    assert all(tensor.device.type == "cuda" for tensor in tensors)
