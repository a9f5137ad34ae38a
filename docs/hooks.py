"""Pages that are generated while the documentation is built, by MkDocs' hooks.

Tables of keys come from the dataclasses of the configuration, pages of datasets from their
readers' cards, and the contact sheet on each from a forged copy. Pages of the repository's root
(README, changelog) are taken over, and a link to any other file of the repository takes that file
along, so that one link is right both in the repository and on the site.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the project is used from its checkout

from mkdocs.structure.files import File, Files  # noqa: E402

from datamodules.config import DataConfig, DatasetConfig  # noqa: E402
from datamodules.display.cards import card, summary_table  # noqa: E402
from datamodules.registry import READERS, build, reader  # noqa: E402
from lightning_app.commands.configuration import Section, sections  # noqa: E402

TAKEN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages of the repository's root, and what they are called on the site."""

LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s#]+)")
TWINS = ROOT / "build" / "twins"
IMAGES = 18

_SHEET = """## Contact sheet

**SYNTHETIC.** These images are not from the dataset: the reader's `forge()` drew them in the
publisher's layout, and they were prepared as published files are.
"""


def on_config(config: Any) -> Any:
    """List a page for each dataset."""
    (data,) = (part["Data"] for part in config.nav if "Data" in part)
    (pages,) = (part["Datasets"] for part in data if "Datasets" in part)
    pages += [{name: f"datasets/{name}.md"} for name in READERS]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add what is generated, and the files that pages link to."""
    twins = config.extra.get("twins")
    names = [name for name in READERS if twins is True or (twins and name in twins)]
    pages = {uri: (ROOT / name).read_text("utf-8") for name, uri in TAKEN.items()}
    pages |= {f"datasets/{name}.md": _dataset_page(name, name in names) for name in READERS}
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    for uri, content in _tutorial(ROOT / "docs" / "tutorial.ipynb"):
        files.append(File.generated(config, uri, content=content))
    for name in names:
        sheet = File.generated(config, f"datasets/{name}.webp", abs_src_path=str(_twin(name)))
        files.append(sheet)
    for uri in sorted(set(_linked(files))):
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / uri)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fill in the table of keys, and let links lead to where their files lie on the site."""
    uri = page.file.src_uri
    if uri == "configuration.md":
        markdown = markdown.replace("<!-- keys -->", "\n".join(map(_keys, sections())))
    if uri == "datasets/index.md":
        markdown = markdown.replace("<!-- public -->", summary_table())
    folder = _folder(uri)

    def moved(match: re.Match[str]) -> str:
        target = _on_site(folder, match[2])
        return match[1] + os.path.relpath(target, Path(uri).parent)

    return LINK.sub(moved, markdown)


def _folder(uri: str) -> str:
    """The folder of the repository that the links of a page start from."""
    return "" if uri in TAKEN.values() else str(Path("docs") / Path(uri).parent)


def _on_site(folder: str, link: str) -> str:
    """Where on the site the target of a link lies, which is written as in the repository."""
    path = os.path.normpath(Path(folder) / link)
    path = TAKEN.get(path) or path.removeprefix("docs/")
    return "tutorial.md" if path == "tutorial.ipynb" else path


def _linked(files: Files) -> Iterator[str]:
    """Files of the repository outside of docs/ that pages link to."""
    for file in files.documentation_pages():
        for match in LINK.finditer(file.content_string):
            path = os.path.normpath(Path(_folder(file.src_uri)) / match[2])
            if not path.startswith("docs/") and path not in TAKEN and (ROOT / path).is_file():
                yield path


def _keys(section: Section) -> str:
    """The table of the keys of one dataclass."""
    title = f"`{section.prefix}`" if section.prefix else "Top level"
    rows = [f"## {title}", "", section.summary, ""]
    rows += ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    for key in section.keys:
        cells = f"`{key.name}`", key.kind, f"`{key.default}`", key.allowed, key.meaning
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _dataset_page(name: str, pictured: bool) -> str:
    text = card(reader(name), f"# {name}\n\n**{reader(name).title}**")
    if not pictured:
        return text
    return f"{text}\n{_SHEET}\n![SYNTHETIC tissue in the layout of {name}]({name}.webp)\n"


def _twin(name: str) -> Path:
    """The contact sheet of a forged copy; made again when the code of the datasets changed."""
    from PIL import Image

    from datamodules.core.atomic import atomic_path
    from datamodules.display.contact_sheet import contact_sheet
    from datamodules.prepare import prepare
    from datamodules.synthetic.forge import forge

    sources = sorted((ROOT / "datamodules").rglob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    picture = TWINS / digest / f"{name}.webp"
    if not picture.is_file():
        picture.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            data = DataConfig(root=f"{folder}/published", stores=f"{folder}/stores")
            dataset = build(name, DatasetConfig(), data)
            forge(dataset, 0, IMAGES)
            prepare(dataset, 1)
            sheet = contact_sheet(dataset, Path(folder) / "sheet.png", IMAGES)
            with atomic_path(picture) as partial:
                Image.open(sheet).save(partial, "WEBP", quality=80)
    return picture


def _tutorial(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """The tutorial's page and the pictures in it, from the notebook and its saved results."""
    parts: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text("utf-8"))["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for result in cell.get("outputs", []):
            data = result.get("data", {})
            kind = next((kind for kind in ("png", "jpeg") if f"image/{kind}" in data), "")
            if kind:
                uri = f"tutorial_{number}.{kind}"
                yield uri, b64decode("".join(data[f"image/{kind}"]))
                parts.append(f"![SYNTHETIC tissue: what cell {number} draws]({uri})")
            else:
                text = "".join(result.get("text", data.get("text/plain", "")))
                parts.append(f"```text\n{text.rstrip()}\n```")
    yield "tutorial.md", "\n\n".join(parts) + "\n"
