"""A probe on data that share their source with what the encoder was trained on."""

from pathlib import Path

import pytest

from datamodules.checks.leakage import Trained, overlap, trained_on
from datamodules.config import DataConfig, DatasetConfig
from datamodules.prepare import prepare
from datamodules.registry import build
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
        "mine": {"role": "train", "sources": [], "folder": "own/glands"},
        "glas": {"role": "unseen", "sources": ["Warwick UHCW colon"], "folder": "glas"},
    }
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported encoder that says what it was trained on, as a run's own does."""
    folder = tmp_path_factory.mktemp("run")
    config = ModelConfig(encoder="convnext_atto", weights="random")
    export_encoder(Encoder(config, 32), folder, FACTS)
    return folder


def test_an_encoder_tells_what_it_was_trained_on():
    nuclei, mine = trained_on(FACTS)
    assert nuclei == Trained("nuclei", ("TCGA", "PanNuke"), "pannuke")
    assert mine.folder == "own/glands"
    assert trained_on({"input_size": 224}) == []


def test_sources_and_folders_of_an_encoder_are_compared_with_those_of_a_probe(tmp_path):
    data = DataConfig(root=str(tmp_path))
    monuseg = build("monuseg", DatasetConfig(), data)
    own = DatasetConfig(reader="class_folders", folder="own/glands")
    assert overlap(trained_on(FACTS), [monuseg, build("glands", own, data)]) == [
        "monuseg (unseen) and nuclei (training) share the source TCGA",
        "glands (unseen) and mine (training) share the folder own/glands",
    ]
    assert overlap(trained_on(FACTS), [build("bach", DatasetConfig(), data)]) == []


@pytest.mark.parametrize("allowed", [False, True])
def test_the_probe_verb_refuses_shared_sources_whatever_configuration_it_is_given(
    encoder, tmp_path, capsys, caplog, allowed
):
    recipe = tmp_path / "probe.yaml"
    recipe.write_text(f"data: {{root: {tmp_path}, unseen: {{monuseg: {{}}}}}}")
    settings = ["probe.baselines=[random]", "model.encoder=convnext_atto", "data.image_size=32"]
    if allowed:
        settings.append("probe.allow_overlap=true")
    with caplog.at_level("WARNING"):
        assert main(["probe", str(encoder), "--config", str(recipe), *settings]) == 2
    told = capsys.readouterr().err
    if allowed:  # it goes on, and finds no data
        assert f"no folder {tmp_path / 'monuseg'}" in told
        assert "not unseen: monuseg (unseen) and nuclei (training) share" in told + caplog.text
    else:
        assert told.count("\n") == 1
        assert "nuclei (training) share the source TCGA" in told
        assert "probe.allow_overlap=true" in told
    assert not (tmp_path / "runs").exists()


def test_the_report_is_told_of_what_is_shared_where_that_was_allowed(tmp_path):
    data = DataConfig(root=str(tmp_path / "data"), stores=str(tmp_path / "stores"))
    own = DatasetConfig(reader="class_folders", folder="own/glands", patch_size=32)
    glands = build("glands", own, data)
    forge(glands, 0, 8)
    prepare(glands, 1)
    origin = provenance(Config(), {}, {"glands": glands}, trained_on(FACTS))
    assert origin["warnings"] == [
        "not unseen: glands (unseen) and mine (training) share the folder own/glands"
    ]
    told = {"datasets": {"glands": {**describe(glands), "role": "train"}}}
    assert trained_on(told) == [Trained("glands", (), "own/glands")]
