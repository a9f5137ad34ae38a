"""What the README and the repository's files claim is what the project holds."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from datamodules.display.cards import short_table
from datamodules.registry import CONVENTIONS, READERS
from lightning_app.config import load_config

MARKDOWN = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md")
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]*))?\)")


def heading_places(text: str) -> set[str]:
    """The addresses that a git host gives to the headings of a file."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("pattern", MARKDOWN)
def test_links_in_the_repository_lead_to_files_and_headings(pattern: str, repository: Path) -> None:
    pages = sorted(repository.glob(pattern))
    assert pages
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        for link, place in LINK.findall(text):
            target = (page.parent / link).resolve() if link else page
            assert target.exists(), f"{page}: {link}"
            if place and target.suffix == ".md":
                assert place in heading_places(target.read_text("utf-8")), f"{page}: {link}#{place}"


def test_the_table_of_the_real_recipe_states_the_readers_facts(repository: Path) -> None:
    data = load_config(repository / "configs" / "pretrain.yaml").data
    names = [entry.reader or name for name, entry in {**data.train, **data.unseen}.items()]
    table = short_table(dict.fromkeys(names))
    assert len(data.unseen) == 3  # the text below the table says so
    assert table in (repository / "README.md").read_text("utf-8"), f"README.md needs\n{table}"


def test_the_number_of_public_readers_is_stated(repository: Path) -> None:
    number = len(READERS) - len(CONVENTIONS)
    assert f"{number} public readers" in (repository / "README.md").read_text("utf-8")


def test_the_citation_fits_the_project_and_its_format(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((repository / "CITATION.cff").read_text("utf-8"))
    # Required by version 1.2.0 of the format.
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"]
    assert all("name" in one or "family-names" in one for one in citation["authors"])
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]


def test_python_versions_are_the_same_everywhere(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    named = {c.rpartition(" ")[2] for c in project["classifiers"] if ":: Python :: 3" in c}
    workflow = yaml.safe_load((repository / ".github/workflows/ci.yml").read_text())
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == named
    readme = (repository / "README.md").read_text("utf-8")
    assert f"**Python** {', '.join(sorted(named))}" in readme
    assert f"**Licence** {project['license']}" in readme


def test_templates_and_container_files_can_be_read(repository: Path) -> None:
    for path in (repository / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text("utf-8"))
        assert path.name == "config.yml" or {"name", "description", "body"} <= set(form)
    container = json.loads((repository / ".devcontainer" / "devcontainer.json").read_text())
    docker = (repository / "Dockerfile").read_text()
    assert re.search(rf"^FROM .* AS {container['build']['target']}$", docker, re.MULTILINE)
    # Nothing runs as root once the system's packages are there.
    assert docker.index("USER 10001") < docker.index("make install") < docker.index("make test")
    assert not re.search(r"^USER (root|0)", docker, re.MULTILINE)
