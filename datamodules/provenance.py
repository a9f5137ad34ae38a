"""Where the rows of a store come from, looked up without holding all names in memory."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.records import SPLITS
from datamodules.store import Store


class Provenance:
    """Source, group and split of a store's rows.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        with h5py.File(store.path, "r") as file:
            self._source: NDArray[np.int32] = file["source"][:]
            self.source_count = len(file["sources"])

    def sources(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Source of each row, relative to the dataset's folder."""
        wanted, back = np.unique(self._source[np.asarray(rows, np.int64)], return_inverse=True)
        with h5py.File(self.store.path, "r") as file:
            names = file["sources"].asstr()[wanted]
        return [str(names[position]) for position in back]

    def where(self, row: int) -> str:
        """How a row is named in a report."""
        return f"{self.sources([row])[0]} (row {row})"

    def group(self, row: int) -> str:
        """Patient, slide or case of a row."""
        return self.store.group_names[int(self.store.group[row])]

    def split(self, row: int) -> str:
        """Published split of a row."""
        return SPLITS[int(self.store.split[row])]
