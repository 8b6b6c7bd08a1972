"""The documentation: whole, current, true to the commands there are, and readable offline."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from rs_models.cli import COMMANDS
from rs_models.publish import pages
from tests.conftest import ROOT

DOCS = ROOT / "docs"
# Rendered notebooks are not kept: whoever made them has them there.
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.parent.name != "notebooks")


def _nav(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in _nav(value)]


class _Loader(yaml.SafeLoader):
    """Knows the variables that mkdocs reads."""


_Loader.add_constructor("!ENV", lambda loader, node: node.value)


def _settings() -> dict:
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)


def test_every_page_is_in_the_navigation_and_is_there():
    nav = _nav(_settings()["nav"])
    assert sorted(nav) == [page.relative_to(DOCS).as_posix() for page in PAGES]


def test_names_in_the_navigation_are_words():
    """YAML takes a bare FALSE for a truth value."""

    def names(entry):
        if isinstance(entry, dict):
            for name, inner in entry.items():
                yield name
                yield from names(inner)
        elif isinstance(entry, list):
            for inner in entry:
                yield from names(inner)

    shown = list(names(_settings()["nav"]))
    assert "FALSE" in shown and all(isinstance(name, str) for name in shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_rendered_parts_are_current(page):
    text = page.read_text(encoding="utf-8")
    if any(f"<!-- {name}:begin -->" in text for name in {**pages.BLOCKS, **pages.DOCS_BLOCKS}):
        pages.check(page, ROOT / pages.RESULTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_files_that_pages_name_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?:^|`)rs-models ([a-z][a-z-]*)", text, re.MULTILINE):
        assert name in COMMANDS, f"{page.name}: rs-models {name}"
    for name in re.findall(r"training/[\w/]+\.(?:py|yaml)", text):
        assert (ROOT / name).is_file(), f"{page.name}: {name}"


class _Assets(HTMLParser):
    """What a page loads without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        loads = tag in ("script", "img", "source", "iframe") or (
            tag == "link" and values.get("rel") in ("stylesheet", "preload", "preconnect", "icon")
        )
        if loads:
            self.found += [values[key] for key in ("src", "href") if values.get(key)]


@pytest.mark.slow
def test_the_site_builds_with_strict_links_and_asks_no_host(tmp_path):
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "rs_models").symlink_to(ROOT / "rs_models")  # whose docstrings are pages
    built = subprocess.run(
        [str(Path(sys.executable).with_name("zensical")), "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    site = list((tmp_path / "site").rglob("*.html"))
    assert len(site) >= len(PAGES)
    for page in site:
        parser = _Assets()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.found
        away = [asset for asset in parser.found if re.match(r"(https?:)?//", asset)]
        assert not away, f"{Path(page).name} loads {away}"
        if page.name == "404.html":  # is served from anywhere, so its paths begin at the root
            continue
        # The build looks after links and names; pictures are for us to see to.
        gone = [asset for asset in parser.found if not (page.parent / unquote(asset)).exists()]
        assert not [asset for asset in gone if not asset.startswith("data:")], f"{page} {gone}"
    data = (tmp_path / "site/reference/data.html").read_text(encoding="utf-8")
    assert 'id="rs_models.data.sources.load"' in data
