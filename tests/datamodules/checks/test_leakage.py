"""A probe on data that share their source with what the encoder was trained on."""

from pathlib import Path

import pytest

from datamodules.checks.leakage import (
    Trained,
    check_overlap,
    licence_line,
    overlap,
    trained_on,
)
from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import LeakageError
from datamodules.prepare import prepare
from datamodules.reader import DatasetReader
from datamodules.registry import build, public_names
from datamodules.synthetic.forge import forge
from lightning_app.cli import main
from lightning_app.config import Config
from lightning_app.run.folder import describe, provenance
from models.config import ModelConfig
from models.inference.export import export_encoder
from models.network.encoder import Encoder

FACTS = {
    "datasets": {
        "nuclei": {"role": "train", "sources": ["TCGA", "PanNuke"], "folder": "pannuke"},
        "local": {"role": "train", "sources": [], "folder": "own/glands"},
        "glas": {"role": "unseen", "sources": ["Warwick UHCW colon"], "folder": "glas"},
    }
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported encoder that says what it was trained on, as a run does."""
    folder = tmp_path_factory.mktemp("run")
    config = ModelConfig(encoder="convnext_atto", weights="random")
    export_encoder(Encoder(config, 32), folder, FACTS)
    return folder


def test_training_data_are_read_from_the_facts_of_an_encoder():
    nuclei, local = trained_on(FACTS)
    assert nuclei == Trained("nuclei", ("TCGA", "PanNuke"), "pannuke")
    assert local.folder == "own/glands"
    assert trained_on({"input_size": 224}) == []


def test_sources_and_folders_of_training_and_probing_data_are_compared(tmp_path):
    data = DataConfig(root=str(tmp_path))
    monuseg = build("monuseg", DatasetConfig(), data)
    config = DatasetConfig(reader="class_folders", folder="own/glands")
    assert overlap(trained_on(FACTS), [monuseg, build("glands", config, data)]) == [
        "monuseg (unseen) and nuclei (training) share the source TCGA",
        "glands (unseen) and local (training) share the folder own/glands",
    ]
    assert overlap(trained_on(FACTS), [build("bach", DatasetConfig(), data)]) == []


@pytest.mark.parametrize("allowed", [False, True])
def test_the_probe_verb_refuses_shared_sources_with_any_configuration(
    encoder, tmp_path, capsys, caplog, allowed
):
    recipe = tmp_path / "probe.yaml"
    recipe.write_text(f"data: {{root: {tmp_path}, unseen: {{monuseg: {{}}}}}}")
    settings = ["probe.baselines=[random]", "model.encoder=convnext_atto", "data.image_size=32"]
    if allowed:
        settings.append("probe.allow_overlap=true")
    with caplog.at_level("WARNING"):
        assert main(["probe", str(encoder), "--config", str(recipe), *settings]) == 2
    message = capsys.readouterr().err
    if allowed:  # it goes on, and finds no data
        assert f"no folder {tmp_path / 'monuseg'}" in message
        assert "not unseen: monuseg (unseen) and nuclei (training) share" in message + caplog.text
    else:
        assert message.count("\n") == 1
        assert "nuclei (training) share the source TCGA" in message
        assert "probe.allow_overlap=true" in message
    assert not (tmp_path / "runs").exists()


def test_an_allowed_overlap_is_a_warning_in_the_provenance(tmp_path):
    data = DataConfig(root=str(tmp_path / "data"), stores=str(tmp_path / "stores"))
    config = DatasetConfig(reader="class_folders", folder="own/glands", patch_size=32)
    glands = build("glands", config, data)
    forge(glands, 0, 8)
    prepare(glands, 1)
    origin = provenance(Config(), {}, {"glands": glands}, trained_on(FACTS))
    assert origin["warnings"] == [
        "not unseen: glands (unseen) and local (training) share the folder own/glands"
    ]
    facts = {"datasets": {"glands": {**describe(glands), "role": "train"}}}
    assert trained_on(facts) == [Trained("glands", (), "own/glands")]


class First(DatasetReader):
    folder = "first"
    commercial = True
    sources = ("TCGA", "Own scanner")


class Second(DatasetReader):
    folder = "second"
    commercial = False
    sources = ("tcga",)


class Third(DatasetReader):
    folder = "third"
    sources = ("Elsewhere",)


def published(*names: str) -> list[DatasetReader]:
    return [build(name, DatasetConfig(), DataConfig()) for name in names]


def test_sources_are_compared_without_case():
    assert overlap([First(), Third()], [Second()]) == [
        "second (unseen) and first (training) share the source tcga"
    ]
    assert overlap([Third()], [First(), Second()]) == []


def test_the_same_folder_on_both_sides_is_found_for_own_data(tmp_path):
    data = DataConfig(root=str(tmp_path))
    config = DatasetConfig(reader="class_folders", folder="local")
    one, other = (build(name, config, data) for name in ("a", "b"))
    (sentence,) = overlap([one], [other])
    assert sentence == f"b (unseen) and a (training) share the folder {tmp_path / 'local'}"
    elsewhere = build("c", DatasetConfig(reader="class_folders", folder="other"), data)
    assert overlap([one], [elsewhere]) == []


def test_shared_sources_are_refused_with_a_message_on_how_to_allow_them(caplog):
    with pytest.raises(LeakageError, match=r"second .* first .*source tcga.*allow_overlap=true"):
        check_overlap([First()], [Second()], allow=False)
    check_overlap([First()], [Third()], allow=False)
    assert not caplog.records
    check_overlap([First()], [Second()], allow=True)
    assert "not unseen: second" in caplog.text


def test_the_recommended_datasets_share_no_source():
    unseen = ("bach", "idc", "breastpathq")
    assert overlap(published(*public_names()[:10]), published(*unseen)) == []


def test_related_public_datasets_share_a_source():
    for one, other in (("pannuke", "monuseg"), ("conic", "glas"), ("nct_crc", "kather2016")):
        assert overlap(published(one), published(other)), (one, other)


def test_the_licence_line_lists_forbidden_and_unclear_commercial_use():
    assert licence_line([First()]) == "all training data allow commercial use"
    assert licence_line([First(), Second()]) == "weights trained on non-commercial data: second"
    assert licence_line([First(), Third()]) == "terms unclear, ask the publishers: third"
    assert licence_line([Second(), Third()]) == (
        "weights trained on non-commercial data: second; terms unclear, ask the publishers: third"
    )
