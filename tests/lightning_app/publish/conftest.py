"""A small exported encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.inference.export import export_encoder
from models.network.encoder import Encoder
from tests.support.synthetic_batches import tiny_model


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the export of a resnet18 for images of `SIDE` pixels, as the module has it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    export_encoder(Encoder(tiny_model(encoder="resnet18"), request.module.SIDE), folder)
    return folder
