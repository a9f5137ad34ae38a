"""The verb `config`: every key has a meaning, and a file's keys are explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_app.cli import main
from lightning_app.commands.configuration import explain, sections
from lightning_app.config import Config, load_config, to_dict

KEYS = {key.name: key for section in sections() for key in section.keys}


def leaves(node: object, prefix: str = "") -> set[str]:
    """Full names of all values in nested mappings; an empty mapping is a value."""
    if not isinstance(node, dict) or not node:
        return {prefix.removesuffix(".")}
    return {name for key, value in node.items() for name in leaves(value, f"{prefix}{key}.")}


def test_every_key_of_a_configuration_is_listed_once_with_a_meaning() -> None:
    data = to_dict(load_config(None, ["data.train.NAME={}"]))
    assert set(KEYS) == leaves(data) - {"data.unseen"}
    assert [key for key in KEYS.values() if not key.meaning] == []
    assert len(KEYS) == sum(len(section.keys) for section in sections())


@pytest.mark.parametrize(
    ("name", "kind", "default", "allowed"),
    [
        ("trainer.epochs", "whole number", "10", "at least 1 and at most 1000000"),
        ("optim.ema_decay", "number", "0.0", "at least 0 and below 1"),
        ("trainer.precision", "auto or bf16-mixed or 16-mixed or 32-true", "auto", ""),
        ("data.compression", "none or lossless", "none", ""),
        ("data.train.NAME.compression", "none or lossless or null", "null", ""),
        ("data.train.NAME.class_weights", "list of number by name", "{}", None),
        ("probe.baselines", "list of text", "[imagenet, random]", ""),
        ("name", "text", "pretrain", "a name"),
    ],
)
def test_a_key_has_its_type_default_and_range(name, kind, default, allowed) -> None:
    key = KEYS[name]
    assert (key.kind, key.default) == (kind, default)
    assert allowed is None or key.allowed == allowed


def test_names_that_share_a_line_of_a_docstring_share_its_meaning() -> None:
    assert KEYS["wandb.entity"].meaning == KEYS["wandb.project"].meaning != ""
    assert KEYS["ablation.steps_per_epoch"].meaning.startswith("length of each")


def test_a_file_is_explained_key_by_key_with_the_options_of_its_readers(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "trainer: {epochs: 4}\n"
        "data:\n  train:\n    mine: {reader: class_folders, options: {positive: tumour}}\n"
        "    pannuke: {options: {allow_missing: true}}\n"
    )
    found = {key.name: (value, key) for value, key in ((v, k) for _, v, k in explain(path))}
    assert list(found) == [
        "trainer.epochs",
        "data.train.mine.reader",
        "data.train.mine.options.positive",
        "data.train.pannuke.options.allow_missing",
    ]
    assert found["trainer.epochs"][0] == "4" and found["trainer.epochs"][1].default == "10"
    assert "whose F1 is reported" in found["data.train.mine.options.positive"][1].meaning
    assert found["data.train.pannuke.options.allow_missing"][0] == "true"


@pytest.mark.parametrize(
    "path",
    sorted(path for path in Path("configs").glob("*.yaml") if path.stem != "sweep"),  # W&B's
    ids=lambda p: p.stem,
)
def test_every_shipped_recipe_is_explained(path: Path) -> None:
    assert all(key.meaning for _, _, key in explain(path))


def test_the_verb_prints_all_keys_and_refuses_a_wrong_file(tmp_path: Path, capsys) -> None:
    assert main(["config"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}\n" in printed for name in KEYS)
    (tmp_path / "wrong.yaml").write_text("trainer: {epoch: 3}")
    assert main(["config", str(tmp_path / "wrong.yaml")]) == 2
    assert "epochs" in capsys.readouterr().err
    (tmp_path / "none.yaml").write_text("{}")
    assert main(["config", str(tmp_path / "none.yaml")]) == 0
    assert "every default holds" in capsys.readouterr().out


def test_the_default_of_a_key_is_that_of_the_dataclass() -> None:
    assert KEYS["seed"].default == str(Config().seed)
