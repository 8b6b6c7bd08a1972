"""From a folder of tiles to answers on a map and a classifier that others load."""

from __future__ import annotations

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from rasterio.transform import from_origin

from rs_models import cli
from rs_models.data.geoparquet import write_geoparquet
from rs_models.data.vectors import read_features
from rs_models.errors import UserError
from rs_models.export import export
from rs_models.labelling import Index, Labels, classify
from rs_models.labelling.answers import write_rows
from rs_models.predict.vector_files import is_ours
from tests.predict.helpers import write
from tests.support.hub.server import HubServer
from tests.support.models import nano, provenance

SIDE, COUNT = 32, 36
CLASSES = ("city", "field", "water")
CLI = "import sys; from rs_models.cli import main; sys.exit(main(sys.argv[1:]))"


def ground(name, side, seed):
    """Pixels (3, H, W) that a stranger could tell apart: blocks, furrows, smooth blue."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=6, size=(3, side, side))
    y = np.arange(side)[:, None] * np.ones(side)
    if name == "city":
        blocks = rng.integers(60, 230, (side // 4, side // 4)).repeat(4, 0).repeat(4, 1)
        base = np.stack([blocks] * 3)
    elif name == "field":
        base = np.stack([70 + 25 * (y % 4 > 1), 120 + 30 * (y % 4 > 1), 40 + 0 * y])
    else:
        base = np.stack([20 + 0 * y, 50 + 0 * y, 110 + 0 * y])
    return (base + noise).clip(1, 255).astype(np.uint8)


def truth(name):
    """Class of a tile, by its number."""
    return CLASSES[int(name[-8:-4]) % 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tov-resnet-nano"
    backbone = nano("resnet_nano")
    export(backbone, folder, provenance=provenance(backbone, train_size=SIDE), timm=False)
    return str(folder)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Georeferenced tiles side by side, and one that is cut off."""
    folder = tmp_path_factory.mktemp("pile") / "tiles"
    folder.mkdir()
    for number in range(COUNT):
        place = from_origin(500_000 + 16 * number, 5_000_000, 0.5, 0.5)
        image = ground(CLASSES[number % 3], SIDE, number)
        write(folder / f"tile_{number:04d}.tif", image, transform=place)
    whole = (folder / "tile_0001.tif").read_bytes()
    (folder / "tile_9999.tif").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def work(tiles, model, tmp_path_factory):
    """A folder with a table, labels that a person made of what was suggested, and a classifier."""
    root = tmp_path_factory.mktemp("work")
    table, labels = root / "table", root / "labels.csv"
    assert cli.main(["embed", str(tiles), "--model", model, "--output", str(table)]) == 0
    asked = ["suggest", str(table), "-n", "9", "--output", str(labels)]
    assert cli.main([*asked, "--sheet", str(root / "next.png")]) == 0
    fill(labels)
    answers = ["--output", str(root / "answers.gpkg"), "--save", str(root / "classifier")]
    before = labels.read_bytes()
    assert cli.main(["classify", str(table), "--labels", str(labels), *answers]) == 0
    assert labels.read_bytes() == before
    return root


def test_what_comes_next_of_tiles_on_the_ground_is_a_map(work, capsys):
    assert cli.main(["suggest", str(work / "table"), "-n", "1"]) == 0
    assert capsys.readouterr().err.rstrip().endswith("--output answers.gpkg")
    assert cli.main(["classify", str(work / "table"), "--labels", str(work / "labels.csv")]) == 0
    assert "--output answers.gpkg" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".parquet", ".geojson"])
