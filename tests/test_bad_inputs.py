"""Every command given what it cannot use: one sentence, exit code 2, and nothing written.

Each kind of argument (a model, data, an output, a scene, labels, a catalogue, a settings file) has
its list of bad values, and every command gets every value of the kinds that it takes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rs_models import cli
from tests.support.world import build_world, tiles_of

LONG = "n" * 5000
RING = [[9, 48], [9.1, 48], [9.1, 48.1], [9, 48.1], [9, 48]]
SQUARE = {"type": "Polygon", "coordinates": [RING]}
# What is no model by its name. Ids that could be are not in the cache, and the tests are offline.
NO_MODEL = [
    *("", " ", ".", "..", "/", "./missing", "../../etc", "/etc/passwd", "/dev/null", "/proc/self"),
    *("a/b/c", "rs/", "/rs", "rs//x", "-rs/x", "rs/x.git", "x y/z", "rs/<b>", "http://[::1]:1/a"),
    *("file:///etc", "hf://rs/x", "hf-hub:", "hf-hub:a/b/c", "timm/", "baseline:", "baseline:nope"),
    *("rs/missing-model", "ümlaut/mödel", LONG, f"rs/{LONG}", "nul\0byte", "{w}/empty", "{w}/file"),
    *("{w}/tiles", "{w}/scenes/s0.tif", "{w}/file/below", "{w}/labels.csv"),
]
NO_DATA = [
    *("", " ", "./missing", "../../etc/passwd", "/dev/null", "a/b/c", "rs/", "-rs/x", "rs/missing"),
    *("http://[::1]:1/a", "file:///etc", LONG, "nul\0byte", "{w}/empty", "{w}/file", "{w}/fake"),
    *("synthetic:num=0", "synthetic:num=-1", "synthetic:num=x", "synthetic:size=0"),
    *("synthetic:num=nan", "synthetic:nope=1", "synthetic:num", "synthetic:num=1e99"),
    *("{w}/labels.csv", "{w}/land.geojson", "{w}/model", "{w}/broken.parquet", "{w}/nulled"),
]
NO_OUTPUT = [
    *("{w}/file", "{w}/file/below", "/proc/x", "/dev/null/x", f"{{o}}/{'n' * 300}", "nul\0byte"),
]
NO_SCENE = [
    *("", "./missing.tif", "/etc/passwd", "/dev/null", LONG, "nul\0byte", "{w}/empty", "{w}/file"),
    *(
        "{w}/text.tif",
        "{w}/empty.tif",
        "{w}/cut.tif",
        "{w}/vrt.tif",
        "{w}/land.geojson",
        "{w}/model",
    ),
    *("/vsicurl/http://[::1]:1/a.tif", "/vsizip/{w}/rsscn7.zip", "{w}/huge.tif"),
]
# Vector files that are no labels.
VECTORS: dict[str, object] = {
    "empty": "",
    "no JSON": "{",
    "binary": b"\xff\xfe\x00\x01",
    "null": None,
    "number": 3,
    "list": [],
    "text": "text",
    "no features": {"type": "FeatureCollection"},
    "features null": {"type": "FeatureCollection", "features": None},
    "features text": {"type": "FeatureCollection", "features": "abc"},
    "features empty": {"type": "FeatureCollection", "features": []},
    "feature null": {"type": "FeatureCollection", "features": [None]},
    "feature number": {"type": "FeatureCollection", "features": [3]},
    "deep": "[" * 100_000,
    **{
        f"geometry {name}": {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "properties": {"kind": "a"}, "geometry": geometry}],
        }
        for name, geometry in {
            "null": None,
            "text": "x",
            "list": [],
            "empty": {},
            "type": {"type": "Nope", "coordinates": RING},
            "coordinates null": {"type": "Polygon", "coordinates": None},
            "coordinates text": {"type": "Polygon", "coordinates": "abc"},
            "coordinates flat": {"type": "Polygon", "coordinates": [1, 2, 3]},
            "nan": {"type": "Polygon", "coordinates": [[[float("nan")] * 2] * 4]},
            "infinite": {"type": "Polygon", "coordinates": [[[float("inf")] * 2] * 4]},
            "far": {"type": "Polygon", "coordinates": [[[9e9, 9e9], [9e9, 1], [1, 1], [9e9, 9e9]]]},
            "two points": {"type": "Polygon", "coordinates": [[[9, 48], [9, 49]]]},
            "ring empty": {"type": "Polygon", "coordinates": [[]]},
            "parts empty": {"type": "MultiPolygon", "coordinates": [[], [[]]]},
            "collection number": {"type": "GeometryCollection", "geometries": 5},
            "points number": {"type": "MultiPoint", "coordinates": 5},
        }.items()
    },
    "properties null": {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": None, "geometry": SQUARE}],
    },
    "properties text": {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": "x", "geometry": SQUARE}],
    },
    "another property": {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {"other": 1}, "geometry": SQUARE}],
    },
    **{
        f"crs {crs}": {
            "type": "FeatureCollection",
            "crs": crs,
            "features": [{"type": "Feature", "properties": {"kind": "a"}, "geometry": SQUARE}],
        }
        for crs in (
            *("EPSG:nope", 7, [], {"properties": {"name": "x"}}, {"properties": None}),
            # What GDAL would open and ask for: a file, and an address.
            {"properties": {"name": "file:///etc/passwd"}},
            {"properties": {"name": "http://127.0.0.1:1/crs"}},
        )
    },
}


def _item(assets: object, **more: object) -> dict[str, object]:
    return {"type": "Feature", "id": "i", "properties": {}, "assets": assets, **more}


CATALOGUES: dict[str, object] = {
    **{name: VECTORS[name] for name in ("empty", "no JSON", "binary", "null", "number", "list")},
    **{name: VECTORS[name] for name in ("text", "features null", "feature null", "deep")},
    "links null": {"type": "Catalog", "links": None},
    "links text": {"type": "Catalog", "links": "abc"},
    "link null": {"type": "Catalog", "links": [None]},
    "link without href": {"type": "Catalog", "links": [{"rel": "item"}]},
    "link number": {"type": "Catalog", "links": [{"rel": "item", "href": 3}]},
    "link missing": {"type": "Catalog", "links": [{"rel": "item", "href": "./missing.json"}]},
    "link to itself": {"type": "Catalog", "links": [{"rel": "child", "href": "./stac.json"}]},
    "link ftp": {"type": "Catalog", "links": [{"rel": "item", "href": "ftp://x/a.json"}]},
    **{
        f"assets {assets!r}": _item(assets)
        for assets in (None, [], "x", 3, {}, {"a": None}, {"a": {}}, {"a": {"href": None}})
    },
    "href number": _item({"a": {"href": 3}}),
    "href missing": _item({"a": {"href": "missing.tif"}}),
    "href text file": _item({"a": {"href": "text.tif"}}),
    "href nul": _item({"a": {"href": "a\0b.tif"}}),
    "cloud text": _item({"a": {"href": "a.tif"}}, properties={"eo:cloud_cover": "many"}),
    "properties null": _item({"a": {"href": "a.tif"}}, properties=None),
    "properties list": _item({"a": {"href": "a.tif"}}, properties=[]),
    "id list": _item({"a": {"href": "a.tif"}}, id=[]),
}
# Settings files that are none.
YAMLS: dict[str, object] = {
    "list": "[1, 2]",
    "text": "text",
    "number": "3",
    "tab": "a:\n\tb: 1",
    "cut": "a: [1, 2",
    "two documents": "a: 1\n---\nb: 2",
    "tag": "output_dir: !!python/object/apply:os.system ['true']",
    "binary": b"\xff\xfe\x00\x01",
    "latin": "output_dir: \xfc".encode("latin-1"),
    "deep": "[" * 5000,
    "unknown": "nope: 1",
    "key a list": "? [a, b]\n: 1",
    "key a number": "1: 2",
    "key null": "null: 2",
    "twice": "output: a\noutput: b",
    "circle": "a: &a [*a]",
    "alias": "seed: *b",
    "bomb": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "\n".join(
        f"{k}: &{k} [{','.join([f'*{p}'] * 9)}]" for p, k in zip("abcdefg", "bcdefgh", strict=True)
    ),
}
# config.json of models: what stands in it in place of an object, or over one that is right.
CONFIGS: dict[str, object] = {
    **{f"{value!r}": value for value in (None, [], 3, "text", True, {})},
    "no JSON": "{",
    "nan": "NaN",
    "binary": b"\xff\xfe\x00\x01",
    "deep": "[" * 100_000,
}
CHANGES: dict[str, dict[str, object]] = {
    "type null": {"model_type": None},
    "type list": {"model_type": ["resnet"]},
    "type unknown": {"model_type": "nope"},
    "type number": {"model_type": 3},
    "auto_map": {"model_type": "own", "auto_map": {"AutoConfig": "x.C", "AutoModel": "x.M"}},
    "sizes text": {"hidden_sizes": "abc"},
    "sizes empty": {"hidden_sizes": []},
    "sizes null": {"hidden_sizes": None},
    "sizes negative": {"hidden_sizes": [-1, -1, -1, -1]},
    "sizes huge": {"hidden_sizes": [10**9] * 4},
    "depths million": {"depths": [10**6] * 4},
    "depths text": {"depths": "x"},
    "depths few": {"depths": [1]},
    "channels text": {"num_channels": "x"},
    "channels 0": {"num_channels": 0},
    "channels huge": {"num_channels": 10**12},
    "channels negative": {"num_channels": -1},
    "act": {"hidden_act": "nope"},
    "embedding 0": {"embedding_size": 0},
    "layer": {"layer_type": "nope"},
}
RECORDS: dict[str, object] = {
    **{f"record {value!r}": value for value in ([], 3, "text", True)},
    "record bands": {"bands": 3},
    "record bands unknown": {"bands": ["x", "y", "z"]},
    "record mean text": {"image_mean": "x"},
    "record mean nan": {"image_mean": [float("nan")] * 3},
    "record std 0": {"image_std": [0, 0, 0]},
    "record size -1": {"train_size": -1},
    "record size huge": {"train_size": 10**9},
    "record size text": {"train_size": "x"},
    "record range": {"value_range": [255, 0]},
    "record range null": {"value_range": None},
    "record stride": {"output_stride": 7},
}
NO_LABELS: dict[str, object] = {
    "empty": "",
    "binary": b"\xff\xfe\x00\x01",
    "no header": "a,b\nc,d\n",
    "no rows": "tile,label\n",
    "one column": "tile\nx\n",
    "unknown tile": "tile,label\nnope.png,water\n",
    "no label": "tile,label\n{tile},\n",
    "one class": "tile,label\n{tile},water\n",
    "contradiction": "tile,label\n{tile},water\n{tile},field\n",
}
# What may stand in place of a table's vectors: `embedding` of two rows.
VECTORS_OF_A_TABLE: dict[str, object] = {
    "several lengths": [[1.0], [1.0, 2.0]],
    "no length": [[], []],
    "text": ["a", "b"],
    "lists of text": [["a"], ["b"]],
    "a number": [1.0, 2.0],
    "nested": [[[1.0]], [[2.0]]],
    "null": [None, None],
    "null inside": [[1.0, None], [1.0, None]],
    "NaN": [[float("nan")], [1.0]],
    "no rows": [],
}
MANIFESTS: dict[str, object] = {
    "empty": "",
    "no JSON": "{",
    "list": [],
    "null": None,
    "number": 3,
    "no job": {},
    "job text": {"job": "x"},
    "binary": b"\xff\xfe\x00\x01",
}


def put(path: Path, content: object) -> Path:
    """Writes text, bytes, or JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Good inputs, and the bad ones that are files."""
    root = build_world(tmp_path_factory.mktemp("world"))
    (root / "empty").mkdir()
    put(root / "file", "text")
    put(root / "text.tif", "text")
    put(root / "empty.tif", "")
    put(root / "fake" / "a.png", "text")
    put(root / "broken.parquet", b"PAR1 and no more")
    whole = (root / "scenes" / "s0.tif").read_bytes()
    put(root / "cut.tif", whole[: len(whole) // 3])
    put(root / "vrt.tif", '<VRTDataset rasterXSize="9" rasterYSize="9"></VRTDataset>')
    return root


TILES = "{w}/tiles"
MODEL = "{w}/model"
EMBED = ["embed", TILES, "--model", MODEL, "--output", "{o}/x"]
PREDICT = ["predict", "{w}/scenes/s0.tif", "--model", MODEL, "--output", "{o}/x.tif"]
EVALUATE = [
    *("evaluate", f"model={MODEL}", f"data.name={TILES}", "protocols=[knn5]", "output_dir={o}/x"),
]
FINETUNE = [
    *("finetune", "task=segmentation", f"model={MODEL}", f"data.name={TILES}", "labels=4"),
    *("max_steps=1", "seeds=[0]", "output_dir={o}/x"),
]
PRETRAIN = [
    *("pretrain", "--method.name", "tov", "--backbone", "resnet_nano", "--data.name", TILES),
    *("--max_steps", "1", "--batch_size", "4", "--image_size", "32", "--output_dir", "{o}/x"),
]
COLLECT = ["collect", "scenes={w}/scenes", "n=4", "tile=32", "retries=0", "output={o}/x"]
WINDOWS = [
    *("windows", "{w}/scenes/s0.tif", "{w}/land.geojson", "--classes", "kind", "--size", "16"),
    *("--block", "1", "--output", "{o}/x"),
]
RESAMPLE = ["resample", f"data={TILES}", f"model={MODEL}", "n=2", "clusters=1", "output={o}/x"]
ONNX = ["onnx", MODEL, "--output", "{o}/x.onnx"]
EXPORT = ["export", MODEL, "{o}/x", "--half"]
CLASSIFY = [
    *("classify", "{w}/table", "--labels", "{w}/labels.csv", "--output", "{o}/a.csv"),
    *("--save", "{o}/c"),
]
SUGGEST = ["suggest", "{w}/table", "-n", "2", "--output", "{o}/n.csv"]
SEARCH = ["search", "{w}/table", "--like", "{tile}", "-k", "2", "--output", "{o}/h.csv"]
CONVERT = ["convert-dataset", "rsscn7", "{w}/rsscn7.zip", "--output", "{o}/x"]
CARD = ["card", MODEL, "--output", "{o}/x"]
HEAD = [*PREDICT, "--head", "{w}/land.geojson", "--classes", "kind"]
PUSH = ["push", MODEL, "--dry-run"]
INFO = ["info", MODEL]
CHECK = ["check", TILES]
ALL = {
    words[0]: words
    for words in (
        *(EMBED, PREDICT, EVALUATE, FINETUNE, PRETRAIN, COLLECT, WINDOWS, RESAMPLE, ONNX, EXPORT),
        *(CLASSIFY, SUGGEST, SEARCH, CONVERT, CARD, PUSH, INFO, CHECK),
    )
}


def changed(words: list[str], good: str, bad: str) -> list[str] | None:
    """A command with another value of an argument; None where it has no such argument."""
    new = [
        bad if w == good else f"{w.partition('=')[0]}={bad}" if w.partition("=")[2] == good else w
        for w in words
    ]
    return new if new != words else None


def cases() -> list[tuple[str, list[str]]]:
    """(what it is, words) of everything whose files are made by `world` alone."""
    found = []
    kinds = {
        MODEL: NO_MODEL,
        TILES: NO_DATA,
        "{o}/x": NO_OUTPUT,
        "{w}/scenes/s0.tif": NO_SCENE,
        "{w}/scenes": NO_SCENE,
        "{w}/table": [
            "",
            "./missing",
            "/dev/null",
            "{w}/empty",
            "{w}/file",
            "{w}/tiles",
            "nul\0",
            LONG,
        ],
        "{w}/rsscn7.zip": [
            "",
            "./missing",
            "/dev/null",
            "{w}/empty",
            "{w}/file",
            "{w}/labels.csv",
            "nul\0",
        ],
        "{w}/labels.csv": ["", "./missing", "/dev/null", "{w}/empty", "{w}/model", "nul\0", LONG],
    }
    for name, words in ALL.items():
        for good, values in kinds.items():
            for bad in values:
                if name == "check" and bad.endswith(".geojson"):
                    continue  # vectors are what it looks at, too
                if new := changed(words, good, bad):
                    found.append((f"{name}: {good} -> {bad[:40]!r}", new))
    for name, suffix in (
        ("predict", "{o}/x.tif"),
        ("onnx", "{o}/x.onnx"),
        ("classify", "{o}/a.csv"),
        ("search", "{o}/h.csv"),
        ("suggest", "{o}/n.csv"),
    ):
        end = Path(suffix).suffix
        for bad in (
            "{w}/file/x" + end,
            "/proc/x" + end,
            "{o}/" + "n" * 300 + end,
            "nul\0" + end,
            "{o}/x.nope",
        ):
            found.append((f"{name}: output {bad[:40]!r}", changed(ALL[name], suffix, bad)))
    return found


def refused(words: list[str], world: Path, out: Path, capsys, *, codes=(2,)) -> str | None:
    """What is wrong with how a command refuses what it is given; None if nothing is."""
    places = {"w": str(world), "o": str(out), "tile": tiles_of(world)[0]}
    filled = [word for word in words]
    for key, value in places.items():
        filled = [word.replace(f"{{{key}}}", value) for word in filled]
    before = sorted(out.rglob("*"))
    try:
        code = cli.main(filled)
    except SystemExit as end:
        return f"SystemExit {end.code}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    printed, told = capsys.readouterr()
    said = told.strip().splitlines()
    if code not in codes:
        return f"exit {code}: {said[-1:]}"
    last = said[-1] if said else ""
    if code == 0:
        return None
    if words[0] == "check" and not last:  # what is wrong with data is what it was asked for
        last = "error: ." if "problem:" in printed else ""
    if not (last.startswith("error: ") and last.endswith((".", "?"))):
        return f"no sentence: {last[:200]!r}"
    if sorted(out.rglob("*")) != before:
        return f"left {[str(p.relative_to(out)) for p in out.rglob('*')]}"
    return None


# What is told at once, and yet leaves what the job had begun: the same job may go on.
BEGUN = {"embed: {w}/tiles -> '{w}/fake'", "collect: {w}/scenes -> '{w}/cut.tif'"}


@pytest.fixture
def check(world, tmp_path, monkeypatch, capsys):
    """Runs a table of (what it is, words) and tells what was not refused as it should be."""
    out, here = tmp_path / "out", tmp_path / "here"
    out.mkdir(), here.mkdir()
    monkeypatch.chdir(here)

    def run(table, least, codes=(2,)):
        faults = []
        for name, words in table:
            allowed = (1, 2) if "http://" in name else codes
            wrong = refused(words, world, out, capsys, codes=allowed)
            if wrong and not (name in BEGUN and wrong.startswith("left")):
                faults.append(f"{name}: {wrong}")
            for path in out.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert not faults, f"{len(faults)} of {len(table)}:\n" + "\n".join(faults)
        assert len(table) >= least and not list(here.iterdir())

    return run


def test_paths_and_names(check):
    check(cases(), 700)


def test_labels_that_are_no_vectors(check, world):
    table = []
    for name, content in VECTORS.items():
        put(world / "vectors" / f"{name}.geojson", content)
        bad = f"{{w}}/vectors/{name}.geojson"
        table.append((f"windows labels {name}", changed(WINDOWS, "{w}/land.geojson", bad)))
        table.append((f"windows area {name}", [*WINDOWS, "--area", bad]))
        table.append((f"collect guide {name}", [*COLLECT, f"guide={bad}", "field=kind"]))
        table.append((f"predict head {name}", changed(HEAD, "{w}/land.geojson", bad)))
    check(table, 120)


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".shp", ".parquet"])
def test_vectors_that_are_something_else_read_nothing(check, world, suffix, capsys):
    """GDAL takes a file for what its content says: a description that leads to another file."""
    put(world / "secret.csv", 'kind,WKT\nroot,"POINT (9 48)"\nx,"POINT (9 49)"\n')
    layer = f"<SrcDataSource>{world}/secret.csv</SrcDataSource>"
    for name, content in {
        "vrt": f'<OGRVRTDataSource><OGRVRTLayer name="secret">{layer}</OGRVRTLayer>'
        "</OGRVRTDataSource>",
        "empty": "",
        "text": "text",
    }.items():
        bad = str(put(world / "vectors" / f"{name}{suffix}", content))
        check(
            [
                (f"windows {name}", changed(WINDOWS, "{w}/land.geojson", bad)),
                (f"area {name}", [*WINDOWS, "--area", bad]),
                (f"guide {name}", [*COLLECT, f"guide={bad}", "field=kind"]),
                (f"head {name}", changed(HEAD, "{w}/land.geojson", bad)),
            ],
            4,
        )
        assert "root" not in capsys.readouterr().out


def test_what_lies_where_an_output_goes_stays(world, tmp_path, capsys):
    """Whatever is no older output of the same kind is refused, and is as it was afterwards."""
    here = tmp_path / "here"
    shutil.copytree(world, here)
    for path in (here / "table").glob(".vectors-*"):
        path.unlink()
    put(here / "thesis" / "chapter.txt", "text")
    shutil.copy(here / "land.geojson", here / "map.geojson")
    put(here / "empty.gpkg", b"SQLite format 3\0")
    picture = next((here / "rsscn7").rglob("*.jpg"))
    head = [*PREDICT[:-1], str(here / "map.tif"), "--head", "{w}/map.geojson", "--classes", "kind"]
    table = [
        *(("save", [*CLASSIFY[:-1], f"{{w}}/{name}"]) for name in ("table", "model", "thesis")),
        *(("save", [*CLASSIFY[:-1], place]) for place in ("{w}/rsscn7", "{w}", "{w}/table/x")),
        ("save", [*CLASSIFY[:-1], "{w}/labels.csv"]),
        *(
            ("sheet", [*words, "--sheet", place])
            for words in (SUGGEST, SEARCH)
            for place in (str(picture), "{w}/labels.csv", "{w}/table/embeddings.json", "{w}")
        ),
        ("answers", [*CLASSIFY[:-3], "{w}/labels.csv", *CLASSIFY[-2:]]),
        ("polygons", [*head, "--polygons"]),
        ("polygons", [*head, "--polygons", "{w}/map.geojson"]),
        ("polygons", [*head, "--polygons", "{w}/empty.gpkg"]),
        ("export", [*EXPORT[:2], "{w}/thesis", "--half"]),
        (
            "convert",
            ["convert-upstream", str(here / "model" / "model.safetensors"), *("--output",)],
        ),
    ]
    table[-1][1].append("{w}/thesis")
    contents = {p: p.read_bytes() for p in sorted(here.rglob("*")) if p.is_file()}
    for name, words in table:
        wrong = refused(words, here, tmp_path, capsys)
        changed_files = [str(p) for p, was in contents.items() if p.read_bytes() != was]
        assert not wrong and not changed_files, (name, words, wrong, changed_files)
        for path in (here / "table").glob(".vectors-*"):
            path.unlink()


def test_catalogues(check, world):
    put(world / "stac" / "text.tif", "text")
    table = []
    for name, content in CATALOGUES.items():
        put(world / "stac" / f"{name}.json", content)
        bad = f"{{w}}/stac/{name}.json"
        table.append((name, changed(COLLECT, "{w}/scenes", bad)))
    check(table, 30)


def test_settings_files(check, world):
    table = []
    for name, content in YAMLS.items():
        put(world / "yaml" / f"{name}.yaml", content)
        for command in ("pretrain", "finetune", "evaluate", "collect", "resample", "study"):
            table.append((f"{command} {name}", [command, "--config", f"{{w}}/yaml/{name}.yaml"]))
    check(table, 100)


def test_models(check, world):
    good = json.loads((world / "model" / "config.json").read_text())
    content = {name: value for name, value in CONFIGS.items()}
    content |= {name: {**good, **change} for name, change in CHANGES.items()}
    for name, value in RECORDS.items():
        record = {**good["rs_models"], **value} if isinstance(value, dict) else value
        content[name] = {**good, "rs_models": record}
    table = []
    told = []  # what `info` says of it, which judges nothing
    for name, config in content.items():
        folder = world / "models" / name.replace("/", "-")
        shutil.copytree(world / "model", folder)
        put(folder / "config.json", config)
        told.append((f"info {name}", changed(INFO, MODEL, str(folder))))
        for command in ("embed", "predict", "evaluate", "finetune", "onnx", "export"):
            table.append((f"{command} {name}", changed(ALL[command], MODEL, str(folder))))
        for command in ("resample", "card", "push"):
            table.append((f"{command} {name}", changed(ALL[command], MODEL, str(folder))))
    check(table, 300)
    check(told, 40, codes=(0, 2))


def test_tables_and_labels(check, world):
    table = []
    tile = tiles_of(world)[0]
    for name, content in NO_LABELS.items():
        if isinstance(content, str):
            content = content.replace("{tile}", tile)
        put(world / "labels" / f"{name}.csv", content)
        bad = f"{{w}}/labels/{name}.csv"
        table.append((f"classify labels {name}", changed(CLASSIFY, "{w}/labels.csv", bad)))
        if name not in ("no rows", "one class", "contradiction"):
            table.append((f"suggest labels {name}", [*SUGGEST, "--labels", bad]))
    for name, content in MANIFESTS.items():
        folder = world / "tables" / name
        shutil.copytree(world / "table", folder)
        put(folder / "embeddings.json", content)
        for command in ("classify", "suggest", "search"):
            words = changed(ALL[command], "{w}/table", str(folder))
            table.append((f"{command} manifest {name}", words))
        table.append((f"embed manifest {name}", changed(EMBED, "{o}/x", str(folder))))
        for command, record, words in (
            ("collect", "job.json", COLLECT),
            ("pretrain", "job.json", PRETRAIN),
        ):
            path = put(world / "begun" / command / name / record, content).parent
            table.append((f"{command} {record} {name}", changed(words, "{o}/x", str(path))))
    check(table, 60)


def test_tables_that_are_damaged(check, world):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = []
    whole = next((world / "table" / "data").glob("*.parquet")).read_bytes()
    for name, content in {
        "empty": b"",
        "no Parquet": b"text",
        "cut": whole[:-99],
        "head": whole[:99],
    }.items():
        put(world / "damaged" / name / "data" / "train-0.parquet", content)
    for name, vectors in VECTORS_OF_A_TABLE.items():
        (world / "damaged" / name / "data").mkdir(parents=True)
        columns = {"file": ["a", "b"][: len(vectors)], "embedding": vectors}
        pq.write_table(pa.table(columns), world / "damaged" / name / "data" / "train-0.parquet")
    for folder in sorted((world / "damaged").iterdir()):
        for words in (CLASSIFY, SUGGEST, SEARCH):
            table.append((f"{words[0]} {folder.name}", changed(words, "{w}/table", str(folder))))
    check(table, 40)
