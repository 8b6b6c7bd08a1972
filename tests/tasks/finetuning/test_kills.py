"""A kill at any file operation of a fine-tuning run: the same command goes on and ends the same."""

from __future__ import annotations

import pytest

from tests.support.kills import campaign

RUN = [
    *("finetune", "output_dir={out}/run", "data.name=synthetic:num=36,size=32", "labels=3/class"),
    *("model=baseline:random-resnet_nano", "seeds=[0]", "max_steps=2", "evaluations=2"),
    *("batch_size=4", "holdout=0.3", "json=true"),
]


@pytest.mark.slow
def test_a_kill_between_checkpoints_model_and_result_loses_nothing(tmp_path):
    hits = r"\.finetune\.|checkpoint-2/optimizer|\.test\."
    result = campaign(RUN, tmp_path, only=hits, how=("half",))
    assert len(result.operations) > 40 and len(result.trials) == 3
    assert not result.faults, "\n\n".join(result.faults)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kill_at_every_file_operation_loses_nothing(tmp_path):
    result = campaign(RUN, tmp_path)
    assert len(result.trials) > len(result.operations) > 40
    assert not result.faults, "\n\n".join(result.faults)
