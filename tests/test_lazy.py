"""Importing is light, and transformers knows our models whichever package is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rs_models import cli
from tests.conftest import ROOT

HEAVY = "{'torch', 'transformers', 'datasets', 'timm', 'rasterio', 'scipy', 'cv2', 'gradio'}"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.strip()


def test_help_lists_completion_and_refusals_need_no_torch():
    code = (
        "import sys\nfrom rs_models import cli\n"
        "calls = [[], ['--help'], ['list'], ['pretrian'], ['completion', 'bash'],\n"
        "         ['pretrain', '--epoch', '3'], ['pretrain', '--config', 'quickstrat']]\n"
        "calls += [[name, '--help'] for name in cli.COMMANDS]\n"
        "for call in calls:\n"
        "    try:\n        cli.main(call)\n    except SystemExit:\n        pass\n"
        f"    assert not {HEAVY} & set(sys.modules), (call, {HEAVY} & set(sys.modules))\n"
        "print('light')"
    )
    assert python(code).endswith("light")


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import rs_models\nfrom transformers import AutoConfig, AutoModelForPreTraining",
        "from transformers import AutoConfig, AutoModelForPreTraining\nimport rs_models",
        # A module of ours that imports transformers while it is half imported itself.
        "from rs_models.methods.tov import TovConfig\n"
        "from transformers import AutoConfig, AutoModelForPreTraining",
        "import rs_models\nfrom transformers import PreTrainedModel\n"
        "from transformers import AutoConfig, AutoModelForPreTraining",
    ],
)
def test_the_auto_classes_know_our_models(imports):
    code = imports + (
        "\nconfig = AutoConfig.for_model('rs_tov', backbone_config={'model_type': 'resnet'})\n"
        "print(AutoModelForPreTraining._model_mapping[type(config)].__name__)\n"
        "import sys\nprint(any(type(f).__name__ == '_Watch' for f in sys.meta_path))"
    )
    assert python(code).split() == ["TovForPreTraining", "False"]


def test_the_faces_hand_their_names_on():
    import rs_models.data
    import rs_models.tasks.finetuning as finetuning

    assert callable(rs_models.data.load) and callable(finetuning.finetune)
    with pytest.raises(AttributeError, match="has no attribute 'lood'"):
        _ = rs_models.data.lood
    assert set(cli.COMMANDS) >= {"pretrain", "list"}
