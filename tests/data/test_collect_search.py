"""STAC as it is published: a search by box, date and collection, and a band an asset."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest

from rs_models.data import load
from rs_models.data.collect.scenes import find_scenes
from rs_models.data.collect.stac import Search
from rs_models.errors import UserError
from tests.data.test_collect_inputs import run, scene

CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/item-search",
]


class Api(ThreadingHTTPServer):
    """A STAC API over a list of items, a page of one item at a time."""

    def __init__(self, items, root, *, posts):
        super().__init__(("127.0.0.1", 0), Answers)
        self.items, self.root, self.posts = items, root, posts
        self.asked: list[dict] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def landing(self):
        search = {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json"}
        return {
            "type": "Catalog",
            "id": "api",
            "description": "test",
            "stac_version": "1.0.0",
            "conformsTo": CONFORMS,
            "links": [
                {"rel": "self", "href": self.url},
                {"rel": "root", "href": self.url},
                {**search, "method": "GET"},
                *([{**search, "method": "POST"}] if self.posts else []),
            ],
        }

    def page(self, asked):
        """One page of what is asked for, by the rules of STAC API, and the way to the next."""
        self.asked.append(asked)
        found = [item for item in self.items if meets(item, asked)]
        at = int(asked.get("token", 0))
        links = []
        if at + 1 < len(found):
            link = {"rel": "next", "href": f"{self.url}/search"}
            if self.posts:
                link |= {"method": "POST", "merge": True, "body": {"token": at + 1}}
            else:
                link["href"] += f"?{urlencode({**written(asked), 'token': at + 1})}"
            links.append(link)
        return {"type": "FeatureCollection", "features": found[at : at + 1], "links": links}


def written(asked):
    """What is asked for, as the query of an address."""
    return {
        key: ",".join(map(str, value)) if isinstance(value, list) else value
        for key, value in asked.items()
    }


def meets(item, asked):
    west, south, east, north = asked.get("bbox", (-180, -90, 180, 90))
    x0, y0, x1, y1 = item["bbox"]
    first, _, last = asked.get("datetime", "../..").partition("/")
    day = item["properties"]["datetime"]
    return (
        item["collection"] in asked.get("collections", [item["collection"]])
        and x0 <= east
        and x1 >= west
        and y0 <= north
        and y1 >= south
        and (first == ".." or day >= first)
        and (last == ".." or day <= last)
    )


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        parts = urlsplit(self.path)
        if parts.path == "/search":
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            if "bbox" in asked:
                asked["bbox"] = [float(part) for part in asked["bbox"].split(",")]
            if "collections" in asked:
                asked["collections"] = asked["collections"].split(",")
            self.answer(self.server.page(asked))
        elif parts.path in ("", "/"):
            self.answer(self.server.landing())
        else:
            self.send_error(404)

    def do_POST(self):
        if self.path != "/search":
            return self.send_error(404)
        length = int(self.headers["Content-Length"])
        self.answer(self.server.page(json.loads(self.rfile.read(length))))

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def found_item(name, day, collection="sentinel-2-l2a", west=9.0):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": collection,
        "bbox": [west, 48.0, west + 1, 49.0],
        "geometry": None,
        "properties": {"datetime": day, "eo:cloud_cover": 1.0},
        "assets": {"visual": {"href": f"https://93.184.215.14/{name}.tif", "type": "image/tiff"}},
        "links": [],
    }


@pytest.fixture(params=[True, False], ids=["POST", "GET"])
def api(request, tmp_path):
    items = [
        found_item("a", "2024-06-01T10:00:00Z"),
        found_item("b", "2024-06-20T10:00:00Z"),
        found_item("old", "2023-06-01T10:00:00Z"),
        found_item("far", "2024-06-01T10:00:00Z", west=100.0),
        found_item("other", "2024-06-01T10:00:00Z", "landsat-c2-l2"),
    ]
    started = Api(items, tmp_path, posts=request.param)
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield started
    started.shutdown()
    started.server_close()


def names(api, **asked):
    return sorted(scene.name for scene in find_scenes(api.url, search=Search(**asked)))


def test_a_search_by_box_date_and_collection(api):
    box = (9.2, 48.2, 9.4, 48.4)
    assert names(api, bbox=box) == ["a", "b", "old", "other"]
    assert names(api, dates="2024-06-01/2024-06-10") == ["a", "far", "other"]
    both = {"bbox": box, "dates": "2024-05-01/2024-09-30", "collections": ["sentinel-2-l2a"]}
    assert names(api, **both) == ["a", "b"]
    assert any("token" in asked for asked in api.asked)  # more than a page


def test_a_search_that_finds_nothing_or_cannot_be_says_so(api):
    with pytest.raises(UserError, match="has no item of this bbox"):
        names(api, bbox=(0, 0, 1, 1))
    with pytest.raises(UserError, match="'last summer': give a date"):
        names(api, dates="last summer")
    with pytest.raises(UserError, match="cannot be searched"):
        find_scenes(f"{api.url}/search", search=Search(dates="2024"))


# Sentinel-2 of Earth Search and of the Planetary Computer, Landsat Collection 2


def band(name, common=None, *, scale=None, offset=0):
    content = {"eo:bands": [{"name": name, **({"common_name": common} if common else {})}]}
    if scale is not None:
        content["raster:bands"] = [{"scale": scale, "offset": offset}]
    return content


EARTH_SEARCH = {
    "red": band("red", "red"),
    "green": band("green", "green"),
    "blue": band("blue", "blue"),
    "nir": band("nir", "nir"),
    "rededge1": band("rededge1", "rededge"),
    "rededge2": band("rededge2", "rededge"),
    "nir08": band("nir08", "nir08"),
    "swir16": band("swir16", "swir16"),
    "visual": {"eo:bands": [{"name": n, "common_name": n} for n in ("red", "green", "blue")]},
    "scl": {},
}
COMPUTER = {
    "B04": band("B04", "red"),
    "B05": band("B05", "rededge"),
    "B08": band("B08", "nir"),
    "B8A": band("B8A", "rededge"),
    "SCL": {},
}
LANDSAT = {
    "red": band("OLI_B4", "red"),
    "nir08": band("OLI_B5", "nir08"),
    "swir16": band("OLI_B6", "swir16"),
    "qa_pixel": {},
}


def published(assets, **properties):
    """An item with each band as GeoTIFF and, as Earth Search has it, as JPEG 2000."""
    whole = {}
    for key, content in assets.items():
        tiff = {"href": f"{key}.tif", "type": "image/tiff; application=geotiff"}
        whole[key] = {**tiff, **content}
        whole[f"{key}-jp2"] = {"href": f"{key}.jp2", "type": "image/jp2", **content}
    return {"type": "Feature", "id": "i", "properties": properties, "assets": whole, "links": []}


@pytest.mark.parametrize(
    ("assets", "platform", "asked", "keys"),
    [
        (EARTH_SEARCH, "sentinel-2a", "red,nir", ["red", "nir"]),
        (EARTH_SEARCH, "sentinel-2a", "B04,B08,B8A", ["red", "nir", "nir08"]),
        (EARTH_SEARCH, "sentinel-2b", "B05,B06,B11", ["rededge1", "rededge2", "swir16"]),
        (EARTH_SEARCH, "sentinel-2a", "nir_narrow,swir1", ["nir08", "swir16"]),
        (COMPUTER, "Sentinel-2A", "red,rededge1,nir,nir08", ["B04", "B05", "B08", "B8A"]),
        (LANDSAT, "landsat-8", "red,nir,swir1", ["red", "nir08", "swir16"]),
        (LANDSAT, "landsat-9", "B4,B5", ["red", "nir08"]),
    ],
)
def test_bands_are_found_as_they_are_published(tmp_path, assets, platform, asked, keys):
    (tmp_path / "i.json").write_text(json.dumps(published(assets, platform=platform)))
    (found,) = find_scenes(str(tmp_path / "i.json"), asset=asked)
    assert [part.rpartition("/")[2] for part in found.parts] == [f"{key}.tif" for key in keys]


def test_bands_of_two_resolutions_come_to_the_finer_one_and_it_is_said(tmp_path, caplog):
    rng = np.random.default_rng(0)
    red = rng.integers(300, 3000, (1, 128, 128)).astype(np.uint16)
    edge = rng.integers(300, 3000, (1, 64, 64)).astype(np.uint16)
    scene(tmp_path / "red.tif", red, side=10)
    scene(tmp_path / "rededge1.tif", edge, side=20)
    item = published(EARTH_SEARCH, platform="sentinel-2a")
    (tmp_path / "i.json").write_text(json.dumps(item))
    done = run(tmp_path / "i.json", tmp_path / "out", asset="B05,B04", bands=[1, 2])
    assert done.tiles == 4 and "pixels of 20 m are repeated to 10 m" in caplog.text
    row = load(tmp_path / "out", bands=["rededge1", "red"])[0]
    at = np.s_[row["row"] : row["row"] + 32, row["column"] : row["column"] + 32]
    image = np.asarray(row["image"])
    np.testing.assert_array_equal(image[..., 1], red[0][at])
    np.testing.assert_array_equal(image[..., 0], edge[0].repeat(2, 0).repeat(2, 1)[at])


@pytest.mark.parametrize(
    ("stated", "properties"),
    [
        ({"scale": 2.75e-5, "offset": -0.2}, {"platform": "landsat-8"}),
        ({"scale": 1e-4, "offset": -0.1}, {"platform": "sentinel-2a"}),
        (
            {"scale": 1e-4, "offset": -0.1},
            {"platform": "sentinel-2a", "earthsearch:boa_offset_applied": True},
        ),
    ],
)
def test_values_become_reflectance_by_the_catalogue(tmp_path, caplog, stated, properties):
    truth = np.random.default_rng(0).integers(300, 3000, (1, 64, 64))  # reflectance x 10,000
    offset = 0 if "earthsearch:boa_offset_applied" in properties else stated["offset"]
    stored = np.round((truth / 1e4 - offset) / stated["scale"]).astype(np.uint16)
    assets = {}
    for name in ("red", "green", "blue"):
        scene(tmp_path / f"{name}.tif", stored)
        assets[name] = band(name, name, **stated)
    (tmp_path / "i.json").write_text(json.dumps(published(assets, **properties)))
    run(tmp_path / "i.json", tmp_path / "out", asset="red,green,blue")
    row = load(tmp_path / "out", bands="rgb")[0]
    at = np.s_[row["row"] : row["row"] + 32, row["column"] : row["column"] + 32]
    np.testing.assert_allclose(np.asarray(row["image"])[..., 0], truth[0][at], atol=1)
    assert ("by the catalogue" in caplog.text) == bool(offset)


@pytest.mark.parametrize(
    ("href", "refusal"),
    [
        ("{file}", "answers 404"),  # asked for as a path of the server, which has none
        ("file://{file}", "is no address on a server"),
        ("/vsicurl/x", "is no address on a server"),
        ("http://10.0.0.1/", "an address of a private network"),
    ],
)
def test_the_search_of_an_api_is_no_file_of_ours(api, tmp_path, href, refusal):
    """pystac-client opened what is no address as a file."""
    page = {"type": "FeatureCollection", "features": [found_item("mine", "2024-06-01")]}
    (tmp_path / "mine.json").write_text(json.dumps(page))
    plain = api.landing()
    for link in plain["links"]:
        if link["rel"] == "search":
            link["href"] = href.format(file=tmp_path / "mine.json")
    api.landing = lambda: plain
    with pytest.raises(UserError, match=refusal):
        names(api, bbox=(9.2, 48.2, 9.4, 48.4))
    assert api.asked == []


def test_a_search_whose_pages_lead_to_themselves_is_left(api):
    plain = api.page
    api.page = lambda asked: {**plain({**asked, "token": 0}), "links": [_itself(api, asked)]}
    with pytest.raises(UserError, match="leads from a page to the same page"):
        names(api, bbox=(9.2, 48.2, 9.4, 48.4))


def _itself(api, asked):
    link = {"rel": "next", "href": f"{api.url}/search", "type": "application/geo+json"}
    return {**link, "method": "POST", "body": asked} if api.posts else link
