"""Public histology datasets, from the files as published to one stream of training batches.

`from datamodules import GlaSDataModule` gives a reader as a LightningDataModule; so does every
other reader of the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.base import PathologyDataModule


def __getattr__(name: str) -> type[PathologyDataModule]:
    """Make `<Reader>DataModule` on first use, because importing Lightning takes seconds."""
    from datamodules.registry import READERS

    keys = {target.partition(":")[2]: key for key, target in READERS.items()}
    key = keys.get(name.removesuffix("DataModule"))
    if key is None or not name.endswith("DataModule"):
        raise AttributeError(f"module 'datamodules' has no attribute '{name}'")
    from datamodules.base import PathologyDataModule

    module = type(name, (PathologyDataModule,), {"key": key, "__module__": __name__})
    globals()[name] = module
    return module
