from pathlib import Path

import pytest

from datamodules.core.errors import ConfigError
from lightning_app.config import load_config, save_config, to_dict
from lightning_app.training.trainer import check_sharding

CONFIGS = sorted(set(Path("configs").glob("*.yaml")) - {Path("configs/sweep.yaml")})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_recipe_fits_the_schema(path: Path) -> None:
    config = load_config(path)
    assert config.data.train or config.data.unseen


def test_an_override_takes_precedence_over_the_file() -> None:
    config = load_config(Path("configs/demo.yaml"), ["data.train.glas.weights.glands=5", "seed=3"])
    assert config.data.train["glas"].weights["glands"] == 5
    assert config.data.seed == config.seed == 3


def test_a_saved_configuration_loads_unchanged(tmp_path: Path) -> None:
    config = load_config(Path("configs/real_small.yaml"), ["optim.schedule=constant"])
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert to_dict(config)["optim"]["schedule"] == "constant"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {imagesize: 3}", ["data.imagesize", "image_size"]),
        ("data: {train: {idc: {fold: 3}}}", ["data.train.idc.fold", "folds"]),
        ("data: {image_size: abc}", ["data.image_size", "abc", "Integer"]),
        ("optim: {schedule: cosin}", ["optim.schedule", "cosine"]),
        ("name: ???", ["name", "set it"]),
        ("- 1", ["expected a mapping"]),
        ("data: [1", ["not valid YAML"]),
        ("data: {train: [a]}", ["bad.yaml"]),
    ],
)
def test_an_invalid_file_is_reported_with_the_full_key_and_the_nearest_valid_one(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in [*expected, "bad.yaml"]:
        assert part in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.epoch=3", "epochs"),
        ("trainer.epochs=three", "trainer.epochs"),
        ("epochs", "key=value"),
        ("trainer.precision=bf17", "bf16-mixed"),
        ("data.batch_size=-1", "data.batch_size=-1: must be at least 1"),
        ("data.train.idc.mpp=0", r"data.train.idc.mpp=0.0: must be at least 0.01"),
        ("optim.layer_decay=1.5", "must be above 0 and at most 1"),
        ("probe.sizes=[10,-3]", r"probe.sizes=\[10, -3\]: must be at least 0"),
    ],
)
def test_an_invalid_override_is_named(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(None, [override])
    assert override.partition("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("text", "overrides", "told"),
    [
        ("data: {seed: 5}", [], "data.seed=5"),
        ("seed: 3", ["data.seed=5"], "data.seed=5"),
        ("seed: 3", ["data.seed=0"], "data.seed=0"),
        ("{}", ["data.seed=5", "seed=3"], "data.seed=5"),
    ],
)
def test_a_second_seed_is_refused_and_never_overwritten(tmp_path, text, overrides, told):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{told}: .*follow one seed"):
        load_config(path, overrides)


@pytest.mark.parametrize(
    ("text", "overrides", "seed"),
    [
        ("{}", ["data.seed=5", "seed=5"], 5),
        ("seed: 3", [], 3),
        ("{seed: 3, data: {seed: 3}}", ["seed=7"], 7),  # as a run writes it, and then changed
        ("data: {seed: 5}", ["seed=5"], 5),
    ],
)
def test_one_seed_reaches_the_data(tmp_path, text, overrides, seed):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    config = load_config(path, overrides)
    assert config.seed == config.data.seed == seed


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


def test_sharding_refuses_settings_that_need_whole_weights_during_training():
    demo = Path(__file__).resolve().parents[2] / "configs/demo.yaml"
    with pytest.raises(ConfigError, match=r"strategy=fsdp: set optim\.ema_decay=0"):
        check_sharding(load_config(demo, ["trainer.strategy=fsdp"]))
    check_sharding(load_config(demo, ["trainer.strategy=fsdp", "optim.ema_decay=0"]))
