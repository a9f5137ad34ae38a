"""The documentation builds strictly, its links lead somewhere, and it repeats the program."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from datamodules.registry import READERS
from lightning_app.commands.configuration import sections

TWIN = "kather2016"


class Page(HTMLParser):
    """What a page links to, the places in it that can be linked to, and its pictures' words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [v for k in ("href", "src") if (v := values.get(k)) is not None]
        self.places |= {v for k in ("id", "name") if (v := values.get(k)) is not None}
        self.words += [values["alt"]] if tag == "img" and values.get("alt") else []


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built documentation, with the contact sheet of one dataset."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    settings = {"strict": True, "site_dir": str(folder), "extra": {"twins": [TWIN]}}
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mkdocs").addHandler(handler)
    build(load_config(str(repository / "mkdocs.yml"), **settings))
    assert warnings == []
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    found = {str(p.relative_to(site)): Page(p.read_text("utf-8")) for p in site.rglob("*.html")}
    assert len(found) > 40
    return found


def test_every_link_and_picture_of_the_site_exists(site: Path, pages: dict[str, Page]) -> None:
    dead = []
    for name, page in pages.items():
        for link in page.links:
            address, place = urldefrag(unquote(link))
            if "://" in address or address.startswith(("mailto:", "data:", "/")):
                continue  # elsewhere; the page of errors names its own files from the root
            path = (site / name).parent / address if address else site / name
            path = path / "index.html" if path.is_dir() else path
            target = str(path.resolve().relative_to(site.resolve()))
            inside = pages.get(target)
            if not path.is_file() or (place and inside and place not in inside.places):
                dead.append(f"{name}: {link}")
    assert dead == []


def test_lists_and_tables_are_rendered_as_such(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = re.sub(r"<pre.*?</pre>", "", path.read_text("utf-8"), flags=re.DOTALL)
        marks = r"^ *(- |\|).*"  # GitHub takes a list without an empty line before it
        assert re.search(marks, text, re.MULTILINE) is None, path


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        assert 'src="http' not in text, path
        assert "fonts.googleapis" not in text, path


def test_the_page_of_the_configuration_has_every_key(site: Path) -> None:
    text = (site / "configuration.html").read_text("utf-8")
    keys = [key for section in sections() for key in section.keys]
    assert [key.name for key in keys if f"<code>{key.name}</code>" not in text] == []
    assert "<!-- keys -->" not in text


def test_every_dataset_has_a_page_and_its_twin_is_marked(
    site: Path, pages: dict[str, Page]
) -> None:
    for name in READERS:
        assert f"datasets/{name}.html" in pages
    (words,) = pages[f"datasets/{TWIN}.html"].words
    assert words == f"SYNTHETIC tissue in the layout of {TWIN}"
    assert (site / "datasets" / f"{TWIN}.webp").read_bytes()[8:12] == b"WEBP"
    assert f'href="{TWIN}.html"' in (site / "datasets" / "index.html").read_text("utf-8")
