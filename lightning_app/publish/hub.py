"""Export of a finished run in the layout of timm and the Hugging Face hub, and its upload."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from safetensors import SafetensorError
from timm.models import save_for_hf

from datamodules.core.atomic import atomic_folder
from datamodules.core.errors import ConfigError, DiskError, WeightsError
from lightning_app.publish.model_card import CARD_FILE, loading_lines
from models.inference.export import FACTS_FILE
from models.inference.loading import load_encoder

# The licence of the weights follows from the data; the card itself states the terms.
_FRONT_MATTER = """---
library_name: timm
pipeline_tag: image-feature-extraction
license: other
license_name: terms-of-the-training-data
tags: [timm, histology, pathology, feature-extraction]
---
"""


def write_hub_folder(run: Path, folder: Path, name: str = "") -> Path:
    """Write `config.json`, `model.safetensors`, `encoder.json` and `README.md`; return the folder.

    `timm.create_model("local-dir:<folder>", pretrained=True)` loads the encoder, and
    `timm.create_model("hf-hub:<owner>/<name>", pretrained=True)` does after the upload.

    Args:
        run: folder of a finished run.
        folder: folder to write; must be new or empty.
        name: "owner/name" on the hub, for the card; empty if there is none.

    Raises:
        ConfigError: the folder is not empty, or the run has no model card.
        DiskError: the disk is full or refuses writing.
        WeightsError: the run has no export, or a damaged one.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--out {folder}: holds files already; name a new folder")
    if not (run / CARD_FILE).is_file():
        raise ConfigError(f"{run}: not a finished run (it holds no {CARD_FILE})")
    model = load_encoder(run).model.to(memory_format=torch.contiguous_format)
    facts = json.loads((run / FACTS_FILE).read_text(encoding="utf-8"))
    data = {
        "input_size": (3, facts["input_size"], facts["input_size"]),
        **{key: facts[key] for key in ("mean", "std", "interpolation")},
        "crop_pct": 1.0,
    }
    source = f"hf-hub:{name}" if name else f"local-dir:{folder.name}"
    loading = (
        f"import timm\nencoder = timm.create_model({json.dumps(source)}, pretrained=True).eval()\n"
    )
    card = (run / CARD_FILE).read_text(encoding="utf-8").replace(loading_lines(facts), loading)
    with atomic_folder(folder) as partial:
        try:
            save_for_hf(model, str(partial), safe_serialization=True, data_config=data)
        except SafetensorError as error:
            raise DiskError(f"{folder}: the weights cannot be written ({error})") from error
        (partial / "README.md").write_text(_FRONT_MATTER + card, encoding="utf-8")
        shutil.copyfile(run / FACTS_FILE, partial / FACTS_FILE)
    return folder


def check_name(name: str) -> None:
    """Check that a repository name is "owner/name".

    Raises:
        ConfigError: it is not.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--push {name}: {str(error).splitlines()[0]}") from error
    if "/" not in name:
        raise ConfigError(f"--push {name}: give owner/name")


def push(folder: Path, name: str, private: bool) -> str:
    """Upload a folder of `write_hub_folder`; return the address of the commit.

    A missing repository is created, as a private one if requested.

    Raises:
        WeightsError: no access token, or the hub refuses or cannot be reached.
    """
    api = HfApi(library_name="timm")
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Add encoder")
    except LocalTokenNotFoundError as error:
        raise WeightsError(
            f"--push {name}: no access token; run `hf auth login` or set HF_TOKEN"
        ) from error
    except (HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"--push {name}: {reason}; {folder} is complete and can be uploaded later"
        ) from error
    return str(commit.commit_url)
