"""Every shipped recipe runs, shortened, on synthetic copies of its datasets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from datamodules.checks.leakage import overlap
from datamodules.registry import build, reader
from lightning_app.cli import main
from lightning_app.config import load_config

SWEEP = Path("configs/sweep.yaml")
RECIPES = [path for path in sorted(Path("configs").glob("*.yaml")) if path != SWEEP]
SHORT = (
    "data.image_size=64",
    "data.batch_size=1",
    "data.workers=0",
    "trainer.precision=32-true",
    "trainer.gradients_every=0",
    "model.encoder=test_convnext",
    "model.weights=random",
    "model.neck_channels=8",
    "optim.layer_decay=1",
    "probe.baselines=[random:test_resnet]",
    "probe.map_points=0",
    "probe.neighbours=0",
)


def places(folder: Path) -> list[str]:
    return [f"data.root={folder}/data", f"data.stores={folder}/stores", f"out={folder}/runs"]


def sweep_command(values: dict[str, object]) -> list[str]:
    """The command of the sweep, expanded with these parameters as W&B's agent expands it."""
    sweep = yaml.safe_load(SWEEP.read_text())
    expanded = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    expanded |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
    words = create_sweep_command(sweep["command"])
    return [part for w in words for part in (expanded[w[2:-1]] if w.startswith("${") else [w])]


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
def test_a_shipped_recipe_is_rehearsed_from_data_to_report(
    path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rehearse = ["rehearse", "--config", str(path), "--out", str(folder), *SHORT]
    assert main([*rehearse, f"name={path.stem}"]) == 0
    assert f"{path} runs on this machine" in capsys.readouterr().out
    (report,) = folder.glob(f"runs/{path.stem}-*/report.html")
    assert report.stat().st_size > 10_000


def test_the_wide_recipe_has_the_tasks_it_states_and_its_probes_are_unseen() -> None:
    data = load_config(Path("configs/pretrain16.yaml")).data
    train, unseen = (
        [build(name, entry, data) for name, entry in entries.items()]
        for entries in (data.train, data.unseen)
    )
    tasks = {(one.key, task.name) for one in train for task in one.tasks_in(Path())}
    assert (len({one.key for one in train}), len(tasks)) == (19, 27)
    assert overlap(train, unseen) == []


@pytest.mark.slow
def test_an_agent_of_the_wandb_sweep_trains_with_the_values_it_was_given(folder: Path) -> None:
    ranges = yaml.safe_load(SWEEP.read_text())["parameters"]
    values = {key: r["values"][-1] if "values" in r else r["max"] for key, r in ranges.items()}
    start, program = sweep_command(values)[:4], sweep_command(values)[4:]
    assert start == ["/usr/bin/env", "python", "-m", "lightning_app"]
    recipe = Path(program[program.index("--config") + 1])
    short = [*SHORT, "data.forge=12", *places(folder / "sweep"), *forged_groups(recipe)]
    short += ["probe.role=all"]  # half of so few images is one group
    short += ["trainer.epochs=1", "trainer.steps_per_epoch=2", "probe.repeats=1", "probe.trees=2"]
    assert main([*program, *short]) == 0
    (run,) = folder.glob("sweep/runs/sweep-*")
    config = load_config(run / "config.yaml")
    for key, value in values.items():
        assert OmegaConf.select(OmegaConf.structured(config), key) == value, key
    assert (run / "report.html").is_file()
    assert load_config(recipe, program[3:]).probe.role == "develop"


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


def test_the_open_recipe_needs_no_form_and_has_many_kinds_of_tasks() -> None:
    data = load_config(Path("configs/open.yaml")).data
    train, unseen = (
        [reader(entry.reader or name) for name, entry in entries.items()]
        for entries in (data.train, data.unseen)
    )
    assert {facts.access for facts in train + unseen} == {"automatic"}
    assert len(set(train)) >= 6
    kinds = {str(task.kind) for facts in train for task in facts.tasks}
    assert kinds == {"classification", "multilabel", "segmentation", "detection"}
    assert sum(facts.organs == ("breast",) for facts in unseen) >= 2
    assert all("not verified" not in facts.licence for facts in train + unseen)


def test_a_rehearsal_lists_every_fault_before_anything_is_forged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = ["data.unseen.idc.folds=0", "probe.baselines=[missing.safetensors:test_resnet]"]
    shared = ["data.train.breakhis={}", "data.unseen.breakhis={}", "model.weights=none.safetensors"]
    rehearse = ["rehearse", "--out", str(tmp_path / "kept"), *SHORT, *faults, *shared]
    assert main([*rehearse, f"data.root={tmp_path}/data", f"data.stores={tmp_path}/stores"]) == 2
    shown = "".join(capsys.readouterr().out.split())  # lines are folded anywhere
    for text in (
        "data.unseen.idc.folds=0: its publisher names no test images",
        "breakhis (unseen) and breakhis (training) share the folder",
        "missing.safetensors",
        "none.safetensors",
        f"{tmp_path}/data needs up to",
        "0 of 14 datasets are there, 8 come by `make data`",
        "by hand: lc25000, bcss, glas, midogpp, tupac16, breastpathq",
        "configs/pretrain.yaml will not run: 4 of its settings must be changed",
    ):
        assert "".join(text.split()) in shown, text
    assert not list(tmp_path.iterdir())
