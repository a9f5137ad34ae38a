"""The model card: what somebody must know who is handed a trained encoder and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.core.atomic import write_text
from models.inference.export import FACTS_FILE, WEIGHTS_FILE

CARD_FILE = "MODEL_CARD.md"
_SYNTHETIC = (
    "> **SYNTHETIC: this encoder was trained on tissue drawn by a program.** It shows that the\n"
    "> chain works; it is not fit for any use on real images.\n"
)
_SPLITS = {"test": "published test split", "val": "validation, held out of training"}
_BASES = {
    "imagenet": "ImageNet weights",
    "random": "random weights",
}


def write_model_card(
    folder: Path,
    origin: Mapping[str, Any],
    scores: Mapping[str, float],
    splits: Mapping[str, str],
) -> Path:
    """Write `MODEL_CARD.md` beside an exported encoder.

    Args:
        folder: with `encoder.safetensors` and `encoder.json`.
        origin: provenance of the run.
        scores: of the final weights, by "dataset/task/metric".
        splits: by dataset, whether they are of "test" or "val" images.

    Returns:
        Path of the card.
    """
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    trained = {name: of for name, of in origin["datasets"].items() if of["role"] == "train"}
    sections = [
        f"# {facts['timm_name']}, pretrained on histology\n",
        *([_SYNTHETIC] if any(dataset["synthetic"] for dataset in trained.values()) else []),
        _what(facts, origin, len(trained)),
        _loading(facts),
        _input(facts),
        _data(trained, origin["licence_line"]),
        _scores(scores, splits),
        _provenance(facts, origin),
    ]
    path = folder / CARD_FILE
    write_text(path, "\n".join(sections))
    return path


def _what(facts: Mapping[str, Any], origin: Mapping[str, Any], datasets: int) -> str:
    weights = str(origin["weights"])
    base = _BASES.get(weights, f"the weights in `{Path(weights).name}`")
    return (
        f"An image encoder (timm `{facts['timm_name']}`, embeddings of {facts['embedding_dim']} "
        f"numbers) for H&E-stained tissue. It started from {base} and was trained on "
        f"{datasets} datasets at once, each with heads of its own, which are not part of it. "
        "It is meant for research: as frozen features, or as a start for fine-tuning. "
        "It is no medical device.\n"
    )


def loading_lines(facts: Mapping[str, Any]) -> str:
    """Three lines of Python that load the export from its own folder."""
    kwargs = "".join(f", {key}={value!r}" for key, value in facts["model_kwargs"].items())
    return (
        "import timm, safetensors.torch\n"
        f'encoder = timm.create_model("{facts["timm_name"]}", num_classes=0{kwargs}).eval()\n'
        f'encoder.load_state_dict(safetensors.torch.load_file("{WEIGHTS_FILE}"))\n'
    )


def _loading(facts: Mapping[str, Any]) -> str:
    return f"## Loading\n\n```python\n{loading_lines(facts)}```\n"


def _input(facts: Mapping[str, Any]) -> str:
    mean, std = (", ".join(f"{v:g}" for v in facts[key]) for key in ("mean", "std"))
    side = facts["input_size"]
    return (
        "## Input\n\n"
        f"RGB, {side} x {side} px, resized with {facts['interpolation']} interpolation, values "
        f"from 0 to 1, then per channel mean {mean} subtracted and divided by {std}.\n"
    )


def _data(trained: Mapping[str, Mapping[str, Any]], licence_line: str) -> str:
    rows = [
        f"| {_cell(dataset['title'])} | {_tasks(dataset)} | {dataset['images']} | "
        f"{_resolution(dataset['mpp'])} | {_cell(dataset['licence'])} | "
        f"`{name}` {dataset['digest'][:12]} |"
        for name, dataset in trained.items()
    ]
    head = "| dataset | tasks | patches | um/px | licence | store |\n|---|---|---|---|---|---|"
    table = "\n".join([head, *rows])
    return f"## Training data\n\n{table}\n\nTerms: {licence_line}.\n"


def _tasks(dataset: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in dataset["tasks"].items())


def _resolution(mpp: float) -> str:
    return f"{mpp:.3g}" if mpp else "unknown"


def _scores(scores: Mapping[str, float], splits: Mapping[str, str]) -> str:
    """One row per task."""
    rows: dict[tuple[str, str], list[str]] = {}
    for key, value in scores.items():
        dataset, task, metric = key.split("/")
        rows.setdefault((dataset, task), []).append(f"{metric} {value:.3f}")
    if not rows:
        return "## Scores\n\nNothing was held out to score.\n"
    head = "| dataset | images | task | scores after training |\n|---|---|---|---|"
    lines = [
        f"| {name} | {_SPLITS[splits[name]]} | {task} | {', '.join(found)} |"
        for (name, task), found in rows.items()
    ]
    return "\n".join(["## Scores\n", head, *lines, ""])


def _provenance(facts: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    return (
        "## Provenance\n\n"
        f"- Run: {origin['title']}\n"
        f"- Commit: {origin['commit'] or 'unknown'} (a plus sign: with uncommitted changes)\n"
        f"- Versions: {versions}\n"
        f"- Weights: sha256 {facts['digest']} over names, types, shapes and values\n"
    )


def _cell(text: str) -> str:
    """A pipe would end the table's cell."""
    return text.replace("|", "\\|")