def test_classes_that_differ_in_capital_letters_alone_have_columns_of_their_own(
    work, tmp_path, suffix
):
    pytest.importorskip("pyogrio")
    name = f"answers{suffix}"
    index = Index.open(work / "table")
    columns = {"label": ["Road", "road"], "p_Road": [0.9, 0.2], "p_road": [0.1, 0.8]}
    write_rows(tmp_path / name, index, [0, 1], columns)
    features, crs = read_features(str(tmp_path / name))
    assert crs.is_geographic
    told = {stated["label"]: stated for _, stated in features}
    second = "p_road_2" if suffix in (".gpkg", ".shp") else "p_road"
    for number, label in enumerate(columns["label"]):
        one, other = columns["p_Road"][number], columns["p_road"][number]
        tile = index.names[number]
        assert told[label] == {"tile": tile, "label": label, "p_Road": one, second: other}


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson"])
def test_a_vector_file_of_a_persons_own_is_not_replaced(work, tmp_path, suffix):
    import shapely

    pyogrio = pytest.importorskip("pyogrio")
    index, file = Index.open(work / "table"), tmp_path / f"drawn{suffix}"
    square = np.array([shapely.to_wkb(shapely.box(0, 0, 1, 1))], object)
    if suffix == ".parquet":
        write_geoparquet(file, square, {"class": ["a"]}, None)
    else:
        about = {"geometry_type": "Polygon", "crs": "EPSG:4326", "fields": ["class"]}
        pyogrio.raw.write(file, geometry=square, field_data=[np.array(["a"], object)], **about)
    before = file.read_bytes()
    with pytest.raises(UserError, match="holds no tiles of ours: name another file"):
        write_rows(file, index, [0], {"label": ["a"]})
    assert file.read_bytes() == before
    ours = tmp_path / f"ours{suffix}"
    for rows in ([0], [0, 1], []):  # written over, also without any tile
        write_rows(ours, index, rows, {"label": ["a"] * len(rows)})
        assert not (rows and is_ours(ours))  # nor does `predict` take answers for its polygons
    assert len(read_features(str(ours))[0]) == 0


