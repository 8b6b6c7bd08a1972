"""Search, suggestions, answers: on tables whose truth is known."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from rs_models.commands.classify import main as classify_main
from rs_models.commands.search import main as search_main
from rs_models.commands.suggest import main as suggest_main
from rs_models.errors import UserError
from rs_models.labelling import Index, Labels, classify, propagate, search, suggest
from rs_models.labelling.classify import calibration_error, wilson
from rs_models.labelling.head import C_GRID, Head
from rs_models.labelling.labels import append
from rs_models.settings import run_script

CENTRES = np.eye(4, 12)


def pile(count=40, noise=0.15, seed=0):
    """Four groups of `count` tiles, in turn."""
    rng = np.random.default_rng(seed)
    group = np.arange(4 * count) % 4
    return (CENTRES[group] + noise * rng.normal(size=(4 * count, 12))).astype(np.float32), group


def table(folder, vectors, *, dtype=np.float32, parts=2, **columns):
    """A table as `embed` writes it."""
    (folder / "data").mkdir(parents=True)
    columns = {"file": [f"tiles/{row:04d}.tif" for row in range(len(vectors))], **columns}
    shards = {}
    for number, rows in enumerate(np.array_split(np.arange(len(vectors)), parts)):
        flat = pa.array(vectors[rows].astype(dtype).ravel())
        content = {"row": rows, "embedding": pa.FixedSizeListArray.from_arrays(flat, 12)}
        content |= {name: [values[row] for row in rows] for name, values in columns.items()}
        name = f"train-{number:05d}.parquet"
        pq.write_table(pa.table(content), folder / "data" / name)
        shards[name] = len(rows)
    manifest = {"job": {"model": "m", "rows": len(vectors)}, "shards": shards}
    (folder / "embeddings.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_table_is_opened_once_and_searched_exactly(tmp_path, dtype):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(9001, 12)).astype(dtype)
    index = Index.open(table(tmp_path / "t", vectors, dtype=dtype, parts=3))
    kept = vectors.astype(np.float16).astype(np.float64)
    query = rng.normal(size=12)
    cosines = kept @ query / np.linalg.norm(kept, axis=1) / np.linalg.norm(query)
    rows, scores = index.nearest(query, 50)
    assert rows.tolist() == np.argsort(-cosines, kind="stable")[:50].tolist()
    np.testing.assert_allclose(scores, cosines[rows], atol=1e-5)
    assert isinstance(index.vectors, np.memmap)
    state = [path.stat().st_mtime_ns for path in (tmp_path / "t").glob(".vectors-*")]
    again = Index.open(tmp_path / "t")
    assert state == [path.stat().st_mtime_ns for path in (tmp_path / "t").glob(".vectors-*")]
    assert len(again) == 9001 and again.names[17] == "tiles/0017.tif"


def test_a_table_that_grew_is_read_again(tmp_path):
    vectors, _ = pile()
    folder = table(tmp_path / "t", vectors)
    assert len(Index.open(folder)) == 160
    more = pq.read_table(folder / "data" / "train-00000.parquet")
    pq.write_table(more, folder / "data" / "train-00002.parquet")
    manifest = json.loads((folder / "embeddings.json").read_text())
    manifest["shards"]["train-00002.parquet"] = len(more)
    (folder / "embeddings.json").write_text(json.dumps(manifest))
    assert len(Index.open(folder)) == 240
    assert len(list(folder.glob(".vectors-*"))) == 1


def test_several_examples_and_ties():
    index = Index.of(np.array([[1, 0], [0, 1], [1, 0], [-1, 0.0]]), names=list("abcd"))
    rows, scores = index.nearest(np.array([[1, 0], [0, 1]]), 4)
    assert rows.tolist() == [0, 1, 2, 3] and scores.round(3).tolist() == [1, 1, 1, 0]
    rows, _ = index.nearest(index.vectors[0], 9, without=[0])
    assert rows.tolist() == [2, 1, 3]


def test_search_with_tiles_to_differ_from():
    vectors, group = pile()
    vectors[:, 10] = 3 * (np.arange(160) % 2)  # a loud direction that cosines follow
    index = Index.of(vectors)
    like, unlike = ["0", "4", "8", "12"], ["1", "2", "3", "5", "6", "7"]
    rows, scores = search(index, like, unlike, k=30)
    assert (group[rows] == 0).mean() > 0.9 and (np.diff(scores) <= 0).all()
    assert not set(rows.tolist()) & {0, 4, 8, 12, 1, 2, 3, 5, 6, 7}
    with pytest.raises(UserError, match="as like and as unlike"):
        search(index, ["1"], ["1"])
    with pytest.raises(UserError, match="neither a tile of the table nor an image"):
        search(index, ["nowhere.tif"])


def test_suggestions_cover_the_pile_and_are_the_same_by_seed():
    vectors, group = pile()
    vectors, group = vectors[group != 3], group[group != 3]
    rare, _ = pile(2)
    vectors = np.concatenate([vectors, rare[3:4], rare[7:8]])
    index = Index.of(vectors)
    first = suggest(index, 3)
    assert sorted(group[first]) == [0, 1, 2]
    assert first.tolist() == suggest(index, 3).tolist()
    # What has labels is not suggested again, nor the clusters that they stand in.
    labels = Labels.of({int(first[0]): "a"})
    later = suggest(index, 2, labels=labels)
    assert sorted([*group[later], group[first[0]]]) == [0, 1, 2]
    everything = suggest(index, 10_000, labels=labels)
    assert sorted([*everything, int(first[0])]) == list(range(len(index)))
    with pytest.raises(UserError, match="Every tile"):
        suggest(index, 1, labels=Labels.of(dict.fromkeys(range(len(index)), "a")))


def test_with_labels_enough_the_doubtful_are_suggested():
    rng = np.random.default_rng(0)
    position = np.linspace(-1, 1, 401)
    vectors = np.stack([position, *rng.normal(scale=0.01, size=(3, 401))], axis=1)
    index = Index.of(vectors)
    told = {row: "left" for row in range(0, 100, 10)} | {row: "right" for row in range(301, 401, 9)}
    rows = suggest(index, 8, labels=Labels.of(told))
    assert np.abs(position[rows]).max() < 0.35 and len(set(rows.tolist())) == 8


def test_suggested_labels_are_worth_more_than_random_ones():
    """Long-tailed pile: a random draw of few seldom meets the rare classes."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(8), [300, 300, 100, 60, 40, 30, 20, 20])
    vectors = (np.eye(8, 16)[group] + 0.12 * rng.normal(size=(len(group), 16))).astype("float32")
    index = Index.of(vectors)

    def accuracy(rows):
        answers = classify(index, Labels.of({int(row): str(group[row]) for row in rows}))
        names = np.array(answers.names)
        return (names[answers.probabilities.argmax(1)] == group.astype(str)).mean()

    random = [accuracy(np.random.default_rng(s).permutation(len(index))[:8]) for s in range(5)]
    assert accuracy(suggest(index, 8)) > np.mean(random) + 0.03


