"""The Spaces on loopback, and a browser to look at them."""

from __future__ import annotations

import runpy
import shutil

import pytest

from tests.conftest import ROOT
from tests.support.models import nano, provenance

SPACES = sorted(folder.parent.name for folder in (ROOT / "spaces").glob("*/app.py"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="package")
def started(tmp_path_factory):
    """The Spaces on loopback with two small models: name -> address."""
    from transformers import ViTImageProcessor

    folders = []
    for name in ("resnet_mini", "vit_mini_patch8"):
        model = nano(name, image_size=64)
        model.config.rs_models = provenance(model)
        folder = tmp_path_factory.mktemp("models") / name
        model.save_pretrained(folder)
        ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
        folders.append(str(folder))
    patch = pytest.MonkeyPatch()
    patch.setenv("RS_MODELS_DEMO_MODELS", ",".join(folders))
    patch.setenv("RS_MODELS_DEMO_DATA", "synthetic:num=72,size=48")
    patch.setenv("RS_MODELS_DEMO_KEEP", "600")
    from rs_models.demos import page

    pages, addresses = [], {}
    for name in SPACES:
        made = runpy.run_path(str(ROOT / "spaces" / name / "app.py"), run_name=name)["demo"]
        _, address, _ = page.launch(made, prevent_thread_lock=True, server_name="127.0.0.1")
        pages.append(made)
        addresses[name] = address
    yield addresses
    for made in pages:
        made.close()
    patch.undo()


@pytest.fixture
def started_alone(started):
    """Compare once more, which keeps five sessions in place of 200: its address."""
    from rs_models.demos import page

    made = runpy.run_path(str(ROOT / "spaces" / "compare" / "app.py"), run_name="compare")["demo"]
    _, address, _ = page.launch(
        made, prevent_thread_lock=True, server_name="127.0.0.1", state_session_capacity=5
    )
    yield address
    made.close()


@pytest.fixture(scope="package")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # Debian's Chromium, as root in a container.
        yield play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
