"""A pile and the desk of one user: what is dropped, labelled, undone and taken home."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from rs_models.demos import models, pile, pile_files, pile_sheet
from rs_models.demos.pile_desk import SHEET, Desk, finished_example
from rs_models.errors import UserError
from rs_models.labelling import Index
from tests.support.models import nano, provenance

CLASSES = ("field", "road", "roof")


def nothing(share, text):
    """Progress that nobody looks at."""


@pytest.fixture
def heap():
    """Sixty tiles of three kinds."""
    rng = np.random.default_rng(0)
    kinds = np.arange(60) % 3
    vectors = np.eye(3, dtype=np.float32)[kinds] + 0.1 * rng.normal(size=(60, 3))
    jpeg = pile.squared(np.zeros((16, 16, 3), np.uint8), 16)
    return pile.Pile(
        index=Index.of(vectors, [f"tile-{n}.png" for n in range(60)]),
        pictures=(jpeg,) * 60,
        small=(jpeg,) * 60,
        model="none",
        title="sixty <tiles>",
        truth=tuple(CLASSES[kind] for kind in kinds),
    )


def label(desk, rows, moment=1):
    for number, row in enumerate(rows):
        desk.mark([(row, desk.pile.truth[row], moment + number)], CLASSES)


def test_twelve_labels_answer_the_whole_pile(heap):
    desk = Desk(heap)
    assert len(desk.sheet) == SHEET and desk.answers() is None
    assert "No answers yet" in pile_sheet.panel(desk) and pile_sheet.wall(desk) == ""
    first = list(desk.sheet)
    label(desk, first)
    answers = desk.answers()
    assert answers.labelled == SHEET and answers.accuracy > 90
    assert desk.checked() == (48, 48)
    said = pile_sheet.panel(desk)
    assert f"{answers.accuracy:.0f} %" in said and "48 unlabelled" in said
    assert pile_sheet.wall(desk).count("data-row") > 40
    desk.lay_suggested()
    assert not set(desk.sheet) & set(first)


def test_each_label_is_taken_back_alone_and_on_the_sheet_where_it_was_given(heap):
    desk = Desk(heap)
    first = list(desk.sheet)
    label(desk, first[:3])
    desk.lay_like(0)
    assert desk.sheet[0] == 0 and desk.sheet != first
    assert {heap.truth[row] for row in desk.sheet} == {heap.truth[0]}
    desk.undo()
    assert desk.sheet == first and list(desk.labels) == first[:2]
    desk.rename(heap.truth[first[0]], "other")
    assert desk.labels[first[0]] == "other"
    desk.undo()
    assert desk.labels[first[0]] == heap.truth[first[0]]
    desk.start_over()
    assert not desk.labels
    assert desk.undo() and len(desk.labels) == 2
    assert desk.undo() and desk.undo() and not desk.undo() and not desk.labels


def test_what_is_heard_late_or_twice_changes_nothing(heap):
    desk = Desk(heap)
    assert desk.mark([(3, "road", 10), (4, "roof", 12)], CLASSES)
    assert not desk.mark([(3, "road", 10)], CLASSES)
    assert not desk.mark([(3, "field", 9)], CLASSES)
    assert desk.labels == {3: "road", 4: "roof"}
    desk.undo()
    assert not desk.mark([(4, "roof", 12)], CLASSES) and desk.labels == {3: "road"}
    assert desk.mark([(3, None, 20)], CLASSES) and desk.labels == {}


@pytest.mark.parametrize(
    "marks, classes, said",
    [
        ([(60, "road", 1)], CLASSES, "not, or no longer, in your pile"),
        ([("0", "road", 1)], CLASSES, "not, or no longer, in your pile"),
        ([(True, "road", 1)], CLASSES, "not, or no longer, in your pile"),
        ([(0, "sea", 1)], CLASSES, "not among yours"),
        ([(0, "road", 1)] * 61, CLASSES, "more labels than your pile has tiles"),
        ([(0, "road", 1)], [str(n) for n in range(10)], "9 at most"),
        ([], ["road", "road "], "each class once"),
        ([], [""], "1 to 40 characters"),
        ([], ["x" * 41], "1 to 40 characters"),
        ([], [None], "1 to 40 characters"),
    ],
)
def test_marks_that_are_none_are_refused_and_change_nothing(heap, marks, classes, said):
    desk = Desk(heap)
    desk.mark([(1, "road", 1)], ["road"])
    with pytest.raises(UserError, match=said):
        desk.mark(marks, classes)
    assert desk.labels == {1: "road"} and desk.classes == ["road"]


def test_two_users_of_one_pile_share_no_label(heap):
    one, two = Desk(heap), Desk(heap)
    label(one, one.sheet[:4])
    assert not two.labels and two.classes == [] and two.answers() is None


def test_what_a_user_writes_is_text_on_the_page(heap):
    desk = Desk(heap)
    bad = "<img src=x onerror=alert(1)>"
    desk.mark([(0, bad, 1), (1, "b'\"", 2)], [bad, "b'\""])
    named = Index.of(heap.index.vectors, ["<b>'x"] * 60)
    desk.pile = replace(heap, index=named)
    for shown in (pile_sheet.panel(desk), pile_sheet.wall(desk)):
        assert "<img src=x" not in shown and "<b>'x" not in shown and "&lt;" in shown


def test_labels_and_answers_go_home_as_the_commands_take_them(heap):
    from rs_models.labelling import Labels

    desk = Desk(heap)
    with pytest.raises(UserError, match="no labels yet"):
        pile_files.labels_file(heap.index, desk.labels)
    with pytest.raises(UserError, match="two classes"):
        desk.sure_answers()
    label(desk, range(12))
    again = Labels.read(pile_files.labels_file(heap.index, desk.labels), heap.index)
    assert {int(row): again.names[k] for row, k in zip(again.rows, again.classes, strict=True)} == (
        desk.labels
    )
    (answers,) = pile_files.answers_files(heap.index, desk.sure_answers())
    rows = list(csv.DictReader(open(answers, encoding="utf-8")))
    assert [row["label"] for row in rows] == list(heap.truth)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A small model as the page's only one."""
    made = nano("resnet_mini", image_size=32)
    made.config.rs_models = provenance(made, train_size=32)
    made.save_pretrained(tmp_path / "model")
    monkeypatch.setenv(models.VARIABLE, str(tmp_path / "model"))
    return str(tmp_path / "model")