def test_the_classifier_is_scikit_learns():
    vectors, group = pile(noise=0.6)
    rows = np.arange(40)
    index = Index.of(vectors)
    labels = Labels.of({int(row): "abcd"[group[row]] for row in rows})
    head = Head.fit(index, labels)
    mean, deviation = index.statistics
    x = (vectors - mean) / deviation
    reference = LogisticRegression(C=head.c, max_iter=5000, tol=1e-8).fit(x[rows], group[rows])
    ours = head.probabilities(index)
    sharp = torch.from_numpy(reference.decision_function(x) / head.temperature).softmax(1).numpy()
    np.testing.assert_allclose(ours, sharp, atol=5e-3)
    # One tile left out, by hand.
    without = rows[rows != 7]
    left = LogisticRegression(C=head.c, max_iter=5000, tol=1e-8).fit(x[without], group[without])
    expected = left.decision_function(x[7:8])[0]
    got = head.held_out[7]
    np.testing.assert_allclose(got - got.mean(), expected - expected.mean(), atol=2e-2)


def test_the_estimate_is_of_tiles_that_were_not_learned_from():
    gaps, inside = [], 0
    for seed in range(6):
        vectors, group = pile(noise=0.6, seed=seed)
        labels = Labels.of({row: "abcd"[group[row]] for row in range(40)})
        answers = classify(Index.of(vectors), labels)
        truth = 100 * float((answers.probabilities[40:].argmax(1) == group[40:]).mean())
        low, high = answers.interval
        inside += low <= truth <= high
        gaps.append(answers.accuracy - truth)
        assert low < answers.accuracy < high
    assert inside >= 4 and abs(np.mean(gaps)) < 8


def test_doubt_is_said_and_labels_are_kept():
    vectors, group = pile(noise=0.5)
    index = Index.of(vectors)
    told = {row: "abcd"[group[row]] for row in range(24)} | {30: "a"}  # one of them wrong
    answers = classify(index, Labels.of(told), confidence=0.9)
    unsure = answers.classes < 0
    right = answers.probabilities.argmax(1) == group
    assert 0 < unsure.sum() < 160 and right[~unsure].mean() > right[unsure].mean()
    assert answers.names[answers.classes[30]] == "a" and answers.probabilities[30].max() == 1
    assert answers.counts()["unsure"] == unsure.sum() and sum(answers.counts().values()) == 160
    assert not (classify(index, Labels.of(told), confidence=0).classes < 0).any()
    with pytest.raises(UserError, match="two classes"):
        classify(index, Labels.of({0: "a", 1: "a"}))


