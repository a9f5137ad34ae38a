from __future__ import annotations

import importlib.util
import io

import pytest
from rich.console import Console

from datamodules.config import DataConfig, DatasetConfig
from datamodules.display.cards import card, summary_table
from datamodules.prepare import prepare
from datamodules.registry import CONVENTIONS, READERS, build, public_names, reader
from datamodules.synthetic.forge import forge
from lightning_app.commands.dataset_tables import print_list

# Other packages may add readers; the table only lists those of this repository.
PUBLIC = [name for name in READERS if name not in CONVENTIONS]


def test_the_table_has_a_row_for_each_public_dataset():
    names = [line.split("]")[0].removeprefix("| [") for line in summary_table().splitlines()[2:]]
    assert names == PUBLIC


def test_sizes_and_access_stand_in_the_table_of_datasets():
    row = next(line for line in summary_table().splitlines() if line.startswith("| [nct_crc]"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[6] == "12.5 GB"  # 11,690,284,003 and 800,276,929 bytes
    assert cells[7] == "32.2 GB"  # 107,180 images of 224 x 224 x 3 bytes, twice
    assert cells[8:] == ["automatic", "CC BY 4.0", "yes"]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_card_of_public_data_is_complete(name):
    dataset = reader(name)
    text = card(dataset)
    for fact in ("Sources", "Licence", "Groups", "Publisher", "Cite", "Get it"):
        assert f"\n- {fact}: " in text, fact
    for task in dataset.tasks:
        assert f"- `{task.name}`, {task.kind}" in text
        for index, label in enumerate(task.classes):
            assert f"{index} {label}" in text
    assert (dataset.__doc__ or "").strip().splitlines()[0] in text
    assert dataset.layout or dataset.obtain
    assert dataset.folder == name  # the commands in the card use it


@pytest.mark.parametrize("name", PUBLIC)
def test_a_published_archive_has_an_address_and_a_readable_checksum(name):
    for archive in reader(name).archives:
        assert archive.url.startswith(("https://", "http://")) or archive.name
        algorithm, _, digest = archive.checksum.partition(":")
        lengths = {"": 0, "md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}
        assert len(digest) == lengths[algorithm]
        assert set(digest) <= set("0123456789abcdef")


def test_a_card_names_the_options_of_its_reader():
    assert "rotation: which official rotation of the folds" in card(reader("pannuke"))
    assert "allow_missing: go without" in card(reader("pannuke"))
    assert "Options:" not in card(reader("glas"), "## glas")


def test_the_list_shows_what_exists_and_what_is_prepared(tmp_path):
    data = DataConfig(root=str(tmp_path / "data"), stores=str(tmp_path / "stores"))
    names = ("breastpathq", "pannuke", "glas")
    datasets = [build(name, DatasetConfig(), data) for name in names]
    forge(datasets[0], 0, 6)
    prepared = prepare(datasets[0], workers=1)
    forge(datasets[1], 0, 6)
    output = io.StringIO()
    print_list(Console(file=output, width=300), datasets)
    lines = [line for line in output.getvalue().splitlines() if "\u2502" in line]
    first, second, third = ([cell.strip() for cell in row.split("\u2502")[1:-1]] for row in lines)
    assert first[:5] == ["breastpathq", "cellularity: regression", "breast", "2,579", "0.5"]
    assert first[6:] == ["yes", f"{prepared.count} patches", ""]
    assert second[1].startswith("nuclei: segmentation (6), ")
    assert second[6:] == ["yes", "", ""]
    assert third[6:] == ["", "", ""]


def test_public_readers_are_all_but_the_conventions():
    assert [name for name in public_names() if name in READERS] == PUBLIC
    assert all(importlib.util.find_spec(READERS[name].split(":")[0]) for name in READERS)
