"""Configurations at their limits: ranges of all numbers, forms of names, hostile YAML."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from datamodules.core.errors import ConfigError
from datamodules.core.options import read_options
from datamodules.registry import reader, reader_names
from lightning_app.config import load_config

BAD_NAMES = (
    *("../evil", "/abs", "a/b", "a\\b", "..", ".", "", " a", "two\nlines", "nul\0", "x" * 101),
    *("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "a*", "a[1]", "a`b", "a<b>", "a\x1b[31m"),
)


def numeric_keys(config: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The key of every number of a configuration, and whether it is a whole one."""
    hints = get_type_hints(type(config))
    for one in dataclasses.fields(config):
        text = str(hints[one.name]).replace("<class '", "").replace("'>", "")
        value = getattr(config, one.name)
        if dataclasses.is_dataclass(value):
            yield from numeric_keys(value, f"{prefix}{one.name}.")
        elif re.search(r"\b(int|float)\b", text) and "Any" not in text:
            key = f"{prefix}{one.name}" + ".x" * text.startswith("dict")
            yield key, "float" not in text


EXAMPLE = load_config(None, ["data.train.x.reader=glas"])
NUMBERS = [
    *numeric_keys(EXAMPLE),
    *((f"data.train.x.{k}", w) for k, w in numeric_keys(EXAMPLE.data.train["x"])),
]
LISTS = ("probe.sizes", "ablation.seeds", "data.train.x.class_weights.x")


def test_the_list_of_numeric_keys_is_complete() -> None:
    assert len(NUMBERS) == len(dict(NUMBERS)) > 55
    assert {"seed", "data.mpp", "data.train.x.mpp", "data.train.x.weights.x"} <= dict(
        NUMBERS
    ).keys()


@pytest.mark.parametrize(("key", "whole"), NUMBERS, ids=[key for key, _ in NUMBERS])
def test_every_number_has_a_range(tmp_path: Path, key: str, whole: bool) -> None:
    texts = ["-2", "1" + "0" * 100, "9" * 5000, *([] if whole else [".nan", ".inf"])]
    for text in texts:
        value = f"[{text}]" if key in LISTS else text
        with pytest.raises(ConfigError) as caught:
            load_config(None, ["data.train.x.reader=glas", f"{key}={value}"])
        line = str(caught.value)
        assert key.removesuffix(".x") in line and len(line) < 400, line
    content = value
    for name in reversed(key.split(".")):
        content = f"{{{name}: {content}}}"
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError):
        load_config(tmp_path / "c.yaml")


OPTIONS = [
    (name, key)
    for name in reader_names()
    for key, hint in get_type_hints(reader(name).options_type).items()
    if hint in (int, float, int | None, float | None)
]


@pytest.mark.parametrize(("name", "key"), OPTIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300])
def test_every_numeric_option_of_a_reader_has_a_range(name: str, key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"options.*{key}"):
        read_options("data.train.x.options", reader(name).options_type, {key: value})


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=4294967296", "at most 4294967295"),
        ("data.size_power=400", "at most 4"),
        ("data.image_size=100000", "at most 4096"),
        ("model.neck_channels=1000000", "at most 4096"),
        ("probe.trees=0", "at least 1"),
    ],
)
def test_numbers_that_no_machine_can_hold_are_refused(override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(None, [override])


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,  # crashed the parser
        "name: " + "[" * 2000 + "]" * 2000,
        "data: {train: " + "{a: " * 1000 + "1" + "}" * 1000 + "}",
        "seed: " + "9" * 5000,
        "name: !!python/object/apply:os.system [touch here]",
        "name: !!timestamp x",
        "3",
        "a: &a [*a]",
        "seed: 1\nseed: 2",
        "name: ${out}\nout: ${name}",
        "seed: ${name}",
        "seed: ${oc.env:HOME}",
        "name: ${oc.env:NO_SUCH_VARIABLE}",
    ],
)
def test_a_hostile_yaml_file_is_one_short_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    verb = ["datasets", "prepare", "--recipe", str(path)]  # starts without torch
    command = [sys.executable, "-m", "lightning_app", *verb]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2, run.stderr[-500:]
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert len(run.stderr) < 500


@pytest.mark.parametrize("depth", [31, 3000])
def test_a_key_of_many_levels_is_refused(depth: int) -> None:
    with pytest.raises(ConfigError, match="more than 30 levels"):
        load_config(None, [".".join(["a"] * depth) + "=1"])


def test_interpolation_takes_values_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = load_config(None, ["data.root=${oc.env:HOME}/data", "name=${model.encoder}"])
    assert (config.data.root, config.name) == ("/home/somebody/data", "convnext_tiny")
    with pytest.raises(ConfigError, match=r"seed: .*could not be converted to Integer"):
        load_config(None, ["seed=${oc.env:HOME}"])


@pytest.mark.parametrize("name", [*BAD_NAMES, "${oc.env:HOME}"])
def test_names_that_leave_their_folder_or_are_formulas_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", "/home/somebody")
    contents = [{"name": name}, *({"data": {k: {name: {}}}} for k in ("train", "unseen"))]
    for content in contents:
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(ConfigError, match="is no name; begin with a letter or digit"):
            load_config(tmp_path / "c.yaml")


def test_names_in_other_alphabets_with_spaces_and_dots_are_kept(tmp_path: Path) -> None:
    names = ["Göttingen 2.1 (scan+rescan)", "組織", "a-b_c@d,e"]
    (tmp_path / "c.yaml").write_text(
        yaml.safe_dump({"data": {"train": {name: {} for name in names}}})
    )
    assert set(load_config(tmp_path / "c.yaml").data.train) == set(names)
