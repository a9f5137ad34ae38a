"""Readers by name: their data modules, other packages' readers, the recipes for own data."""

import importlib
import re

import pytest
import pytorch_lightning as pl
from omegaconf import OmegaConf

from datamodules.config import DataConfig, DatasetConfig
from datamodules.core.errors import ConfigError
from datamodules.core.records import TaskKind
from datamodules.prepare import prepare
from datamodules.registry import CONVENTIONS, READERS, build, public_names, reader
from datamodules.synthetic.forge import forge


@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_its_registered_key_and_a_data_module(name):
    reader_class = reader(name)
    assert reader_class.key == name
    module = getattr(importlib.import_module("datamodules"), f"{reader_class.__name__}DataModule")
    assert issubclass(module, pl.LightningDataModule)
    assert isinstance(module().reader, reader_class)


def test_an_unknown_data_module_is_an_import_error():
    with pytest.raises(ImportError, match="GlasDataModule"):
        from datamodules import GlasDataModule  # noqa: F401


def test_a_data_module_prepares_and_loads_its_dataset(tmp_path):
    from datamodules import GlaSDataModule

    data = DataConfig(str(tmp_path / "data"), str(tmp_path / "stores"), image_size=64, workers=0)
    module = GlaSDataModule(data, DatasetConfig(batch_size=3))
    forge(module.reader, 0, 8)
    module.prepare_data()
    batch = next(iter(module.train_dataloader()))
    assert batch.images.shape == (3, 64, 64, 3)
    assert [(part.dataset, set(part.targets)) for part in batch.parts] == [("glas", {"glands"})]
    test_rows = [i for batch in module.test_dataloader() for i in batch.parts[0].index.tolist()]
    assert test_rows == module.reader.rows("test").tolist()


MODULE = """
from datamodules.own_data.class_folders import ClassFolders


class Private(ClassFolders):
    title, folder, sources = "private cohort", "private", ("own scanner",)
"""


def install(folder, name, target):
    """Write what Python sees of an installed package: a module and its metadata."""
    info = folder / "cohort-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cohort\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[histology.readers]\n{name} = {target}\n")
    (folder / "cohort_reader.py").write_text(MODULE)


def test_another_package_adds_a_reader_through_its_entry_point(tmp_path, monkeypatch):
    assert "private" not in public_names()
    install(tmp_path, "private", "cohort_reader:Private")
    monkeypatch.syspath_prepend(tmp_path)
    assert public_names()[-1] == "private"
    data = DataConfig(root=str(tmp_path / "data"), stores=str(tmp_path / "stores"))
    dataset = build("private", DatasetConfig(patch_size=64), data)
    forge(dataset, 0, 8)
    assert prepare(dataset, 1).count == 8
    with pytest.raises(ConfigError, match="did you mean 'private'"):
        reader("privat")


@pytest.mark.parametrize(
    ("page", "readers"),
    [
        ("docs/own_data.md", set(CONVENTIONS)),
        ("README.md", {"class_folders", "image_masks", "csv_table"}),
    ],
)
def test_the_examples_for_own_data_work(page, readers, repository, tmp_path):
    block = re.search(r"```yaml\n(.*?)```", (repository / page).read_text(), flags=re.DOTALL)
    settings = OmegaConf.to_container(OmegaConf.create(block[1]))["data"]
    entries = settings["train"] | settings["unseen"]
    assert {entry["reader"] for entry in entries.values()} == readers
    # A table of one's own seldom names test images; folds need none.
    assert all(entry["folds"] > 1 for entry in settings["unseen"].values())
    kinds = set()
    for name, entry in entries.items():
        data = DataConfig(root=str(tmp_path / "data"), stores=str(tmp_path / "stores"))
        dataset = build(name, DatasetConfig(**entry), data)
        forge(dataset, 0, 8)
        assert dataset.root == tmp_path / "data" / entry["folder"]
        prepare(dataset, 1)
        if "group" in entry["options"] or entry["reader"] == "csv_table":  # patients, not images
            assert 1 < len(dataset.store.group_names) < len(dataset.store)
        kinds |= {task.kind for task in dataset.store.tasks}
    missing = {TaskKind.MULTILABEL} | ({TaskKind.DETECTION} if page == "README.md" else set())
    assert kinds == set(TaskKind) - missing


@pytest.mark.parametrize("view", ["tile", "whole", "TILE"])
def test_a_view_is_named_as_the_card_names_it(view, tmp_path):
    config = DatasetConfig(reader="class_folders", options=OmegaConf.create({"view": view}))
    dataset = build("own", config, DataConfig(root=str(tmp_path)))
    assert str(dataset.tiler(()).view) == view.lower()
