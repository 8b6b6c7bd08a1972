"""The command that the package installs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rs_models import cli
from rs_models.export import export
from tests.conftest import ROOT
from tests.support.models import nano, provenance


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "usage:" in shown
    assert "rs-models" in shown


def test_help_lists_the_commands_with_an_example_each(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in shown
        assert command.example in shown
    assert cli.main([]) == 2
    assert cli.main(["--version"]) == 0


def test_an_unknown_command_is_one_sentence(capsys):
    assert cli.main(["convert-upstram"]) == 2
    assert "did you mean convert-upstream?" in capsys.readouterr().err


def test_bad_input_of_a_command_ends_in_one_sentence_and_code_2(tmp_path):
    garbage = tmp_path / "weights.pth"
    garbage.write_bytes(b"no checkpoint")
    arguments = [str(garbage), "--method", "tov", "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "rs_models.cli", "convert-upstream", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def shown(capsys, *arguments):
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "rs" / "tov-resnet-nano"
    backbone = nano("resnet_nano")
    return export(backbone, folder, provenance=provenance(backbone, epochs=7), timm=False)


def test_list_shows_the_zoo_and_the_local_hub(capsys, model, monkeypatch):
    rows = shown(capsys, "list")
    assert {"tov-resnet50", "last-swin-tiny"} <= {row["name"] for row in rows}
    # None is on the Hub yet; some lie in the clone.
    folders = [row["where"] for row in rows if not row["where"].startswith("train it")]
    assert folders and all((ROOT / folder / "model.safetensors").is_file() for folder in folders)
    assert {row["name"] for row in shown(capsys, "list", "sticl*")} == {
        "sticl-resnet50",
        "sticl-resnet18",
    }
    assert cli.main(["list", "sticl-resnet19"]) == 2
    assert "did you mean sticl-resnet18?" in capsys.readouterr().err
    only = shown(capsys, "list", "--method", "last", "--task", "detection")
    assert [row["name"] for row in only] == ["last-swin-tiny"]
    monkeypatch.setenv("RS_MODELS_HUB_DIR", str(model.parent.parent))
    (local,) = (row for row in shown(capsys, "list") if row["name"] == "rs/tov-resnet-nano")
    assert (local["method"], local["where"]) == ("tov", str(model))
    assert cli.main(["list"]) == 0
    assert "tov-resnet50" in capsys.readouterr().out
    assert cli.main(["list", "--method", "nope"]) == 2
    assert cli.main(["list", "--bands", "purple"]) == 2


def test_info_tells_what_a_model_is_without_its_weights(capsys, model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    facts = shown(capsys, "info", str(model))
    backbone = nano("resnet_nano")
    tensors = [t for t in backbone.state_dict().values() if t.is_floating_point() or not t.ndim]
    assert facts["parameters"] == sum(t.numel() for t in tensors)
    assert facts["architecture"] == "ResNetModel"
    assert facts["origin"]["epochs"] == 7
    assert facts["files"]["config.json"] == (model / "config.json").stat().st_size
    monkeypatch.setenv("RS_MODELS_HUB_DIR", str(model.parent.parent))
    assert shown(capsys, "info", "rs/tov-resnet-nano")["where"] == str(model)
    assert cli.main(["info", str(model)]) == 0
    assert "bands: red, green, blue" in capsys.readouterr().out
    for wrong, words in (
        (str(tmp_path), "no config.json"),
        ("nonsense", "no Hub id"),
        ("rsisc-resnet50", "not on the Hub yet"),
    ):
        assert cli.main(["info", wrong]) == 2
        assert words in capsys.readouterr().err


def test_export_takes_the_backbone_out_of_a_checkpoint(capsys, tmp_path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel

    from rs_models.trainer import pretrain
    from tests.trainer.helpers import tiny

    pretrain(tiny(tmp_path / "run", method={"name": "tov"}, max_steps=1))
    out = tmp_path / "out"
    assert cli.main(["export", str(tmp_path / "run" / "pretraining"), str(out)]) == 0
    one = load_file(tmp_path / "run" / "export" / "model.safetensors")
    two = load_file(out / "model.safetensors")
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert AutoModel.from_pretrained(out).config.rs_models["method"] == "tov"
    assert cli.main(["export", str(tmp_path / "run"), str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "nothing"), str(tmp_path / "b")]) == 2
    assert "No model at" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "run" / "export"), str(tmp_path / "b")]) == 2
    assert "no method's checkpoint" in capsys.readouterr().err


def test_recipes_are_found_by_name(capsys):
    assert cli.main(["pretrain", "--config", "quickstart", "epoch=3"]) == 2
    assert "did you mean epochs?" in capsys.readouterr().err
    assert cli.main(["pretrain", "--config", "quickstrt"]) == 2
    assert "did you mean quickstart" in capsys.readouterr().err


def test_evaluate_prints_json(capsys, model, tmp_path):
    results = shown(
        capsys,
        *("evaluate", f"model={model}", "data.name=synthetic:num=48,size=32"),
        *("protocols=[knn5]", f"output_dir={tmp_path}"),
    )
    assert results[0]["protocol"] == "knn5"


def test_bash_completes_commands_and_options(capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    # What bash does when somebody presses Tab.
    ask = """
function=$(complete -p rs-models | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=({words}); COMP_CWORD={last}
$function rs-models
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

    def complete(*words):
        code = script + ask.format(words=" ".join(words), last=len(words) - 1)
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert complete("rs-models", "pu") == ["push"]
    assert set(complete("rs-models", "convert-")) == {"convert-upstream", "convert-dataset"}
    assert "--dry-run" in complete("rs-models", "push", "--dr")


def test_the_zoo_says_what_the_recipes_do():
    import yaml

    from rs_models.zoo import ZOO

    mixtures = {
        "outputs/aerial": "aid96+resisc14_96+eurosat64+ucmerced128+rsscn7",
        "outputs/open": "eurosat64+ucmerced128+czech_ortho256+dubai256+naip_trees",
    }
    assert len({model.name for model in ZOO}) == len(ZOO)
    for model in ZOO:
        recipe = yaml.safe_load((ROOT / "training" / "configs" / model.recipe).read_text())
        assert recipe["output_dir"] == f"outputs/{model.name}"
        assert (recipe["method"]["name"], recipe["backbone"]) == (model.method, model.backbone)
        data = (recipe.get("data") or recipe["stages"][-1]["data"])["name"]
        assert mixtures.get(data, data.rpartition("to/")[2]) == model.data
        assert model.name.startswith(f"{model.method}-")
