"""The device of a check."""

from __future__ import annotations

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.gpu.devices import NO_GPU


@pytest.fixture
def device(request, monkeypatch):
    """The device that a check names; accelerate takes it too, whatever the machine has."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(request.param == "cpu").lower())
    AcceleratorState._reset_state(reset_partial_state=True)
    yield torch.device(request.param)
    AcceleratorState._reset_state(reset_partial_state=True)
