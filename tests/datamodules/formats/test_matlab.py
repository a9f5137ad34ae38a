"""MATLAB files: what MATLAB and SciPy write is read, and damage is refused without a crash."""

import io

import numpy as np
import pytest
import scipy.io

from datamodules.core.errors import LayoutError
from datamodules.formats.matlab import read_mat, write_mat

ARRAYS = {
    "inst_map": np.arange(12.0).reshape(3, 4),
    "type_map": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "small": np.array([[7]], np.int16),
    "none": np.zeros((0, 0)),
    "stack": np.arange(24, dtype=np.int32).reshape(2, 3, 4),
}


@pytest.mark.parametrize("packed", [False, True])
def test_arrays_are_read_as_scipy_writes_them(tmp_path, packed):
    path = tmp_path / "a.mat"
    held = io.BytesIO()
    other = {"text": "abc", "cells": np.array([[1], "b"], object), "fields": {"x": 1}}
    scipy.io.savemat(held, {**other, **ARRAYS, "flag": np.array([[True]])}, do_compression=packed)
    path.write_bytes(held.getvalue())
    found = read_mat(path, *ARRAYS, "flag")
    for array, expected in zip(found, [*ARRAYS.values(), [[1]]], strict=True):
        np.testing.assert_array_equal(array, expected)


def test_big_endian_files_are_read(tmp_path):
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI"
    values = np.array([3, 5], ">u2").tobytes()
    parts = [(6, b"\0\0\0\6\0\0\0\0"), (5, b"\0\0\0\2\0\0\0\1"), (1, b"ids"), (4, values)]
    body = b"".join(
        number.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data.ljust(8, b"\0")
        for number, data in parts
    )
    (tmp_path / "b.mat").write_bytes(head + b"\0\0\0\x0e" + len(body).to_bytes(4, "big") + body)
    assert read_mat(tmp_path / "b.mat", "ids")[0].tolist() == [[3], [5]]


def test_the_same_arrays_give_the_same_bytes_which_scipy_reads(tmp_path):
    for name in ("a.mat", "b.mat"):
        write_mat(tmp_path / name, ARRAYS)
    assert (tmp_path / "a.mat").read_bytes() == (tmp_path / "b.mat").read_bytes()
    np.testing.assert_array_equal(
        scipy.io.loadmat(tmp_path / "a.mat")["inst_map"], ARRAYS["inst_map"]
    )


@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_refused_by_name_or_changes_values_only(tmp_path, packed):
    held = io.BytesIO()  # SciPy's own reader crashes on some of these
    scipy.io.savemat(held, ARRAYS, do_compression=packed)
    whole, rng, path = held.getvalue(), np.random.default_rng(0), tmp_path / "a.mat"
    refused = 0
    for number in range(300):
        data = bytearray(whole)
        for place in rng.integers(124, len(data), 1 + number % 4):
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data[: int(rng.integers(len(data)))] if number % 3 == 0 else data)
        try:
            read_mat(path, *ARRAYS)
        except LayoutError as error:
            refused += 1
            assert "a.mat" in str(error)
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"other": np.ones((2, 2))}, "no array of numbers 'ids'"),
        ({"ids": "text"}, "no array of numbers 'ids'"),
        ({"ids": np.ones((2, 2)) * 1j}, "no array of numbers 'ids'"),
    ],
)
def test_arrays_that_are_missing_or_no_numbers_are_named(tmp_path, content, problem):
    write_mat(tmp_path / "a.mat", content)
    with pytest.raises(LayoutError, match=problem):
        read_mat(tmp_path / "a.mat", "ids")


def test_version_73_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600))
    with pytest.raises(LayoutError, match="save it in MATLAB with the option '-v7'"):
        read_mat(tmp_path / "a.mat", "ids")
