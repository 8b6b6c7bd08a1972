"""Collecting tiles: from a folder and from a real HTTP server that answers range requests."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform

from rs_models.cli import main as cli
from rs_models.data import load
from rs_models.data.collect import CollectConfig, collect
from rs_models.data.collect.run import report
from rs_models.data.collect.tiles import Reader, look_alike
from rs_models.errors import ServiceError, UserError

SIDE, TILE = 512, 32
UTM = "EPSG:32631"
COLOURS = {1: (40, 110, 40), 2: (160, 140, 80), 3: (60, 70, 150)}  # forest, field, water
NAMES = {1: "forest", 2: "field", 3: "water"}


def _land_cover(rng):
    """Class numbers on a grid of tiles, 70, 25 and 5 percent."""
    cells = rng.choice([1, 2, 3], size=(SIDE // TILE, SIDE // TILE), p=[0.7, 0.25, 0.05])
    cells[0, :3] = 3  # at least a few of the rare one
    return cells


def _scene(path, left, cells, rng):
    truth = cells.repeat(TILE, 0).repeat(TILE, 1)
    image = np.stack([np.choose(truth - 1, [COLOURS[k][c] for k in (1, 2, 3)]) for c in range(3)])
    image = np.clip(image + rng.normal(0, 12, image.shape), 1, 254).astype(np.uint8)
    image[:, 448:, :64] = 0  # four tiles of nodata
    image[:, 448:, 64:128] = 240  # four under cloud
    image[:, 384:416, 128:160] = image[:, 352:384, 128:160]  # one tile twice
    cells[12, 4] = cells[11, 4]
    with rasterio.open(
        path,
        "w",
        driver="COG",
        height=SIDE,
        width=SIDE,
        count=3,
        dtype="uint8",
        crs=UTM,
        transform=from_origin(left, 5_000_000, 1, 1),
        blocksize=128,
        compress="deflate",
    ) as file:
        file.write(image)
        file.update_tags(TIFFTAG_DATETIME="2024:06:01 10:00:00")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two scenes side by side and a map of both."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "scenes").mkdir()
    rng = np.random.default_rng(0)
    maps = []
    for number in range(2):
        cells = _land_cover(rng)
        _scene(folder / "scenes" / f"s{number}.tif", 500_000 + number * SIDE, cells, rng)
        maps.append(cells)
    cover = np.concatenate(maps, 1).astype(np.uint8)
    with rasterio.open(
        folder / "cover.tif",
        "w",
        driver="GTiff",
        height=cover.shape[0],
        width=cover.shape[1],
        count=1,
        dtype="uint8",
        nodata=0,
        crs=UTM,
        transform=from_origin(500_000, 5_000_000, TILE, TILE),
    ) as file:
        file.write(cover, 1)
    return folder


def settings(world, output, **changes):
    values = {
        "scenes": str(world / "scenes"),
        "guide": str(world / "cover.tif"),
        "classes": {1: "forest", 2: "field", 3: "water"},
        "output": str(output),
        "tile": TILE,
        "n": 30,
        "shard": 10,
        "duplicates": True,
    }
    return CollectConfig(**{**values, **changes})


def rows_of(output):
    return load(str(output), "train")


def test_balanced_positions_show_what_the_guide_says(world, tmp_path):
    done = collect(settings(world, tmp_path / "out"), progress=False)
    assert done.classes == {"field": 10, "forest": 10, "water": 10} and done.tiles == 30
    rows = rows_of(tmp_path / "out")
    names = rows.features["label"].names
    for row in rows:
        mean = np.asarray(row["image"]).mean((0, 1))
        nearest = min(COLOURS, key=lambda k: np.abs(mean - COLOURS[k]).sum())
        assert NAMES[nearest] == names[row["label"]]
        assert row["purity"] == 1.0 and row["date"] == "2024-06-01T10:00:00"
        left = 500_000 + int(row["scene"][1]) * SIDE
        x, y = left + row["column"] + TILE / 2, 5_000_000 - row["row"] - TILE / 2
        (lon,), (lat,) = transform(UTM, "EPSG:4326", [x], [y])
        assert (row["longitude"], row["latitude"]) == (pytest.approx(lon), pytest.approx(lat))


def test_random_positions_come_as_they_are(world, tmp_path):
    done = collect(settings(world, tmp_path / "out", sampling="random", n=200), progress=False)
    share = {name: count / done.tiles for name, count in done.classes.items()}
    assert share["forest"] > 0.55 and share["water"] < 0.15


def test_a_finished_collection_is_not_added_to(world, tmp_path):
    asked = settings(world, tmp_path / "out", sampling="random", n=8)
    collect(asked, progress=False)
    before = rows_of(tmp_path / "out")
    assert collect(asked, progress=False).tiles == 8
    assert [row["image"] for row in rows_of(tmp_path / "out")] == [row["image"] for row in before]


def test_nodata_clouds_and_duplicates_are_left_out(world, tmp_path):
    done = collect(
        settings(world, tmp_path / "out", n=10_000, sampling="random", duplicates=False),
        progress=False,
    )
    assert done.rejected == {"nodata": 8, "cloud": 8, "duplicate": 2}
    assert done.tiles == 2 * (SIDE // TILE) ** 2 - 18
    assert "fewer than asked for" in report(done, 10_000)
    assert re.search(r"a million tiles like these: \d+\.\d hours", report(done, 10_000))
    for row in rows_of(tmp_path / "out"):
        pixels = np.asarray(row["image"])
        assert pixels.max() > 0 and pixels.min() < 230


def test_a_stopped_collection_goes_on_to_the_same_rows(world, tmp_path, monkeypatch):
    whole = settings(world, tmp_path / "whole", duplicates=False)
    collect(whole, progress=False)
    read, calls = Reader.read, []

    def breaks(self, scene, at):
        calls.append(at)
        if len(calls) > 18:
            raise KeyboardInterrupt
        return read(self, scene, at)

    broken = settings(world, tmp_path / "broken", duplicates=False)
    monkeypatch.setattr(Reader, "read", breaks)
    with pytest.raises(KeyboardInterrupt):
        collect(broken, progress=False)
    kept = sorted((tmp_path / "broken" / "data").glob("*.parquet"))
    assert len(kept) == 1
    before = kept[0].read_bytes()
    monkeypatch.setattr(Reader, "read", read)
    done = collect(broken, progress=False)
    assert done.tiles == 30 and kept[0].read_bytes() == before
    for path in sorted((tmp_path / "whole" / "data").glob("*.parquet")):
        assert pq.read_table(path) == pq.read_table(tmp_path / "broken" / "data" / path.name)
    again = collect(broken, progress=False)
    assert again.read == done.read  # nothing is read twice
    with pytest.raises(UserError, match=r"another job \(seed differ\)"):
        collect(settings(world, tmp_path / "broken", duplicates=False, seed=1), progress=False)


def test_polygons_guide_too(world, tmp_path):
    corners = [
        (500_000, 5_000_000),
        (500_256, 5_000_000),
        (500_256, 4_999_744),
        (500_000, 4_999_744),
    ]
    xs, ys = transform(UTM, "EPSG:4326", *zip(*[*corners, corners[0]], strict=True))
    ring = [list(point) for point in zip(xs, ys, strict=True)]
    park = {
        "type": "Feature",
        "properties": {"class": "park"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (tmp_path / "g.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [park]})
    )
    done = collect(
        settings(
            world,
            tmp_path / "out",
            guide=str(tmp_path / "g.geojson"),
            classes=None,
            n=500,
            min_purity=0.9,
        ),
        progress=False,
    )
    assert done.classes == {"park": 64}
    rows = rows_of(tmp_path / "out")
    assert max(rows["row"]) < 256 and max(rows["column"]) < 256 and set(rows["scene"]) == {"s0"}


# --- over HTTP -----------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    """Files with range requests; counts, and fails when it is told to."""

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.sent, self.ranges, self.failures = root, 0, 0, 0
        self.stac: dict = {}
        self.paths: list[str] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server: _Server = self.server
        path = self.path.partition("?")[0]
        server.paths.append(self.path)
        if server.failures > 0 and path.endswith(".tif"):
            server.failures -= 1
            self._answer(503, b"busy")
            return
        if self.path in server.stac:
            self._answer(200, json.dumps(server.stac[self.path]).encode())
            return
        file = server.root / path.lstrip("/")
        if not file.is_file():
            self._answer(404, b"")
            return
        content, size = file.read_bytes(), file.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, content)
            return
        first, last = int(asked[1]), min(int(asked[2] or size - 1), size - 1)
        server.ranges += 1
        self._answer(
            206, content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{size}"}
        )

    def _answer(self, code, body, headers=None):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.server.sent += len(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(world, tmp_path):
    """A STAC API of two pages, a catalogue, and the scenes."""
    root = tmp_path / "www"
    root.mkdir()
    # GDAL remembers what it has read of an address: each test has its own.
    names = [f"{tmp_path.name}_{number}.tif" for number in range(2)]
    for number, name in enumerate(names):
        (root / name).write_bytes((world / "scenes" / f"s{number}.tif").read_bytes())
    started = _Server(root)
    threading.Thread(target=started.serve_forever, daemon=True).start()

    def item(number, cloud):
        return {
            "type": "Feature",
            "id": f"s{number}",
            "properties": {"datetime": f"2024-06-0{number + 1}T10:00:00Z", "eo:cloud_cover": cloud},
            "assets": {
                "visual": {"href": f"./{names[number]}", "type": "image/tiff; application=geotiff"},
                "thumbnail": {"href": "./t.png", "type": "image/png"},
            },
            "links": [],
        }

    started.stac = {
        "/search": {
            "type": "FeatureCollection",
            "features": [item(0, 3.0)],
            "links": [{"rel": "next", "href": f"{started.url}/search?page=2"}],
        },
        "/search?page=2": {
            "type": "FeatureCollection",
            "features": [item(1, 8.0), {**item(1, 95.0), "id": "cloudy"}],
            "links": [],
        },
        "/catalog.json": {
            "type": "Catalog",
            "links": [
                {"rel": "item", "href": "./item0.json"},
                {"rel": "self", "href": "./catalog.json"},
            ],
        },
        "/item0.json": item(0, 3.0),
        "/empty.json": {"hello": "world"},
    }
    yield started
    started.shutdown()
    started.server_close()


def test_a_stac_search_is_read_by_ranges_and_gives_what_files_give(world, server, tmp_path):
    far = collect(
        settings(world, tmp_path / "far", scenes=f"{server.url}/search", n=12), progress=False
    )
    assert far.classes == {"field": 4, "forest": 4, "water": 4}
    rows = rows_of(tmp_path / "far")
    assert set(rows["scene"]) <= {"s0", "s1"}  # the cloudy item is left out
    assert set(rows["date"]) <= {"2024-06-01T10:00:00Z", "2024-06-02T10:00:00Z"}
    assert server.ranges > 0
    collect(settings(world, tmp_path / "near", n=12), progress=False)
    near = rows_of(tmp_path / "near")
    assert [np.asarray(a).tobytes() for a in rows["image"]] == [
        np.asarray(b).tobytes() for b in near["image"]
    ]


def test_a_few_tiles_of_a_large_scene_are_a_small_part_of_its_bytes(server, tmp_path):
    rng = np.random.default_rng(1)
    path = server.root / f"{tmp_path.name}_large.tif"
    with rasterio.open(
        path,
        "w",
        driver="COG",
        height=4096,
        width=4096,
        count=3,
        dtype="uint8",
        crs=UTM,
        transform=from_origin(5e5, 5e6, 1, 1),
        compress="deflate",
        blocksize=256,
    ) as file:
        file.write(rng.integers(1, 255, (3, 4096, 4096), dtype=np.uint8))
    item = {"type": "Feature", "id": "large", "properties": {}, "links": []}
    item["assets"] = {"image": {"href": path.name, "type": "image/tiff"}}
    server.stac["/large.json"] = item
    done = collect(
        CollectConfig(
            scenes=f"{server.url}/large.json", output=str(tmp_path / "out"), tile=256, n=4
        ),
        progress=False,
    )
    assert done.classes == {"unguided": 4}
    assert server.sent < path.stat().st_size / 3


def test_a_catalogue_is_followed_and_a_busy_server_asked_again(world, server, tmp_path):
    server.failures = 2
    done = collect(
        settings(world, tmp_path / "out", scenes=f"{server.url}/catalog.json", n=6), progress=False
    )
    assert done.tiles == 6 and server.failures == 0
    assert set(rows_of(tmp_path / "out")["scene"]) == {"s0"}


def test_the_rate_is_kept(world, tmp_path):
    started = time.perf_counter()
    collect(settings(world, tmp_path / "out", n=12, rate=20), progress=False)
    assert time.perf_counter() - started >= 11 / 20


def test_a_server_that_is_gone_and_what_is_no_catalogue(world, server, tmp_path):
    with pytest.raises(UserError, match="no STAC catalogue"):
        collect(settings(world, tmp_path / "a", scenes=f"{server.url}/empty.json"))
    with pytest.raises(UserError, match="answers 404"):
        collect(settings(world, tmp_path / "a", scenes=f"{server.url}/nothing.json"))
    with pytest.raises(ServiceError, match="does not answer"):
        collect(settings(world, tmp_path / "a", scenes="http://127.0.0.1:9/x.json", retries=0))
    server.stac["/dead.json"] = server.stac["/item0.json"] | {
        "assets": {"visual": {"href": "gone.tif", "type": "image/tiff"}}
    }
    with pytest.raises(UserError, match=r"gone\.tif cannot be read: its server answers 404"):
        collect(settings(world, tmp_path / "a", scenes=f"{server.url}/dead.json"))


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scenes": ""}, "scenes is not set"),
        ({"scenes": "/nowhere"}, "Cannot read /nowhere"),
        ({"guide": "/nowhere.tif"}, "guide /nowhere.tif cannot be read"),
        ({"guide": "/nowhere.geojson"}, "/nowhere.geojson cannot be read"),
        ({"classes": {9: "ice"}}, "no place for a tile"),
        ({"classes": {"ice": "ice"}}, "are numbers"),
        ({"tile": 4096}, "no place for a tile"),
        ({"n": 0}, "n=0"),
        ({"tile": 4}, "tile=4"),
        ({"seed": -1}, "seed=-1"),
        ({"retries": -1}, "retries=-1"),
        ({"max_cloud": 2.0}, "max_cloud=2.0"),
        ({"guide": None, "min_purity": 0.5}, "min_purity needs a guide"),
    ],
)
def test_bad_input_is_one_sentence(world, tmp_path, changes, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        collect(settings(world, tmp_path / "out", **changes), progress=False)
    assert not (tmp_path / "out").exists()


def test_the_command(world, tmp_path, capsys):
    arguments = [f"scenes={world / 'scenes'}", f"output={tmp_path / 'out'}", "n=5", "tile=32"]
    assert cli(["collect", *arguments]) == 0
    assert "5 tiles of" in capsys.readouterr().out
    assert cli(["collect", "scenes=/nowhere"]) == 2


def test_what_looks_the_same():
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert look_alike(tile) == look_alike(tile.copy())
    assert look_alike(tile) != look_alike(tile[::-1])