def test_probabilities_are_calibrated():
    vectors, group = pile(200, noise=0.7)
    index = Index.of(vectors)
    answers = classify(index, Labels.of({row: "abcd"[group[row]] for row in range(80)}))
    assert calibration_error(answers.probabilities[80:], group[80:]) < 10
    # Always certain and right three times of four: a gap of a quarter.
    sure = np.eye(2)[[0, 0, 0, 0]]
    assert calibration_error(sure, np.array([0, 0, 0, 1])) == pytest.approx(25)


def test_intervals_are_wilsons():
    from scipy.stats import binomtest

    for right, count in ((0, 5), (3, 5), (50, 50), (17, 40)):
        expected = binomtest(right, count).proportion_ci(method="wilson")
        assert wilson(right, count) == pytest.approx((100 * expected.low, 100 * expected.high))


def test_propagation_follows_the_shape_of_the_pile():
    """Two arcs around each other: the nearest label is often of the other one."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 200)
    arcs = np.concatenate(
        [
            np.stack([np.cos(angle), np.sin(angle), np.ones(200)], 1),
            np.stack([1 - np.cos(angle), 0.5 - np.sin(angle), np.ones(200)], 1),
        ]
    ) + 0.02 * rng.normal(size=(400, 3))
    group = np.repeat([0, 1], 200)
    labels = np.full(400, -1)
    labels[[angle.argmin(), 200 + angle.argmin()]] = 0, 1
    spread = propagate(arcs, labels, neighbours=8, alpha=0.99)
    assert (spread.argmax(1) == group).mean() > 0.95
    np.testing.assert_allclose(spread.sum(1), 1, atol=1e-5)


def test_propagation_is_the_closed_form():
    rng = np.random.default_rng(0)
    from rs_models.labelling.propagate import neighbour_graph

    vectors = rng.normal(size=(60, 5))
    labels = np.where(np.arange(60) < 6, np.arange(60) % 3, -1)
    graph = neighbour_graph(vectors, 5).toarray()
    np.testing.assert_allclose(graph, graph.T, atol=1e-6)
    start = np.zeros((60, 3))
    start[np.arange(6), labels[:6]] = 0.5
    exact = np.linalg.solve(np.eye(60) - 0.9 * graph, start).clip(0)
    got = propagate(vectors, labels, neighbours=5, alpha=0.9)
    np.testing.assert_allclose(got, exact / exact.sum(1, keepdims=True), atol=1e-3)


def test_labels_are_read_by_name_end_or_row_and_only_appended(tmp_path):
    vectors, _ = pile()
    index = Index.open(table(tmp_path / "t", vectors))
    path = tmp_path / "labels.csv"
    path.write_text("﻿File;Note;Class\r\ntiles/0003.tif;x;road\r\n0004.tif;;field\r\n\r\n")
    before = path.read_bytes()
    path.write_bytes(before + b"9999.tif;;road\n")
    with pytest.raises(UserError, match="line 5: the table has no tile"):
        Labels.read(path, index)
    path.write_bytes(before)
    append(path, [("tiles/0003.tif", "lake"), ("tiles/0009.tif", "a, b")])
    assert path.read_bytes().startswith(before)
    labels = Labels.read(path, index)
    assert labels.rows.tolist() == [3, 4, 9] and labels.names == ("a, b", "field", "lake")
    assert labels.counts() == {"a, b": 1, "field": 1, "lake": 1}
    new = tmp_path / "new.csv"
    append(new, [("0001.tif", "road")])
    assert new.read_text() == "tile,label\n0001.tif,road\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has the columns"),
        ("tile,label\n", "no labels yet"),
        ("tile,label\n7.tif,road\n", "line 2: the table has no tile '7.tif'"),
        ("tile,label\n0001.tif,\n", "holds no labels yet"),
        ("tile,label\n0001.tif\n", "line 2: it has no tile and class"),
        ("a,b\n1,2\n", "must name a 'tile' and a 'label'"),
        ("tile,label\n0001.tif,a\n0002.tif,a\n", "needs tiles of two classes"),
    ],
)
def test_bad_labels_are_one_sentence(tmp_path, capsys, text, says):
    vectors, _ = pile()
    folder = table(tmp_path / "t", vectors)
    (tmp_path / "labels.csv").write_text(text)
    arguments = [str(folder), "--labels", str(tmp_path / "labels.csv")]
    assert run_script(classify_main, arguments) == 2
    assert says in capsys.readouterr().err
    assert (tmp_path / "labels.csv").read_text() == text


def test_tables_that_cannot_be_used_are_told(tmp_path):
    with pytest.raises(UserError, match="holds no table"):
        Index.open(tmp_path)
    vectors, _ = pile()
    folder = table(tmp_path / "t", vectors)
    (folder / "embeddings.json").write_text(json.dumps({"job": {}}))
    with pytest.raises(UserError, match="not finished"):
        Index.open(folder)
    vectors[5, 3] = np.nan
    with pytest.raises(UserError, match="NaN"):
        Index.open(table(tmp_path / "u", vectors))
    index = Index.of(np.eye(3))
    with pytest.raises(UserError, match="another model"):
        index.nearest(np.ones(5))


def test_the_three_commands_from_a_table_to_answers(tmp_path, capsys):
    vectors, group = pile()
    folder = table(tmp_path / "t", vectors)
    labels, answers = tmp_path / "labels.csv", tmp_path / "answers.csv"
    assert run_script(suggest_main, [str(folder), "-n", "4", "--labels", str(labels)]) == 0
    asked = capsys.readouterr().out.split()
    assert len(asked) == 4 and not labels.exists()
    for _ in range(2):
        append(labels, [(name, "abcd"[group[int(name[6:10])]]) for name in asked])
        assert run_script(suggest_main, [str(folder), "-n", "4", "--labels", str(labels)]) == 0
        asked = capsys.readouterr().out.split()
    written = labels.read_bytes()
    arguments = [str(folder), "--labels", str(labels), "--output", str(answers), "--propagate"]
    assert run_script(classify_main, arguments) == 0
    assert "Estimated accuracy" in capsys.readouterr().out
    with open(answers) as file:
        rows = list(csv.DictReader(file))
    assert [row["tile"] for row in rows[:2]] == ["tiles/0000.tif", "tiles/0001.tif"]
    right = [row["best"] == "abcd"[number] for row, number in zip(rows, group, strict=True)]
    assert len(rows) == 160 and np.mean(right) > 0.95
    assert {row["label"] for row in rows} <= {*"abcd", "unsure"}
    assert sum(float(rows[9][f"p_{name}"]) for name in "abcd") == pytest.approx(1, abs=2e-3)
    assert labels.read_bytes() == written
    assert run_script(classify_main, [*arguments[:3], "--output", str(labels)]) == 2
    assert labels.read_bytes() == written
    hits = tmp_path / "hits.csv"
    found = [str(folder), "--like", "0001.tif", "-k", "5", "--output", str(hits)]
    assert run_script(search_main, found) == 0
    assert hits.read_text().splitlines()[0] == "tile,score"
    for wrong in (["-k", "0"], ["--output", str(tmp_path / "x.doc")], ["--like", "none"]):
        assert run_script(search_main, [*found[:3], *wrong]) == 2


def test_answers_with_a_place_are_vectors(tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    shapely = pytest.importorskip("shapely")
    from pyproj import CRS

    vectors, group = pile()
    boxes = [
        shapely.box(500_000 + 10 * row, 4_000_000, 500_010 + 10 * row, 4_000_010)
        for row in range(160)
    ]
    folder = table(tmp_path / "t", vectors, geometry=[shapely.to_wkb(box) for box in boxes])
    column = {"encoding": "WKB", "crs": CRS("EPSG:32633").to_json_dict()}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    for part in (folder / "data").glob("*.parquet"):
        content = pq.read_table(part)
        pq.write_table(content.replace_schema_metadata({"geo": json.dumps(geo)}), part)
    labels = tmp_path / "labels.csv"
    append(labels, [(f"{row:04d}.tif", "abcd"[group[row]]) for row in range(16)])
    for suffix in (".gpkg", ".geojson", ".fgb"):
        output = tmp_path / f"answers{suffix}"
        assert (
            run_script(
                classify_main, [str(folder), "--labels", str(labels), "--output", str(output)]
            )
            == 0
        )
        meta, _, geometry, fields = pyogrio.raw.read(output, columns=["tile", "best"])
        order = np.argsort(fields[0])
        assert CRS(meta["crs"]) == CRS("EPSG:32633")
        assert shapely.from_wkb(geometry[order[7]]).equals(boxes[7])
        assert fields[1][order[3]] == "abcd"[group[3]]


def test_c_is_chosen_within_the_grid():
    vectors, group = pile(noise=0.9)
    labels = Labels.of({row: "abcd"[group[row]] for row in range(120)})  # tenths, not one by one
    assert Head.fit(Index.of(vectors), labels).c in C_GRID
