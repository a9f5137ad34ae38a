"""HDF5 and NumPy files that bring in other files, objects, or less than they state."""

import h5py
import numpy as np
import pytest

from datamodules.core.errors import LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.arrays import hdf5_rows, hdf5_shape, open_npy, whole_numbers

SHAPE = (4, 6, 6, 3)
PIXELS = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint8)


def write_other(folder):
    """A file whose bytes must not be read through the one that is asked for."""
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = PIXELS
    (folder / "secret.txt").write_bytes(bytes(PIXELS.nbytes))
    return folder / "other.h5"


def external_storage(folder, file):
    write_other(folder)
    place = [(str(folder / "secret.txt"), 0, PIXELS.nbytes)]
    file.create_dataset("x", SHAPE, np.uint8, external=place)


def external_link(folder, file):
    file["x"] = h5py.ExternalLink(str(write_other(folder)), "/x")


def virtual_dataset(folder, file):
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource(str(write_other(folder)), "x", SHAPE)
    file.create_virtual_dataset("x", layout)


def soft_link(folder, file):
    file["y"] = PIXELS
    file["x"] = h5py.SoftLink("/y")


def group(folder, file):
    file.create_group("x")


def texts(folder, file):
    file.create_dataset("x", data=["a"] * 4, dtype=h5py.string_dtype())


def compound(folder, file):
    file["x"] = np.zeros(SHAPE, [("a", "u1")])


def never_written(folder, file):
    file.create_dataset("x", SHAPE, np.uint8, chunks=(1, 6, 6, 3))[:3] = PIXELS[:3]


def declared_only(folder, file):
    file.create_dataset("x", SHAPE, np.uint8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (external_storage, "in other files"),
        (external_link, "link or group"),
        (virtual_dataset, "in other files"),
        (soft_link, "link or group"),
        (group, "link or group"),
        (texts, "expected numbers"),
        (compound, "expected numbers"),
        (never_written, "never written"),
        (declared_only, "never written"),
    ],
)
def test_hdf5_that_does_not_hold_its_numbers_itself_is_refused(tmp_path, make, words):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(tmp_path, file)
    with pytest.raises(LayoutError, match=r"a\.h5") as caught:
        hdf5_shape(tmp_path / "a.h5", "x", (None, 6, 6, 3))
    assert words in str(caught.value)


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("options", [{}, {"chunks": (1, 6, 6, 3), "compression": "gzip"}])
def test_plain_hdf5_is_read_and_bytes_behind_it_are_told(tmp_path, version, options):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.create_dataset("x", data=PIXELS, **options)
        file["y"] = np.ones((4, 1, 1, 1), np.uint8)
    with collecting() as notes:
        assert hdf5_shape(path, "x", (None, 6, 6, 3)) == SHAPE
        assert hdf5_rows(path, "y", 4).tolist() == [1, 1, 1, 1]
        with pytest.raises(LayoutError, match=r"4 rows in shape .* for 5 images"):
            hdf5_rows(path, "y", 5)
    assert notes.counts == {}
    path.write_bytes(path.read_bytes() + b"more")
    with collecting() as notes:
        hdf5_shape(path, "x", (None, 6, 6, 3))
    assert notes.counts == {("warning", "longer than its header states"): 1}


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{}, 1], object), "Python objects"),
        (np.zeros(2, [("a", "u1")]), "expected numbers"),
        (np.array(["a", "b"]), "expected numbers"),
        (np.zeros((2, 2)), "shape (2, 2), expected (n)"),
        (np.array(3), "shape ()"),
        (np.zeros(2, "datetime64[s]"), "expected numbers"),
    ],
)
def test_npy_of_other_types_and_shapes_is_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(LayoutError, match=r"a\.npy") as caught:
        open_npy(tmp_path / "a.npy", (None,))
    assert words in str(caught.value)


def test_npy_with_a_damaged_header_or_length_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(50))
    good = path.read_bytes()
    for place in range(128):
        for value in (0, 0x28, 0x39, 0xFF):
            path.write_bytes(good[:place] + bytes([value]) + good[place + 1 :])
            try:
                array = open_npy(path, (None,))
            except LayoutError:
                continue
            assert array.shape == (50,)
    for data in (good[:-1], good + b"x", good[:20], b"", b"PK\x03\x04"):
        path.write_bytes(data)
        with pytest.raises(LayoutError, match=r"a\.npy"):
            open_npy(path, (None,))
    np.savez(path.with_suffix(""), a=np.arange(3))
    path.with_suffix(".npz").rename(path)
    with pytest.raises(LayoutError, match=r"a\.npy"):
        open_npy(path, (None,))


def test_texts_that_are_none_are_refused_and_bytes_decoded(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array(["Breast", "Colon"]))
    assert open_npy(path, (None,), texts=True).tolist() == ["Breast", "Colon"]
    data = bytearray(path.read_bytes())
    data[-1] = 0x7F
    path.write_bytes(data)
    with pytest.raises(LayoutError, match="no text"):
        open_npy(path, (None,), texts=True)
    np.save(path, np.array([b"Breast", b"Colon"]))
    assert open_npy(path, (None,), texts=True).tolist() == ["Breast", "Colon"]


@pytest.mark.parametrize("wrong", [0.7, -1, np.nan, np.inf])
def test_labels_that_are_no_whole_numbers_are_refused(wrong):
    with pytest.raises(LayoutError, match=r"here: holds .*, expected whole numbers"):
        whole_numbers("here", np.array([1, wrong, 2]))
    assert whole_numbers("here", np.array([1.0, 300.0])).tolist() == [1, 300]
