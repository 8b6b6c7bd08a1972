"""A Hub cache made of local folders, so that models load by id without a network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class FakeHub:
    """A cache folder in the layout that huggingface_hub leaves behind."""

    cache: Path

    def publish(self, folder: Path, repo_id: str) -> str:
        """Puts a folder into the cache under an id; returns its (made up) commit."""
        commit = hashlib.sha1(repo_id.encode()).hexdigest()
        repository = self.cache / f"models--{repo_id.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(commit)
        shutil.copytree(folder, repository / "snapshots" / commit)
        return commit

    def run(self, program: str, *arguments: str) -> Any:
        """Runs Python code offline against this cache; returns the JSON of its last output line."""
        environment = {
            **os.environ,
            "HF_HUB_CACHE": str(self.cache),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=environment,
            cwd=self.cache,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def fake_hub(tmp_path_factory: pytest.TempPathFactory) -> FakeHub:
    return FakeHub(tmp_path_factory.mktemp("hub"))
