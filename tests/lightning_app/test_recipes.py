"""Every shipped recipe runs, shortened, on synthetic copies of its datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_app.cli import main
from lightning_app.config import load_config

RECIPES = sorted(Path("configs").glob("*.yaml"))
SHORT = (
    "data.forge=12",
    "data.image_size=64",
    "data.batch_size=1",
    "data.workers=0",
    "data.val_limit=2",
    "trainer.epochs=1",
    "trainer.steps_per_epoch=2",
    "trainer.precision=32-true",
    "trainer.gradients_every=0",
    "model.encoder=test_convnext",
    "model.weights=random",
    "model.neck_channels=8",
    "optim.layer_decay=1",
    "probe.role=all",  # halves of a few forged groups may be empty
    "probe.sizes=[4]",
    "probe.repeats=1",
    "probe.trees=2",
    "probe.bootstrap=20",
    "probe.baselines=[random]",
    "probe.jobs=1",
    "probe.map_points=0",
    "probe.neighbours=0",
    "wandb.mode=disabled",
)


def places(folder: Path) -> list[str]:
    return [f"data.root={folder}/data", f"data.stores={folder}/stores", f"out={folder}/runs"]


def forged_groups(path: Path) -> list[str]:
    """Overrides by which the groups of own data are those in the names of forged files."""
    data = load_config(path).data
    return [
        f"data.{part}.{name}.options.group='^(patient\\d+)'"
        for part, entries in (("train", data.train), ("unseen", data.unseen))
        for name, entry in entries.items()
        if "group" in entry.options
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all recipes, so that each dataset is forged and prepared once."""
    return tmp_path_factory.mktemp("recipes")


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_runs_from_data_to_report(path: Path, folder: Path) -> None:
    verb = ["probe", "random:test_convnext"] if path.stem == "probe" else ["pretrain"]
    settings = [*SHORT, *places(folder), f"name={path.stem}", *forged_groups(path)]
    if path.stem == "probe":
        settings.remove("probe.baselines=[random]")
        settings.append("probe.baselines=[random:test_resnet]")
    assert main([*verb, "--config", str(path), *settings]) == 0
    (report,) = folder.glob(f"runs/*{path.stem}*/report.html")
    assert report.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.unseen.idc.folds=0", "data.unseen.idc.folds=0"),
        ("model.weights=missing.safetensors", "missing.safetensors"),
        ("probe.sizes=[]", "sizes"),
    ],
)
def test_what_needs_no_data_is_checked_before_anything_is_prepared(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ["pretrain", "--config", "configs/pretrain.yaml", *SHORT, *places(tmp_path), override]
    assert main(recipe) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*"))
