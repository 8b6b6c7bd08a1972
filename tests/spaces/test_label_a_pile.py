"""Label a pile, as a person with a keyboard meets it."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from rs_models.data.synthetic import CLASSES, draw_scene
from tests.spaces.conftest import needs_browser

pytestmark = [needs_browser, pytest.mark.slow]
WAIT = 60_000


@pytest.fixture
def person(started, browser):
    """Opens the page as another person each time, and looks that no script failed."""
    contexts, broken = [], []

    def opened(width=1280, **settings):
        settings = {"viewport": {"width": width, "height": 900}} | settings
        contexts.append(browser.new_context(accept_downloads=True, **settings))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(started["label-a-pile"])
        page.wait_for_selector("#sheet .tile", timeout=WAIT)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not broken


def name_classes(page, *names):
    for name in names:
        page.fill("#sheet .add input", name)
        page.keyboard.press("Enter")
    page.locator("#sheet .tile").first.click()


def labelled(page):
    return page.locator("#sheet .tile.labelled").count()


def see(page, text):
    page.get_by_text(text, exact=False).first.wait_for(timeout=WAIT)


def test_labels_by_keys_are_answered_and_taken_back(person, tmp_path):
    page = person()
    see(page, "No answers yet")
    assert page.get_by_role("button", name="Labels, CSV").count() == 0
    name_classes(page, "roofs", "green")
    for key in "121212":
        page.keyboard.press(key)
    see(page, "estimated accuracy")
    see(page, "from 6 labelled tiles")
    assert labelled(page) == 6
    page.keyboard.press("u")
    see(page, "from 5 labelled tiles")
    page.wait_for_function("document.querySelectorAll('#sheet .tile.labelled').length === 5")
    first = [tile.get_attribute("data-row") for tile in page.locator("#sheet .tile").all()]
    page.keyboard.press("Enter")
    page.wait_for_function(
        "row => document.querySelector('#sheet .tile').dataset.row !== row", arg=first[0]
    )
    second = [tile.get_attribute("data-row") for tile in page.locator("#sheet .tile").all()]
    assert not set(first[:5]) & set(second)
    row = page.locator("#wall .one").first.get_attribute("data-row")
    page.locator("#wall .one").first.click()
    see(page, "and the tiles most like it")
    assert page.locator("#sheet .tile").first.get_attribute("data-row") == row
    with page.expect_download() as download:
        page.get_by_role("button", name="Labels, CSV").click()
    rows = list(csv.DictReader(open(download.value.path(), encoding="utf-8")))
    assert len(rows) == 5 and {row["label"] for row in rows} == {"roofs", "green"}
    with page.expect_download() as download:
        page.get_by_role("button", name="Classifier, zip").click()
    assert "classifier/config.json" in zipfile.ZipFile(download.value.path()).namelist()


def test_two_people_see_nothing_of_each_other(person):
    one, two = person(), person()
    name_classes(one, "mine")
    one.keyboard.press("1")
    name_classes(two, "yours")
    two.keyboard.press("1")
    two.keyboard.press("1")
    assert "mine" not in two.inner_text("body") and "yours" not in one.inner_text("body")
    one.keyboard.press("Enter")
    one.wait_for_timeout(1500)
    assert [key.inner_text() for key in one.locator("#sheet .key .name").all()] == ["mine"]
    assert one.locator("#sheet .key .n").inner_text() == "1"
    assert two.locator("#sheet .key .n").inner_text() == "2"


def test_on_a_phone_nothing_is_cut_off_and_taps_label(person):
    page = person(390, color_scheme="dark", has_touch=True)
    name_classes(page, "roofs", "a name that is as long as names can be here")
    for number in range(4):
        page.locator("#sheet .key").nth(number % 2).tap()
    see(page, "from 4 labelled tiles")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.evaluate(
        "[...document.querySelectorAll('#sheet *, .panel *, #wall *')]"
        ".filter(e => e.getBoundingClientRect().right > 391).length"
    )
    assert wide == 0


def test_a_pile_of_ones_own_and_an_error_that_goes_when_it_is_mended(person, tmp_path):
    page = person()
    (tmp_path / "tiles.zip").write_bytes(b"no zip at all")
    page.get_by_text("Use your own images").click()
    page.set_input_files("input[type=file]", tmp_path / "tiles.zip")
    see(page, "tiles.zip cannot be unpacked")
    assert page.get_by_text("cannot be unpacked").count() == 1
    assert page.locator("[data-testid=status-tracker] span.error:visible").count() == 0
    files = []
    for number in range(16):
        files.append(Path(tmp_path) / f"{number}.png")
        scene = draw_scene(number % 2, (7, number), 64)[0][..., :3]
        Image.fromarray(scene).save(files[-1])
    page.get_by_label("Clear").first.click()
    page.set_input_files("input[type=file]", files)
    see(page, "16 images of yours")
    page.get_by_text("cannot be unpacked").wait_for(state="detached", timeout=WAIT)
    assert CLASSES and page.locator("#sheet .tile").count() == 12
