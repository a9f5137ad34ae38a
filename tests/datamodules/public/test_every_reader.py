"""Properties of every reader, on its forged copy."""

import hashlib
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from datamodules.core.errors import DatasetNotFoundError
from datamodules.core.notes import collecting
from datamodules.core.records import SPLITS, TaskKind
from datamodules.prepare import load
from datamodules.registry import CONVENTIONS, READERS, reader
from datamodules.store.synthetic_mark import MARK
from datamodules.store.tiling import View
from datamodules.synthetic.forge import forge
from tests.support.readers import IMAGES, assert_refused, dataset, prepared


@pytest.mark.parametrize("name", READERS)
def test_a_forged_copy_is_read_checked_and_stored(name, forged):
    module = dataset(name, forged(name), forged(name).parent / "stores")
    records = list(module.records(module.root))
    store = prepared(module)

    assert store.synthetic
    assert set(module.published_splits) in ({record.split for record in records}, set())
    assert {record.source for record in records} >= {store.source(i) for i in range(len(store))}
    assert set(store.group_names) == {record.group for record in records}
    assert [task.name for task in store.tasks] == [
        task.name for task in module.tasks_in(module.root)
    ]
    if module.tiler(store.tasks).view is View.WHOLE:
        assert len(store) == len(records)
        assert [SPLITS[s] for s in store.split] == [record.split for record in records]
    images = store.images(range(len(store)))
    assert images.shape == (len(store), module.side, module.side, 3)
    assert images.std() > 5


@pytest.mark.parametrize("name", READERS)
def test_every_class_of_a_forged_copy_occurs(name, forged):
    module = dataset(name, forged(name), forged(name).parent / "stores")
    store = prepared(module)
    for task in store.tasks:
        if task.kind is TaskKind.CLASSIFICATION:
            values = np.unique(store.target(task.name))
            if len(task.classes) <= 9:
                assert values.tolist() == list(range(len(task.classes)))
            else:
                assert len(values) > 1
        elif task.kind is TaskKind.REGRESSION:
            assert store.target(task.name).std() > 0.05
        elif task.kind is TaskKind.SEGMENTATION:
            values = np.unique(store.masks(task.name, range(len(store))))
            assert len(set(values.tolist()) - {task.ignore_index}) >= 2
        elif task.kind is TaskKind.DETECTION:
            assert sum(len(store.boxes(task.name, i)) for i in range(len(store))) > 0


@pytest.mark.parametrize("name", READERS)
def test_forging_again_with_the_same_seed_gives_the_same_bytes(name, forged, tmp_path):
    module = dataset(name, tmp_path / "again", tmp_path / "stores")
    forge(module, seed=0, images=IMAGES)
    assert tree_digest(tmp_path / "again") == tree_digest(forged(name))


@pytest.mark.parametrize("name", READERS)
def test_what_operating_systems_leave_in_every_folder_changes_nothing(name, forged, tmp_path):
    shutil.copytree(forged(name), tmp_path / name, copy_function=os.link)
    module = dataset(name, tmp_path / name, tmp_path / "stores")
    with collecting() as before:
        plain = read_once(module)
    for path in [module.root, *module.root.rglob("*")]:
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
        else:
            (path / "__MACOSX").mkdir()
            for junk in ("__MACOSX/._1.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
                (path / junk).write_bytes(b"\0\5\x16\7")
    with collecting() as notes:
        assert read_once(module) == plain
    assert notes.counts == before.counts


def read_once(module):
    """Every record; of the first one also its pixels and targets, which are read when asked for."""
    records = list(module.read())
    patches = load(records[0], module.tiler(module.tasks_in(module.root)), module.native_mpp())
    facts = [(record.source, record.split, record.group, record.mpp) for record in records]
    return facts, [(patch.x, patch.y, patch.image.tobytes()) for patch in patches]


@pytest.mark.parametrize("name", READERS)
def test_a_missing_folder_is_reported_with_how_to_get_the_data(name, tmp_path):
    module = dataset(name, tmp_path / "nowhere", tmp_path / "stores")
    assert_refused(module, DatasetNotFoundError, str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", READERS)
def test_an_empty_folder_is_reported_by_its_path(name, tmp_path):
    (tmp_path / "empty").mkdir()
    module = dataset(name, tmp_path / "empty", tmp_path / "stores")
    assert_refused(module, DatasetNotFoundError, str(tmp_path / "empty"))


@pytest.mark.parametrize("name", [name for name in READERS if name not in CONVENTIONS])
def test_every_public_dataset_states_its_facts(name):
    facts = reader(name)
    assert len(facts.__doc__ or "") > 400
    assert facts.title and facts.organs and facts.licence and facts.citation and facts.sources
    assert facts.homepage.startswith("http")
    assert facts.archives or facts.obtain
    assert facts.tasks
    for archive in facts.archives:
        known = r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96})?"
        assert re.fullmatch(known, archive.checksum)


def tree_digest(root: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and p.name != MARK):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