def test_parquet_needs_no_more_than_is_there(work, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    monkeypatch.setattr("rs_models.labelling.answers.find_spec", lambda name: None)
    index, file = Index.open(work / "table"), tmp_path / "answers.parquet"
    write_rows(file, index, [0, 1], {"label": ["a", "b"]})
    assert [stated["label"] for _, stated in read_features(str(file))[0]] == ["a", "b"]
    with pytest.raises(UserError, match="needs pyogrio"):
        write_rows(tmp_path / "answers.gpkg", index, [0], {"label": ["a"]})


def fill(path):
    """Writes each tile's class behind its name, as a person does in a spreadsheet."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [f"{row['tile']};{truth(row['tile'])}" for row in rows]
    path.write_bytes("\r\n".join(["\ufefftile;label", *lines, ""]).encode())


def test_the_pile_is_answered_on_a_map(work):
    pyogrio = pytest.importorskip("pyogrio")
    meta, _, geometry, fields = pyogrio.raw.read(work / "answers.gpkg", columns=["tile", "best"])
    told = dict(zip(*fields, strict=True))
    assert len(geometry) == COUNT  # all but the tile that cannot be read
    right = [name == truth(tile) for tile, name in told.items()]
    assert np.mean(right) > 0.9
    assert meta["crs"]
    with Image.open(work / "next.png") as sheet:
        assert sheet.width > sheet.height > 90  # nine tiles in a line


def test_search_answers_in_all_forms(work, tiles, capsys):
    table = str(work / "table")
    like = ["search", table, "--like", "tile_0002.tif", "-k", "6"]
    for name in ("hits.csv", "hits.gpkg", "hits.shp"):
        output = ["--output", str(work / name), "--sheet", str(work / "hits.png")]
        assert cli.main([*like, *output]) == 0
    pyogrio = pytest.importorskip("pyogrio")
    _, _, shapes, columns = pyogrio.raw.read(work / "hits.shp")
    assert len(shapes) == 6 and str(columns[0][0]).startswith("tile_")
    assert {path.suffix for path in work.glob("hits.*")} >= {".dbf", ".shx", ".prj"}
    assert not [path for path in work.iterdir() if "partial" in path.name]
    with open(work / "hits.csv", newline="") as file:
        hits = [row["tile"] for row in csv.DictReader(file)]
    assert len(hits) == 6 and np.mean([truth(hit) == "water" for hit in hits]) > 0.8
    capsys.readouterr()
    # A file that is not in the table finds the tile that it is a copy of.
    copy = work / "copy.tif"
    shutil.copy(tiles / "tile_0007.tif", copy)
    assert cli.main(["search", table, "--like", str(copy), "-k", "1"]) == 0
    score, name = capsys.readouterr().out.split()
    assert name == "tile_0007.tif" and float(score) > 0.999


def test_the_saved_classifier_says_what_the_table_says(work, tiles):
    from transformers import pipeline

    index = Index.open(work / "table")
    answers = classify(index, Labels.read(work / "labels.csv", index))
    say = pipeline("image-classification", model=str(work / "classifier"))
    card = (work / "classifier" / "README.md").read_text()
    assert "Estimated accuracy" in card and "| `city` |" in card.replace("  ", " ")
    labelled = set(Labels.read(work / "labels.csv", index).rows.tolist())
    for row in sorted(set(range(COUNT)) - labelled)[:6]:
        image = Image.fromarray(index.pictures([row])[0])
        told = {answer["label"]: answer["score"] for answer in say(image)}
        expected = dict(zip(answers.names, answers.probabilities[row], strict=True))
        assert told == pytest.approx(expected, abs=0.02)


def test_a_scene_is_mapped_by_it(work, capsys):
    import rasterio

    scene = np.concatenate([ground(name, 96, 50) for name in CLASSES], axis=2)
    write(work / "scene.tif", scene)
    output = work / "map.tif"
    arguments = ["--model", str(work / "classifier"), "--output", str(output)]
    assert cli.main(["predict", str(work / "scene.tif"), *arguments]) == 0
    with rasterio.open(output) as file:
        told = file.read(1)
    third = told.shape[1] // 3
    middles = [told[told.shape[0] // 2, third // 2 + third * number] for number in range(3)]
    assert middles == [0, 1, 2]


def test_a_table_that_grew_keeps_its_labels(work, tiles, model, tmp_path):
    pile, table = tmp_path / "tiles", tmp_path / "table"
    shutil.copytree(tiles, pile)
    shutil.copytree(work / "table", table)
    for number in (40, 41):  # one of them stands before the others by its name
        image = ground(CLASSES[number % 3], SIDE, number)
        place = from_origin(500_000 + 16 * number, 5_000_000, 0.5, 0.5)
        write(pile / f"{'a_' * (number % 2)}tile_{number:04d}.tif", image, transform=place)
    # The copy is the same pile for embed, which knows a folder by its name.
    assert cli.main(["embed", str(pile), "--model", model, "--output", str(table)]) == 0
    old, new = Index.open(work / "table"), Index.open(table)
    assert new.names[:COUNT] == old.names and len(new) == COUNT + 2
    said, now = (Labels.read(work / "labels.csv", index) for index in (old, new))
    assert now.rows.tolist() == said.rows.tolist()
    answers = classify(new, now)
    assert answers.names[answers.probabilities[COUNT:].argmax(1)[0]] == truth(new.names[COUNT])
    for row in (0, COUNT, COUNT + 1):  # the pictures follow the table's order
        stored = np.asarray(new.pictures([row])[0]).transpose(2, 0, 1)
        number = int(new.names[row][-8:-4])
        np.testing.assert_array_equal(stored, ground(CLASSES[number % 3], SIDE, number))


def test_a_table_of_all_stages_is_whitened_and_answers(tiles, model, tmp_path, capsys):
    """Features of all stages are read through their own whitening, a query's as the table's."""
    table, labels = str(tmp_path / "table"), tmp_path / "labels.csv"
    assert cli.main(["embed", str(tiles), "--model", model, "--output", table, "--stages"]) == 0
    index = Index.open(table)
    vectors = np.asarray(index.vectors, np.float32)
    np.testing.assert_allclose(vectors.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(index.embed(tiles / "tile_0007.tif"), vectors[7], atol=1e-2)
    labels.write_text("".join(["tile,label\n", *(f"{n},{truth(n)}\n" for n in index.names[:9])]))
    answers = classify(index, Labels.read(labels, index))
    best = answers.probabilities.argmax(1)
    assert (
        np.mean([answers.names[k] == truth(n) for k, n in zip(best, index.names, strict=True)])
        > 0.9
    )
    arguments = ["classify", table, "--labels", str(labels), "--save", str(tmp_path / "out")]
    capsys.readouterr()
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert "without --stages" in told.err and not told.out and not (tmp_path / "out").exists()
    assert cli.main(arguments[:4]) == 0
    assert "--save" not in capsys.readouterr().out


def test_a_dilated_backbone_is_not_saved_as_another_classifier(tiles, tmp_path, capsys):
    """transformers knows no dilation: the head would meet features that it never saw."""
    from rs_models import backbones

    backbone = backbones.dilate(nano("resnet_nano"), 16)
    backbone.config.rs_models = provenance(backbone, train_size=SIDE)
    backbone.save_pretrained(tmp_path / "dilated")
    table, labels = str(tmp_path / "table"), tmp_path / "labels.csv"
    said = ["embed", str(tiles), "--model", str(tmp_path / "dilated"), "--output", table]
    assert cli.main(said) == 0
    names = Index.open(table).names[:6]
    labels.write_text("".join(["tile,label\n", *(f"{n},{truth(n)}\n" for n in names)]))
    arguments = ["classify", table, "--labels", str(labels), "--save", str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    assert "dilated" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert cli.main(arguments[:4]) == 0  # the answers themselves are right as they are


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda job: job.update(model_revision="sha256:other"), "other weights now"),
        (lambda job: job.update(model="nowhere/to-be-found"), "nowhere/to-be-found"),
    ],
)
def test_a_table_of_another_model_is_told(work, tmp_path, capsys, change, says):
    table = tmp_path / "table"
    shutil.copytree(work / "table", table)
    manifest = json.loads((table / "embeddings.json").read_text())
    change(manifest["job"])
    manifest["model"] = manifest["job"]["model"] if "nowhere" in says else manifest["model"]
    (table / "embeddings.json").write_text(json.dumps(manifest))
    like = work / "another.tif"
    write(like, ground("city", SIDE, 99))
    assert cli.main(["search", str(table), "--like", str(like)]) != 0
    told = capsys.readouterr().err
    assert says in told and "Traceback" not in told


def test_tiles_that_are_not_there_any_more_are_told(work, tiles, tmp_path, capsys):
    table = str(work / "table")
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(tiles / "tile_0003.tif", few)
    arguments = ["--sheet", str(tmp_path / "x.png"), "--images", str(few)]
    assert cli.main(["suggest", table, "-n", "2", *arguments]) == 2
    assert "--images" in capsys.readouterr().err
    # One that is gone is named where its picture is asked for, and hinders no other.
    most = tmp_path / "most"
    shutil.copytree(tiles, most)
    (most / "tile_0003.tif").unlink()
    index = Index.open(table)
    row = list(index.names).index("tile_0003.tif")
    other = row - 1
    np.testing.assert_array_equal(
        index.pictures([other], str(most))[0], index.pictures([other], str(tiles))[0]
    )
    with pytest.raises(UserError, match=r"does not hold tile_0003\.tif any more"):
        index.pictures([other, row], str(most))
    (few / "text.tif").write_text("no image")
    assert cli.main(["search", table, "--like", str(few / "text.tif")]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_six_commands_from_a_folder_to_a_served_classifier(tiles, model, tmp_path):
    """Those of docs/howto/label.md, each by the program itself, up to a Hub that serves it."""
    with HubServer.start() as hub:
        home = tmp_path / "home"
        home.mkdir()

        def run(*arguments):
            return hub.python(CLI, home, *arguments, forbid=()).stdout

        told = run("embed", str(tiles), "--model", model, "--output", "table")
        told = told.splitlines()[-1]
        assert told == "Next: rs-models suggest table -n 20 --output labels.csv --sheet next.png"
        run(*told.split()[2:])
        fill(home / "labels.csv")
        more = ("--output", "more.csv", "--sheet", "next.png")
        run("suggest", "table", "-n", "6", "--labels", "labels.csv", *more)
        fill(home / "more.csv")
        told = run(
            *("classify", "table", "--labels", "labels.csv", "--labels", "more.csv"),
            *("--output", "answers.gpkg", "--save", "classifier"),
        )
        assert "Next: rs-models predict SCENE --model classifier" in told
        scene = np.concatenate([ground(name, 96, 50) for name in CLASSES], axis=2)
        write(home / "scene.tif", scene)
        run("predict", "scene.tif", "--model", "classifier", "--output", "map.tif")
        run("search", "table", "--like", "tile_0002.tif", "--sheet", "alike.png")
        run("push", "classifier", "--repo-id", "rs/my-tiles", "--yes")
        load = (
            "from transformers import AutoModelForImageClassification as A\n"
            "model = A.from_pretrained('rs/my-tiles', use_safetensors=True)\n"
            "print(sorted(model.config.id2label.values()))"
        )
        strangers = tmp_path / "stranger"
        strangers.mkdir()
        served = hub.python(load, strangers, token=None).stdout
        assert served.strip().splitlines()[-1] == str(sorted(CLASSES))
        for name in ("answers.gpkg", "map.tif", "next.png", "alike.png"):
            assert (home / name).stat().st_size > 0


def test_a_head_of_fewer_classes_than_a_fold_knows(work):
    """One label of a class: left out, its class is unknown, and nothing breaks."""
    index = Index.open(work / "table")
    labels = Labels.of({0: "city", 1: "field", 2: "water", 3: "city"})
    for spread in (False, True):
        answers = classify(index, labels, spread=spread)
        assert torch.isfinite(torch.from_numpy(answers.probabilities)).all()
        assert answers.probabilities.shape == (COUNT, 3)
