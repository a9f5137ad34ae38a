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


def test_a_shared_source_is_found_whatever_its_case():
    assert overlap([First(), Third()], [Second()]) == [
        "second (unseen) and first (training) share the source tcga"
    ]
    assert overlap([Third()], [First(), Second()]) == []


def test_the_same_folder_on_both_sides_is_found_for_own_data(tmp_path):
    data = DataConfig(root=str(tmp_path))
    own = DatasetConfig(reader="class_folders", folder="mine")
    one, other = (build(name, own, data) for name in ("a", "b"))
    (sentence,) = overlap([one], [other])
    assert sentence == f"b (unseen) and a (training) share the folder {tmp_path / 'mine'}"
    elsewhere = build("c", DatasetConfig(reader="class_folders", folder="yours"), data)
    assert overlap([one], [elsewhere]) == []


def test_shared_sources_are_refused_and_the_message_says_how_to_allow_them(caplog):
    with pytest.raises(LeakageError, match=r"second .* first .*source tcga.*allow_overlap=true"):
        check_overlap([First()], [Second()], allow=False)
    check_overlap([First()], [Third()], allow=False)
    assert not caplog.records
    check_overlap([First()], [Second()], allow=True)
    assert "not unseen: second" in caplog.text


def test_the_recommended_choice_shares_no_source():
    unseen = ("bach", "idc", "breastpathq")
    assert overlap(published(*public_names()[:10]), published(*unseen)) == []


def test_known_relatives_among_public_data_share_a_source():
    for one, other in (("pannuke", "monuseg"), ("conic", "glas"), ("nct_crc", "kather2016")):
        assert overlap(published(one), published(other)), (one, other)


def test_the_licence_line_names_what_forbids_commercial_use_and_what_is_unclear():
    assert licence_line([First()]) == "all training data allow commercial use"
    assert licence_line([First(), Second()]) == "weights trained on non-commercial data: second"
    assert licence_line([First(), Third()]) == "terms unclear, ask the publishers: third"
    assert licence_line([Second(), Third()]) == (
        "weights trained on non-commercial data: second; terms unclear, ask the publishers: third"
    )
