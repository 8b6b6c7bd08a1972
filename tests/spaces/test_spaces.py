"""Each Space as its users meet it: by a client, by thirty at once, and in a browser."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
import yaml

from rs_models.papers import PAPERS
from tests.conftest import ROOT
from tests.spaces.conftest import SPACES, needs_browser

EXAMPLE = ROOT / "spaces" / "learning-signals" / "examples" / "residential.jpg"
MOSAIC = ROOT / "spaces" / "segment-a-scene" / "examples" / "mosaic_utm32.tif"


def test_the_folders_can_be_uploaded_as_they_are():
    assert SPACES == [
        "compare",
        "label-a-pile",
        "learning-signals",
        "scene-explorer",
        "segment-a-scene",
    ]
    for name in SPACES:
        folder = ROOT / "spaces" / name
        header = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
        assert header["sdk"] == "gradio" and header["app_file"] == "app.py"
        assert len(header["short_description"]) <= 120
        extras = "demo,geo" if name in ("label-a-pile", "segment-a-scene") else "demo"  # GeoPackage
        assert (folder / "requirements.txt").read_text() == f"rs-models[{extras}]>=0.1.0\n"
        assert name == "label-a-pile" or list((folder / "examples").iterdir())


@pytest.mark.parametrize(
    "argv, said",
    [(["nothing"], "is no demo"), (["compare", "--port", "0"], "--port=0 should be 1 or more")],
)
def test_the_command_refuses_in_a_sentence(argv, said, capsys):
    from rs_models.cli import main

    assert main(["demo", *argv]) == 2
    assert said in capsys.readouterr().err


def client(address):
    from gradio_client import Client

    return Client(address, verbose=False)


def on_the_mosaic(path):
    """A file with one area on the drawn example, in degrees."""
    import rasterio
    from rasterio.warp import transform

    with rasterio.open(MOSAIC) as raster:
        corners = ((40, 40), (120, 40), (120, 110), (40, 40))
        x, y = zip(*(raster.transform @ corner for corner in corners), strict=True)
        ring = [list(place) for place in zip(*transform(raster.crs, 4326, x, y), strict=True)]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    one = {"type": "Feature", "properties": {"class": "pond"}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [one]}))
    return path


@pytest.mark.slow
def test_every_named_endpoint_answers(started, tmp_path):
    from gradio_client import handle_file

    example = handle_file(str(EXAMPLE))
    explorer = client(started["scene-explorer"])
    label, near, view, said = explorer.predict(example, api_name="/explore")
    assert len(label["confidences"]) == 5 and near.count("<figure") == 8
    assert len(view) == 2 and all(Path(one).is_file() for one in view)
    assert label["label"] in said
    for name in ("roofs", "fields"):
        listed = explorer.predict(name, [example, example], api_name="/add_class")
    assert "roofs (2), fields (2)" in listed[0]
    label, *_ = explorer.predict(example, api_name="/explore", classes="My classes")
    assert {one["label"] for one in label["confidences"]} == {"roofs", "fields"}
    assert "No class" in explorer.predict(api_name="/start_over")[0]

    segment = client(started["segment-a-scene"])
    sheet, both, legend, said, *_ = segment.predict(handle_file(str(MOSAIC)), api_name="/segment")
    assert len(sheet["value"]["marks"]) > 50 and all(Path(one).is_file() for one in both)
    assert "Hectares" in legend and "768 x 768" in said
    import rasterio

    with rasterio.open(segment.predict(api_name="/geotiff")) as raster:
        assert raster.crs.to_epsg() == 32632 and raster.shape == (768, 768)
    shapes = json.loads(Path(segment.predict(api_name="/geojson")).read_text())["features"]
    area = sum(shape["properties"]["area_m2"] for shape in shapes)
    assert area == pytest.approx((768 * 0.5) ** 2, rel=0.01)

    labels = on_the_mosaic(tmp_path / "labels.geojson")
    sheet, _, _, said, *_ = segment.predict(handle_file(str(labels)), api_name="/polygons")
    assert sheet["marks"][-1]["name"] == "pond" and "and 1 area of" in said

    signals = client(started["learning-signals"])
    for method in (paper.label for paper in PAPERS.values()):
        assert method in signals.predict(method, api_name="/about")[0]
        gallery, said = signals.predict(
            image=example, method=method, scene=None, api_name="/learning_signal"
        )
        assert gallery.count("<figure") >= 2 and said and "<figcaption></" not in gallery

    compare = client(started["compare"])
    said, plot, table = compare.predict(api_name="/compare")
    assert "<svg" in plot and "currentColor" in plot and "#000000" not in plot
    assert "resnet_mini" in table and "vit_mini_patch8" in table and "labels a class" in said
    assert compare.predict(example, api_name="/features").count("<figure") == 3
    board = compare.predict("aid96", api_name="/leaderboard")
    assert "rsisc-resnet-mini-aid" in board and board.count("<button") > 5


@pytest.mark.slow
def test_bad_uploads_end_in_a_sentence(started, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "notes.png").write_text("not pixels")
    (tmp_path / "scene.tif").write_bytes(MOSAIC.read_bytes()[:5000])
    for space, call in (
        ("scene-explorer", {"api_name": "/explore"}),
        ("compare", {"api_name": "/features"}),
    ):
        with pytest.raises(AppError, match=r"notes.png is not an image: use a JPEG"):
            client(started[space]).predict(handle_file(str(tmp_path / "notes.png")), **call)
    with pytest.raises(AppError, match=r"^scene.tif is") as error:
        client(started["segment-a-scene"]).predict(
            handle_file(str(tmp_path / "scene.tif")), api_name="/segment"
        )
    assert "/" not in str(error.value)


@pytest.mark.slow
def test_thirty_users_at_once(started):
    import psutil
    from gradio_client import handle_file

    example, failed = handle_file(str(EXAMPLE)), []
    client(started["scene-explorer"]).predict(example, api_name="/explore")
    before = psutil.Process().memory_info().rss

    def use():
        try:
            label, *_ = client(started["scene-explorer"]).predict(example, api_name="/explore")
            assert label["confidences"]
        except Exception as error:
            failed.append(error)

    users = [threading.Thread(target=use) for _ in range(30)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not failed, failed[0]
    assert psutil.Process().memory_info().rss - before < 1.5 * 2**30


@pytest.mark.slow
def test_no_file_is_left_behind(started):
    from gradio_client import handle_file

    from rs_models.demos import keeping

    segment = client(started["segment-a-scene"])
    segment.predict(handle_file(str(MOSAIC)), api_name="/segment")
    segment.predict(api_name="/geojson")
    left = {path for path in keeping.workspace().rglob("*.*") if path.is_file()}
    assert any(path.suffix == ".geojson" for path in left)
    keeping.cleaner().sweep(time.time() + 601)
    # The pages' own examples stay, all of them.
    assert {path.name for path in left if path.exists()} == _example_names()


def _example_names():
    examples = {path.name for path in ROOT.glob("spaces/*/examples/*")}
    return {name for name in examples if not name.endswith((".json", ".md"))}


def ask(address, name, *data):
    """What a page answers to values that no client of gradio would send: (event, data)."""
    import httpx

    asked = httpx.post(f"{address}gradio_api/call/{name}", json={"data": list(data)}, timeout=60)
    number = asked.json()["event_id"]
    answer = httpx.get(f"{address}gradio_api/call/{name}/{number}", timeout=60).text
    kind, _, rest = answer.partition("event: ")[2].rpartition("event: ")[2].partition("\n")
    return kind, rest


def payloads(path):
    """A path as gradio's client would send an upload's, and as it would not."""
    meta = {"_type": "gradio.FileData"}
    yield {"path": path}
    yield {"path": path, "meta": meta}
    yield {"path": path, "meta": meta, "url": "data:image/png;base64,AAAA"}
    yield {"path": path, "orig_name": "a.png", "mime_type": "image/png", "is_stream": True}
    yield {"path": path, "meta": meta, "is_stream": True}


@pytest.mark.slow
@pytest.mark.parametrize("there, missing", [("/etc/passwd", "/etc/nobody"), (EXAMPLE, "/a/b.jpg")])
def test_no_path_in_a_payload_reads_or_tells_of_a_file(started, there, missing):
    settings = {
        "scene-explorer": ("explore", [_models()[0], "Built-in classes"]),
        "segment-a-scene": ("segment", [_models()[0]]),
        "learning-signals": ("learning_signal", ["GLCNet", None, _models()[0], 0, "row", 0.5]),
        "compare": ("features", [_models()]),
    }
    for space, (name, rest) in settings.items():
        said = []
        for path in (there, missing):
            answers = [ask(started[space], name, one, *rest) for one in payloads(str(path))]
            assert {kind for kind, _ in answers} == {"error"}, (space, answers)
            assert all("among the uploads" in text for _, text in answers), (space, answers)
            said.append([text.replace(Path(path).name, "NAME") for _, text in answers])
        assert said[0] == said[1]
    several = [{"path": str(there)}, {"path": str(missing), "meta": {"_type": "gradio.FileData"}}]
    kind, text = ask(started["scene-explorer"], "add_class", "roofs", several, _models()[0])
    assert kind == "error" and "among the uploads" in text


@pytest.mark.slow
@pytest.mark.parametrize("forged", [3, "text", [[]], 2**70, True])
def test_values_that_a_page_does_not_send_are_one_sentence(started, forged):
    settings = {
        "scene-explorer": ("explore", [_models()[0], "Built-in classes"]),
        "segment-a-scene": ("segment", [_models()[0]]),
    }
    for space, (name, rest) in settings.items():
        kind, text = ask(started[space], name, forged, *rest)
        assert kind == "error" and "This page sends no such values: load it again." in text


@pytest.mark.slow
def test_the_examples_of_a_page_may_be_chosen(started):
    import httpx

    config = httpx.get(f"{started['compare']}config").json()
    samples = [
        sample
        for component in config["components"]
        if component["type"] == "dataset"
        for sample in component["props"]["samples"]
    ]
    assert samples
    kind, _ = ask(started["compare"], "features", samples[0][0], _models()[:1])
    assert kind == "complete"


@pytest.mark.slow
def test_models_are_of_the_list_or_the_hub_and_no_folder_of_the_server(started, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for there, missing in (("/etc", "/nothing"), ("../tmp", "../no"), ("docs/howto", "docs/no")):
        said = []
        for name in (there, missing):
            kind, text = ask(started["compare"], "compare", [name])
            assert kind == "error"
            said.append(text.replace(name, "NAME"))
        assert said[0] == said[1], said
        assert "Hub" in said[0] or "HF_HUB_OFFLINE" in said[0]


def _models():
    return os.environ["RS_MODELS_DEMO_MODELS"].split(",")


@pytest.mark.slow
def test_a_tiff_that_is_something_else_reads_nothing(started, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "x.tif").write_text(
        "<VRTDataset rasterXSize='20' rasterYSize='20'>"
        + "".join(
            f"<VRTRasterBand dataType='Byte' band='{band}' subClass='VRTRawRasterBand'>"
            "<SourceFilename relativetoVRT='0'>/etc/passwd</SourceFilename><ImageOffset>0"
            "</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>20</LineOffset></VRTRasterBand>"
            for band in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    for space, name in (
        ("scene-explorer", "/explore"),
        ("segment-a-scene", "/segment"),
        ("learning-signals", "/learning_signal"),
        ("compare", "/features"),
    ):
        file = handle_file(str(tmp_path / "x.tif"))
        more = {"method": "GLCNet", "scene": None} if space == "learning-signals" else {}
        key = "file" if space == "segment-a-scene" else "image"
        with pytest.raises(AppError, match="is not a TIFF that can be read"):
            client(started[space]).predict(**{key: file}, **more, api_name=name)


@pytest.mark.slow
def test_thirty_users_for_twenty_seconds_leave_no_file(started, monkeypatch):
    """Each uploads a picture of its own; the shortest time kept, with the cleaner at work."""
    import io

    import httpx
    import numpy as np
    from PIL import Image

    from rs_models.demos import keeping

    monkeypatch.setattr(keeping.cleaner(), "keep", 1)
    address, done, end = started["compare"], [], time.monotonic() + 20

    def use(user):
        rng = np.random.default_rng(user)
        while time.monotonic() < end:
            picture = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(picture, "PNG")
            files = {"files": ("picture.png", picture.getvalue())}
            sent = httpx.post(f"{address}gradio_api/upload", files=files, timeout=60)
            value = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
            asked = time.monotonic()
            kind, _ = ask(address, "features", value, _models()[:1])
            done.append((kind, time.monotonic() - asked))

    users = [threading.Thread(target=use, args=(user,)) for user in range(30)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert len(done) > 30 and {kind for kind, _ in done} == {"complete"}
    # No request lost its file to the cleaner, though some waited longer than files are kept.
    assert max(seconds for _, seconds in done) > keeping.cleaner().keep
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        left = [path for path in keeping.workspace().rglob("*.*") if path.is_file()]
        left = [path for path in left if path.name not in _example_names()]
        if not left:
            break
        time.sleep(1)
    assert not left


@pytest.mark.slow
def test_a_request_leaves_a_few_kilobytes_once_its_session_is_let_go(started_alone):
    """Measured by what Python allocates: 1,000 requests of 25 KB each would be seen in 40."""
    import gc
    import io
    import tracemalloc

    import httpx
    import numpy as np
    from PIL import Image

    address = started_alone
    picture = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(picture, "PNG")

    def use(count):
        for _ in range(count):
            files = {"files": ("picture.png", picture.getvalue())}
            sent = httpx.post(f"{address}gradio_api/upload", files=files, timeout=60)
            value = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
            assert ask(address, "features", value, _models()[:1])[0] == "complete"
        gc.collect()

    use(10)  # models, fonts and pools of threads are there, and as many sessions as are kept
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        use(5)  # those that are kept from now on
        kept = tracemalloc.get_traced_memory()[0] - before
        use(40)
        after = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept > 5 * 100 * 2**10  # a session holds its answer, a picture
    assert (after - kept) / 40 < 25 * 2**10


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_a_person_with_a_browser(started, browser, tmp_path, width, scheme):
    asked, broken = set(), []
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, accept_downloads=True
    )

    def open_page(name):
        page = context.new_page()
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(started[name])
        page.wait_for_selector("h1")
        return page

    def wait(page, text):
        page.wait_for_function("t => document.body.innerText.includes(t)", arg=text, timeout=90_000)
        page.wait_for_timeout(300)
        shots = os.environ.get("RS_MODELS_SCREENSHOTS")
        if shots:
            name = f"{len(list(Path(shots).glob('*.png'))):02d}.png"
            page.screenshot(path=Path(shots) / name, full_page=True)

    def put(page, file):
        page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
        page.set_input_files("input[type=file] >> nth=0", file)

    page = open_page("scene-explorer")
    wait(page, "nearest images are")  # of the example that it opens with
    bad = tmp_path / "photo.png"
    bad.write_text("not pixels")
    put(page, bad)
    wait(page, "photo.png is not an image")
    assert "Traceback" not in page.inner_text("body")
    assert page.get_by_text("photo.png is not an image").count() == 1
    assert page.locator("[data-testid=status-tracker] span.error:visible").count() == 0
    put(page, EXAMPLE)
    page.get_by_text("photo.png is not an image").wait_for(state="detached", timeout=90_000)

    page = open_page("segment-a-scene")
    wait(page, "points of 6 classes")
    page.get_by_role("button", name="Clear all").click()
    wait(page, "Choose a class and mark")
    assert page.get_by_role("button", name="Polygons, GeoJSON").count() == 0
    scene = page.locator("#sheet .scene")
    for key, x in (("1", 30), ("2", 200), ("1", 60), ("2", 230)):
        page.keyboard.press(key)
        scene.click(position={"x": x, "y": 60})
    wait(page, "4 points of 2 classes")
    scene.focus()
    for key in ("3", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    wait(page, "5 points of 3 classes")
    page.keyboard.press("u")
    wait(page, "4 points of 2 classes")
    # An area: by its corners and the first one again, then by keys; Escape drops what is begun.
    page.keyboard.press("p")
    page.keyboard.press("1")
    for x, y in ((30, 90), (60, 90), (60, 120), (31, 91)):
        scene.click(position={"x": x, "y": y})
    wait(page, "4 points and 1 area of 2 classes")
    scene.focus()
    for key in ("Space", "Shift+ArrowDown", "Escape"):
        page.keyboard.press(key)
    assert page.locator("#sheet .dot.first").count() == 0
    page.keyboard.press("2")
    for move in ("ArrowLeft", "ArrowUp", "ArrowRight"):
        for key in ("Space", f"Shift+{move}", f"Shift+{move}"):
            page.keyboard.press(key)
    page.keyboard.press("Space")
    page.keyboard.press("u")  # takes a corner back, not an area
    assert page.locator("#sheet .dot.corner").count() == 2
    page.keyboard.press("Enter")
    wait(page, "4 points and 2 areas of 2 classes")
    page.keyboard.press("u")
    wait(page, "4 points and 1 area of 2 classes")
    page.keyboard.press("p")
    with page.expect_download() as download:
        page.get_by_role("button", name="Polygons, GeoJSON").click()
    shapes = json.loads(Path(download.value.path()).read_text())["features"]
    assert {shape["properties"]["class"] for shape in shapes} == {"water", "sand"}
    page.keyboard.press("s")
    scene.click(position={"x": 30, "y": 60})
    wait(page, "Warm places look like the point")
    page.get_by_text("A drawn scene with a place").click()
    wait(page, "768 x 768 pixels")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add polygons from a file").click()
    chooser.value.set_files(on_the_mosaic(tmp_path / "labels.geojson"))
    wait(page, "and 1 area of")
    assert page.locator("#sheet .areas path").count() == 1

    page = open_page("learning-signals")
    page.get_by_label("GLCNet").check()
    wait(page, "numbered regions")
    start = time.monotonic()
    page.get_by_label("TOV").check()
    wait(page, "What sets TOV apart")
    assert time.monotonic() - start < 10
    assert page.get_by_text("FALSE: scope").count() == 0
    page.get_by_label("FALSE").check()
    wait(page, "FALSE: scope")

    page = open_page("compare")
    wait(page, "labels a class")
    page.get_by_role("tab", name="Leaderboard").click()
    head = page.locator(".board:visible th", has_text="linear-n20").first
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    place = page.locator(".board:visible thead th").all_inner_texts().index(head.inner_text())
    cells = page.locator(f".board:visible tbody tr td:nth-child({place + 1})").all()
    values = [float(cell.get_attribute("data-value")) for cell in cells[:5]]
    assert values == sorted(values, reverse=True)
    # No page scrolls sideways, on a phone neither.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert asked <= {address.split("/")[2] for address in started.values()}
    assert not broken
    context.close()
