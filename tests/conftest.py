"""Fixtures of all tests; nothing here reaches a network."""

from __future__ import annotations

import os
from pathlib import Path

# Read when the libraries are imported, so set before any of them is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before torch is imported: workers of `pytest -n 2` keep to a core each. On shared cores the
# threads of two of torch's pools wait for each other many times longer than they work.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    _cores = sorted(os.sched_getaffinity(0))
    _number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, {_cores[_number % len(_cores)]})


@pytest.fixture(scope="session", autouse=True)
def private_caches(tmp_path_factory):
    """Caches of this test run only: a test never reads what an earlier run left."""
    folder = tmp_path_factory.mktemp("caches")
    kept = {key: os.environ.get(key) for key in ("RS_MODELS_CACHE",)}
    os.environ["RS_MODELS_CACHE"] = str(folder)
    yield
    for key, value in kept.items():
        os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real images; tests that ask for it are skipped where it is absent."""
    folder = Path(os.environ.get("RS_MODELS_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"real images are not at {folder} (set RS_MODELS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the numbers measured on the authors' functions."""
    return ROOT / "tests" / "golden"


@pytest.fixture(scope="session")
def hub_process():
    """One Hub for tests, for the whole run."""
    from tests.support.hub.server import HubServer

    with HubServer.start() as server:
        yield server


@pytest.fixture
def hub(hub_process):
    """An empty Hub for tests."""
    hub_process.reset()
    return hub_process
