"""Model cards say what facts, results and papers say, and nothing without results."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from rs_models.commands import card as command
from rs_models.errors import UserError
from rs_models.evaluation.features import weights_hash
from rs_models.evaluation.results import Result, read_all, write
from rs_models.export import export
from rs_models.files import write_bytes
from rs_models.publish import card as cards
from rs_models.publish.facts import read_facts, thinned
from rs_models.settings import run_script
from tests.conftest import ROOT
from tests.support.models import nano, provenance


def result(
    model, protocol, mean, *, data="aid96", revision="sha256:0", draws=1, seen="aid96:train"
):
    correct = np.zeros((draws, 1000), bool)
    for number in range(draws):
        correct[number, : int(10 * mean) + number] = True
    few = {"images_per_class": 5, "c": 0.1} if "-n" in protocol else {}
    knn = {"k": 20, "temperature": 0.07} if protocol.startswith("knn") else {}
    return Result.measured(
        correct,
        command="python training/probe.py",
        model=model,
        model_revision=revision,
        data=data,
        data_revision="c" * 40,
        protocol=protocol,
        settings={"pretrained_on": seen, "test_images": 1000, **few, **knn},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "tov-resnet-nano"
    model = nano("resnet_nano")
    export(model, folder / "export", provenance=provenance(model, data="aid96:train"))
    (folder / "export" / "run.yaml").write_text("backbone: resnet_nano\nepochs: 3\n")
    lines = [
        {"step": s, "epoch": s / 10, "loss": 5 - s / 20, "lr": 0.1, "effective_rank": 9.0}
        for s in range(1, 31)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "knn.jsonl").write_text('{"step": 10, "knn20": 40.0}\n{"step": 30, "knn20": 45.0}\n')
    return folder


@pytest.fixture(scope="module")
def results(run):
    from rs_models import backbones

    own = f"sha256:{weights_hash(backbones.load(str(run / 'export')))}"
    found = [
        result("tov-resnet-nano", "knn20", 47.3, revision=own),
        result("tov-resnet-nano", "linear-n5", 31.2, revision=own, draws=5),
        result("tov-resnet-nano", "linear-n20", 39.9, revision=own, draws=5),
        result("tov-resnet-nano", "knn20", 61.7, data="timm/eurosat-rgb", revision=own),
        result("somebody-else", "knn20", 99.9),
    ]
    for name in ("image-statistics", "random-resnet_nano", "random-vit_nano"):
        found.append(result(f"baseline:{name}", "knn20", 30.0))
        found.append(result(f"baseline:{name}", "linear-n5", 20.0, draws=5))
    return found


def card(run, results, **more):
    return cards.model_card(run, results, repo_id="rs/tov-resnet-nano", **more)


def test_a_card_shows_this_model_beside_what_costs_nothing(run, results):
    text = card(run, results)["README.md"].decode()
    assert "| tov-resnet-nano | aid96:train | 47.3 [" in text
    assert "31.4 ± 0.1" in text  # 31.2 to 31.6
    assert "baseline:image-statistics" in text
    assert "baseline:random-resnet_nano" in text
    assert "random-vit_nano" not in text  # another architecture
    assert "somebody-else" not in text
    assert "aid96 (1000 test images) is in-domain" in text
    assert "timm/eurosat-rgb (1000 test images) is transfer" in text
    assert 'AutoModel.from_pretrained("rs/tov-resnet-nano", revision="v' in text
    assert "hf-hub:rs/tov-resnet-nano" in text
    assert "epochs: 3" in text
    assert "--config run.yaml data.name=path/to/aid96" in text
    assert "@article{tao2023tov" in text
    assert "github.com/GeoX-Lab/G-RSIM" in text


def test_the_metadata_is_what_the_hub_searches_and_shows(run, results):
    files = card(run, results)
    parsed = ModelCard(files["README.md"].decode())
    data = parsed.data
    assert (data.license, data.library_name) == ("apache-2.0", "transformers")
    assert data.pipeline_tag == "image-feature-extraction"
    assert {"remote-sensing", "self-supervised-learning", "tov", "timm"} <= set(data.tags)
    values = {(r.dataset_type, r.metric_name): r.metric_value for r in data.eval_results}
    assert values["aid96", "knn20 accuracy"] == 47.3
    assert values["timm/eurosat-rgb", "knn20 accuracy"] == 61.7
    assert len(values) == 4
    # Only a data set of the Hub has a leaderboard there.
    assert [name for name in files if name.startswith(".eval")] == [
        ".eval_results/timm--eurosat-rgb.yaml"
    ]
    (entry,) = yaml.safe_load(files[".eval_results/timm--eurosat-rgb.yaml"])
    assert entry["dataset"]["id"] == "timm/eurosat-rgb"
    assert entry["value"] == 61.7


def test_parts_of_an_epoch_are_told_to_one_decimal(tmp_path):
    """A card said 19.008 epochs."""
    model = nano("resnet_nano")
    export(model, tmp_path / "run" / "export", provenance=provenance(model, epochs=19.008))
    rows = [result("tov-resnet-nano", "knn20", 50, revision="a" * 40)]
    assert "| epochs | 19 |" in card(tmp_path / "run", rows)["README.md"].decode()


def test_a_rank_that_falls_with_the_batch_is_no_collapse(tmp_path, run, results):
    """The effective rank of a run halved where a stage had half the images a batch."""
    folder = shutil.copytree(run, tmp_path / "tov-resnet-nano")
    words = "cannot pass its size, 128 images, then 64."
    (folder / "export" / "run.yaml").write_text(
        "batch_size: 128\nstages: [{epochs: 2}, {epochs: 1}]\n"
    )
    assert words not in card(folder, results)["README.md"].decode()
    (folder / "export" / "run.yaml").write_text(
        "batch_size: 128\nstages: [{epochs: 2}, {epochs: 1, batch_size: 64}]\n"
    )
    assert words in card(folder, results)["README.md"].decode()


def test_data_sets_of_the_hub_and_the_first_weights_are_named(tmp_path, results):
    model = nano("resnet_nano")
    meta = provenance(model, data=["timm/eurosat-rgb:train", "tiles"], data_revision=[None, None])
    export(model, tmp_path / "run" / "export", provenance=meta)
    (tmp_path / "run" / "run.yaml").write_text("init_from: timm/resnet50.a1_in1k\nepochs: 2\n")
    rows = [result("tov-resnet-nano", "knn20", 50, revision="a" * 40)]
    text = card(tmp_path / "run", rows)["README.md"].decode()
    assert " for 2 epochs, going on from `timm/resnet50.a1_in1k`" in text
    assert "is not in this repository" not in text
    data = ModelCard(text).data
    assert data.datasets == ["timm/eurosat-rgb"]
    assert data.base_model == "timm/resnet50.a1_in1k"
    (tmp_path / "run" / "run.yaml").write_text("init_from: earlier\nepochs: 2\n")
    text = card(tmp_path / "run", rows)["README.md"].decode()
    assert "`earlier`, which it goes on from, is not in this repository" in text


def test_other_bands_are_given_as_arrays(tmp_path):
    model = nano("resnet_nano", bands="rgbn")
    export(model, tmp_path / "export", provenance=provenance(model, "rgbn"))
    text = card(tmp_path, [result("tov-resnet-nano", "knn20", 50, revision="x")])["README.md"]
    assert b"np.load" in text
    assert b"red, green, blue, nir" in text
    assert b"Image.open" not in text


def test_no_results_no_card(run, results):
    with pytest.raises(UserError, match=r"no results of tov-resnet-nano, and a card without"):
        card(run, [r for r in results if r.model != "tov-resnet-nano"])


def test_results_of_other_weights_are_refused(run, results):
    wrong = [*results, result("tov-resnet-nano", "knn5", 50, revision="sha256:feedfeedfeedfeed")]
    with pytest.raises(UserError, match=r"aid96 by knn5 is of other weights \(sha256:feed"):
        card(run, wrong)


def test_the_same_input_gives_the_same_bytes(run, results):
    one, two = card(run, results), card(run, results)
    assert one == two
    assert {name for name in one if name.endswith(".png")} == {
        *("figures/training.png", "figures/few_labels.png")
    }
    assert all(len(content) < 60_000 for content in one.values())


def test_a_whole_method_is_loaded_by_its_own_class(run, results, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "pretraining").mkdir()
    config = json.loads((run / "export" / "config.json").read_text())
    method = {"model_type": "rs_tov", "backbone_config": config, "rs_models": config["rs_models"]}
    (tmp_path / "run" / "pretraining" / "config.json").write_text(json.dumps(method))
    files = cards.model_card(
        tmp_path / "run", results, repo_id="rs/tov-resnet-nano-pretraining", pretraining=True
    )
    text = files["README.md"].decode()
    assert 'AutoModelForPreTraining.from_pretrained("rs/tov-resnet-nano-pretraining"' in text
    data = ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.eval_results) == ("rs_models", None, None)


def test_facts_render_the_same_card_as_the_run(run, results, tmp_path):
    cards.collect(run, tmp_path / "facts")
    assert not list((tmp_path / "facts").glob("*.safetensors"))
    assert card(tmp_path / "facts", results)["README.md"] == card(run, results)["README.md"]
    with pytest.raises(UserError, match="of other weights"):
        wrong = result("tov-resnet-nano", "knn5", 50, revision="sha256:feedfeedfeedfeed")
        card(tmp_path / "facts", [*results, wrong])


def test_components_are_drawn_of_labelled_images(run, tmp_path):
    cards.collect(run, tmp_path, data="synthetic:num=24,size=32")
    found = read_facts(tmp_path).features
    assert len(found["points"]) == len(found["labels"])
    assert read_facts(run).features == found  # a push of the run has the picture too
    (run / "features.json").unlink()
    points = np.array(found["points"])
    assert abs(np.corrcoef(points.T)[0, 1]) < 0.01  # components are uncorrelated
    assert points.std(0)[0] >= points.std(0)[1]


def test_logs_are_thinned_to_what_is_drawn():
    lines = [{"stage": 1, "step": s, "loss": s / 3, "images_per_second": 9} for s in range(1000)]
    kept = thinned(lines)
    assert len(kept) <= 120
    assert kept[-1]["step"] == 999
    assert set(kept[0]) == {"stage", "step", "loss"}


def test_a_folder_without_provenance_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(UserError, match="does not say where the weights come from"):
        read_facts(tmp_path)
    with pytest.raises(UserError, match=r"no config\.json"):
        read_facts(tmp_path / "none")


def test_the_command_renders_checks_and_tells_a_stale_card(
    run, results, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for row in results:
        write(row, "model_cards/results")
    assert run_script(command.main, [str(run), "--collect"]) == 0
    assert run_script(command.main, ["--all"]) == 0
    assert run_script(command.main, ["--all", "--check"]) == 0
    page = tmp_path / "model_cards/rendered/tov-resnet-nano/README.md"
    assert "47.3" in page.read_text()
    page.write_text(page.read_text().replace("47.3", "87.3"))
    capsys.readouterr()
    assert run_script(command.main, ["--all", "--check"]) == 2
    assert "does not show what the facts and results say" in capsys.readouterr().err
    assert run_script(command.main, ["--all"]) == 0
    picture = page.parent / "figures" / "training.png"
    picture.unlink()
    assert run_script(command.main, ["--all", "--check"]) == 2
    assert run_script(command.main, []) == 2


def test_a_model_of_a_clone_has_its_card_beside_its_weights(
    run, results, tmp_path, monkeypatch, capsys
):
    """New results changed a card and left the one beside the weights, which is what is loaded."""
    monkeypatch.chdir(tmp_path)
    beside = tmp_path / "hub/rs/tov-resnet-nano"
    beside.mkdir(parents=True)
    for row in results:
        write(row, "model_cards/results")
    assert run_script(command.main, [str(run), "--collect"]) == 0
    page = beside / "README.md"
    assert not page.exists()  # a run may bear the name of other weights
    assert run_script(command.main, ["--all"]) == 0
    rendered = tmp_path / "model_cards/rendered/tov-resnet-nano"
    assert page.read_bytes() == (rendered / "README.md").read_bytes()
    assert (beside / "figures/training.png").is_file()
    page.write_text(page.read_text().replace("47.3", "87.3"))
    assert run_script(command.main, ["--all", "--check"]) == 2
    assert "hub/rs/tov-resnet-nano" in capsys.readouterr().err
    assert run_script(command.main, ["--all"]) == 0
    assert run_script(command.main, ["--all", "--check"]) == 0


def test_a_card_that_was_cut_short_is_ours_and_redone(run, results, tmp_path, monkeypatch):
    """A first card that was killed behind its README.md was refused as somebody else's."""
    from rs_models.publish import card

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    repo = "rs/tov-resnet-nano"
    assert card.render(run, whole, results, repo)

    def dying(path, content):
        if (cut / "README.md").exists():
            raise KeyboardInterrupt
        write_bytes(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(card, "write_bytes", dying)
        card.render(run, cut, results, repo)
    assert card.render(run, cut, results, repo)
    assert (cut / "README.md").read_bytes() == (whole / "README.md").read_bytes()
    assert not card.render(run, cut, results, repo)


def test_the_cards_in_the_repository_are_what_the_data_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {path.name for path in cards.MODELS.iterdir()}
    assert names == {path.name for path in cards.RENDERED.iterdir()}
    assert names
    measured = read_all(command.RESULTS)
    for name in names:
        cards.check(cards.MODELS / name, cards.RENDERED / name, measured, f"rs/{name}")
        text = (cards.RENDERED / name / "README.md").read_text()
        for picture in re.findall(r"\]\((figures/.*?)\)", text):
            assert (cards.RENDERED / name / picture).is_file()


def test_a_readme_of_somebody_else_stays(run, results, tmp_path, capsys):
    (tmp_path / "README.md").write_text("my project")
    folder = tmp_path / "measured"
    for one in results:
        write(one, folder)
    words = [str(run), "--results", str(folder), "--output"]
    assert run_script(command.main, [*words, str(tmp_path)]) == 2
    assert "no card of ours" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "measured"]
    assert (tmp_path / "README.md").read_text() == "my project"
    for said in ("rendered", "up to date already"):
        assert run_script(command.main, [*words, str(tmp_path / "card")]) == 0
        assert said in capsys.readouterr().out