def photo(kind="PNG", side=40, seed=0):
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def archive(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in entries.items():
            bundle.writestr(name, content)
    return str(path)


def test_images_and_zips_become_one_pile_and_bad_files_are_told(tmp_path, model):
    (tmp_path / "a.png").write_bytes(photo())
    entries = {f"b/{n}.jpg": photo("JPEG", seed=n) for n in range(4)}
    entries |= {"../../out.png": photo(seed=9), "c/0.jpg": photo("JPEG", seed=8)}
    entries |= {"__MACOSX/b/0.jpg": b"x", "notes.txt": b"x", "broken.png": b"not pixels"}
    file = archive(tmp_path / "tiles.zip", entries)
    made = pile.uploaded([str(tmp_path / "a.png"), file], model, nothing)
    assert len(made) == 6 == len(set(made.index.names)) and made.scene is None
    assert made.notes == ("broken.png is not an image: use a JPEG, PNG, WebP or (Geo)TIFF file.",)
    assert not (tmp_path.parent / "out.png").exists()
    labels = {row: "ab"[row % 2] for row in range(6)}
    home = pile_files.classifier_file(made.index, Desk(made, "ab", labels).sure_answers())
    with zipfile.ZipFile(home) as bundle:
        assert {"classifier/config.json", "classifier/model.safetensors"} <= set(bundle.namelist())


def test_archives_have_limits(tmp_path, model, monkeypatch):
    zeros = archive(tmp_path / "bomb.zip", {"a.png": bytes(3_000_000)})
    monkeypatch.setattr(pile_files, "MAX_UNPACKED", 1_000_000)
    many = archive(tmp_path / "many.zip", {f"{n}.png": b"" for n in range(641)})
    empty = archive(tmp_path / "empty.zip", {"a.txt": b"text"})
    (tmp_path / "no.zip").write_bytes(b"no zip at all")
    for file, said in (
        (zeros, "too large unpacked"),
        (many, "holds 641 images; 640 are the most"),
        (empty, "holds no images"),
        (str(tmp_path / "no.zip"), "cannot be unpacked"),
    ):
        with pytest.raises(UserError, match=said) as error:
            pile.uploaded([file], model, nothing)
        assert str(tmp_path) not in str(error.value)
    with pytest.raises(UserError, match="Drop images"):
        pile.uploaded([], model, nothing)
    (tmp_path / "a.png").write_bytes(photo())
    with pytest.raises(UserError, match="four images or more, and 1 could be read"):
        pile.uploaded([str(tmp_path / "a.png")], model, nothing)


def test_archives_share_a_limit_and_their_names_may_be_anything(tmp_path, monkeypatch):
    bomb = archive(tmp_path / "bomb.zip", {"a.png": bytes(700_000)})
    monkeypatch.setattr(pile_files, "MAX_UNPACKED", 1_000_000)
    with pytest.raises(UserError, match="too large unpacked"), pile_files.opened([bomb, bomb]):
        pass
    monkeypatch.setattr(pile_files, "MAX_ENTRIES", 20)
    full = archive(tmp_path / "full.zip", {f"{n}.txt": b"" for n in range(21)})
    with pytest.raises(UserError, match="more than 20 entries"), pile_files.opened([full]):
        pass
    names = ["😀" * 100 + ".png", "a\nb\x1b.png", "nul\x7f.png"]
    odd = archive(tmp_path / "odd.zip", {name: photo() for name in names})
    with pile_files.opened([odd]) as found:
        assert len({path.parent for path in found}) == 1 and len(found) == 3
        assert all(len(path.name.encode()) < 256 and path.name.isprintable() for path in found)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_with_any_broken_byte_are_a_sentence(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as bundle:
        bundle.writestr("ä.png", photo())
    whole, told = path.read_bytes(), 0
    places = [*range(60), *range(60, len(whole), 37), *range(len(whole) - 90, len(whole))]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            with pile_files.opened([str(path)]):
                pass
        except UserError as error:
            assert str(tmp_path) not in str(error)
            told += 1
    assert told > 60


def test_a_geotiff_becomes_tiles_with_a_map_and_places(tmp_path, model):
    pixels = np.random.default_rng(0).integers(0, 60, (3, 96, 160), np.uint8)
    pixels[:, :, 80:] += 150
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=96,
        width=160,
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=from_origin(500_000, 5_400_000, 0.5, 0.5),
    ) as out:
        out.write(pixels)
    made = pile.uploaded([str(path)], model, nothing)
    assert len(made) == 15 and made.index.names[0] == "row-01-column-01"
    bright = {row: "bright" if row % 5 > 2 else "dark" for row in (0, 3, 4, 6, 8, 9, 11, 13)}
    desk = Desk(made, ("bright", "dark"), bright)
    before, after = pile_sheet.scene_map(desk)
    assert before.shape == after.shape == (96, 160, 3)
    tile = after[2:30, 130:158].astype(int) - before[2:30, 130:158]
    assert np.abs(tile).mean() > 10  # the map is coloured where the answer is sure
    files = pile_files.answers_files(made.index, desk.sure_answers())
    assert [file.rpartition(".")[2] for file in files] == ["csv", "gpkg"]
    from pyogrio import read_info

    facts = read_info(files[1])
    assert facts["features"] == 15 and facts["geometry_type"] == "Polygon"
    west, south, east, north = facts["total_bounds"]
    assert 8.9 < west < east < 9.1 and 48.7 < south < north < 48.8


def test_an_example_of_known_classes_begins_labelled_by_them(heap):
    begun = finished_example(replace(heap, truth=tuple("water" if t == "road" else "green"
                                                       for t in heap.truth)))  # fmt: skip
    assert set(begun.labels.values()) == {"water", "green"} and len(begun.labels) == 2 * SHEET
    assert not set(begun.labels) & set(begun.sheet)
    assert finished_example(heap).labels == {}
