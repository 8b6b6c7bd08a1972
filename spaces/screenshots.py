"""Photographs every state of every Space: `python spaces/screenshots.py --output FOLDER`.

At 1440 and 390 pixels, light and dark, by Chromium and playwright; `--thumbnails` also writes
`docs/figures/space_<name>.webp`. They are looked at before a release; nothing compares them.
"""

from __future__ import annotations

import argparse
import runpy
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
FIGURES = HERE.parent / "docs" / "figures"
WIDTHS, SCHEMES = (1440, 390), ("light", "dark")
MOSAIC = HERE / "segment-a-scene" / "examples" / "mosaic_utm32.tif"
WAIT = 60_000
_THUMB = (640, 400)

Page = Any
States = Iterator[str]


def see(page: Page, text: str) -> None:
    """Waits for a text."""
    page.get_by_text(text, exact=False).first.wait_for(timeout=WAIT)
    page.wait_for_timeout(900)


def wrong_file(folder: Path, name: str) -> Path:
    """A file that is not what it is called."""
    (folder / name).write_text("not what it is called")
    return folder / name


def label_a_pile(page: Page, folder: Path) -> States:
    """Begun, labelled on, alike, started over, mistaken, and cut from a scene."""
    see(page, "estimated accuracy")
    yield "opened"
    for key in "31522":
        page.keyboard.press(key)
    see(page, "from 29 labelled tiles")
    yield "labelled"
    page.locator("#wall .one").first.click()
    see(page, "and the tiles most like it")
    yield "alike"
    page.get_by_role("button", name="Start over").click()
    see(page, "No answers yet")
    yield "empty"
    page.get_by_text("Use your own images").click()
    page.set_input_files("input[type=file]", wrong_file(folder, "tiles.zip"))
    see(page, "cannot be unpacked")
    yield "mistaken"
    page.get_by_label("Clear").first.click()
    page.set_input_files("input[type=file]", MOSAIC)
    see(page, "cut from mosaic")
    for name in ("fields", "houses"):
        page.fill("#sheet .add input", name)
        page.keyboard.press("Enter")
    page.locator("#sheet .tile").first.click()
    for key in "121212":
        page.keyboard.press(key)
    see(page, "from 6 labelled tiles")
    yield "scene"


def segment_a_scene(page: Page, folder: Path) -> States:
    """Finished, likeness, cleared, an area, a scene with a place, mistaken."""
    see(page, "points of 6 classes")
    yield "opened"
    page.get_by_role("button", name="what is like this").click()
    page.locator("#sheet .scene").click(position={"x": 120, "y": 40})
    see(page, "Warm places")
    yield "likeness"
    page.get_by_role("button", name="Clear all").click()
    see(page, "Choose a class and mark")
    yield "cleared"
    scene = page.locator("#sheet .scene")
    page.keyboard.press("1")  # no longer what is like it
    scene.click(position={"x": 60, "y": 40})
    page.get_by_role("button", name="Areas").click()
    page.keyboard.press("2")
    for x, y in ((150, 40), (200, 40), (200, 90), (151, 41)):
        scene.click(position={"x": x, "y": y})
    see(page, "1 point and 1 area of 2 classes")
    yield "area"
    page.get_by_text("A drawn scene with a place").click()
    see(page, "Hectares")
    yield "place"
    page.get_by_label("Clear").first.click()
    see(page, "384 x 256 pixels")
    page.set_input_files("input[type=file] >> nth=-1", wrong_file(folder, "scene.tif"))
    see(page, "is not a TIFF")
    yield "mistaken"


def scene_explorer(page: Page, folder: Path) -> States:
    """Finished, with classes of one's own, a GeoTIFF, mistaken."""
    see(page, "nearest images are")
    yield "opened"
    page.get_by_text("Add a class of your own").click()
    page.get_by_label("Name of the class").fill("my ponds")
    page.set_input_files("input[type=file] >> nth=-1", HERE / "compare/examples/river.jpg")
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Add class").click()
    see(page, "my ponds (1)")
    yield "own"
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    page.set_input_files("input[type=file] >> nth=0", MOSAIC)
    page.wait_for_timeout(6000)
    yield "tiff"
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    page.set_input_files("input[type=file] >> nth=0", wrong_file(folder, "photo.png"))
    see(page, "photo.png is not an image")
    yield "mistaken"


def learning_signals(page: Page, folder: Path) -> States:
    """Each method."""
    for name, words in (
        ("RSISC", "Inpainting"),
        ("TOV", "What sets TOV"),
        ("FALSE", "are suspected to"),
        ("STICL", "A share of the keys"),
        ("GLCNet", "numbered regions"),
        ("LaST", "The student sees"),
    ):
        page.locator("#method").get_by_label(name).check()
        see(page, words)
        yield name.lower()


def compare(page: Page, folder: Path) -> States:
    """Few labels, features, leaderboard."""
    see(page, "draws of labels")
    yield "few-labels"
    page.get_by_role("tab", name="Features").click()
    see(page, "three principal components")
    yield "features"
    page.get_by_role("tab", name="Leaderboard").click()
    page.get_by_role("button", name="linear-n20").first.click()
    page.wait_for_timeout(800)
    yield "leaderboard"


STATES: dict[str, Callable[[Page, Path], States]] = {
    "label-a-pile": label_a_pile,
    "segment-a-scene": segment_a_scene,
    "scene-explorer": scene_explorer,
    "learning-signals": learning_signals,
    "compare": compare,
}
# The state that stands for a Space in the README.
FACES = {
    "label-a-pile": "opened",
    "segment-a-scene": "opened",
    "scene-explorer": "opened",
    "learning-signals": "glcnet",
    "compare": "few-labels",
}


def photograph(browser: Any, name: str, address: str, output: Path, thumbnails: bool) -> None:
    """All states of a Space at all sizes; a page that scrolls sideways is told."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            page = context.new_page()
            page.goto(address)
            page.wait_for_selector("h1", timeout=WAIT)
            with tempfile.TemporaryDirectory() as folder:
                for state in STATES[name](page, Path(folder)):
                    path = output / f"{name}-{state}-{width}-{scheme}.png"
                    page.screenshot(path=path, full_page=True)
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    print(path, "" if wide <= width else f"scrolls sideways: {wide}", flush=True)
                    face = width == WIDTHS[0] and scheme == "light" and state == FACES[name]
                    if thumbnails and face:
                        thumbnail(path, FIGURES / f"space_{name.replace('-', '_')}.webp")
            context.close()


def thumbnail(path: Path, target: Path) -> None:
    """The upper part of a page, small."""
    with Image.open(path) as shot:
        height = round(shot.width * _THUMB[1] / _THUMB[0])
        upper = shot.convert("RGB").crop((0, 0, shot.width, min(height, shot.height)))
        upper.resize(_THUMB, Image.Resampling.LANCZOS).save(target, quality=72, method=6)
    print(target, target.stat().st_size, flush=True)


def main() -> None:
    """Starts the Spaces that are named, or all, and photographs them."""
    from playwright.sync_api import sync_playwright

    from rs_models.demos import page

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", help=f"of {', '.join(STATES)}")
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("--thumbnails", action="store_true")
    options = options.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in options.names or STATES:
            made = runpy.run_path(str(HERE / name / "app.py"), run_name=name)["demo"]
            _, address, _ = page.launch(made, prevent_thread_lock=True, server_name="127.0.0.1")
            photograph(browser, name, address, options.output, options.thumbnails)
            made.close()


if __name__ == "__main__":
    main()
