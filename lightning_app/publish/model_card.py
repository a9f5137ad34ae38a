"""The model card: everything that a user needs to know about a trained encoder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datamodules.core.atomic import write_text
from datamodules.core.errors import one_line
from models.inference.export import FACTS_FILE, WEIGHTS_FILE

CARD_FILE = "MODEL_CARD.md"
_SPLITS = {"test": "published test split", "val": "validation, held out of training"}
_BASES = {"imagenet": "ImageNet weights", "random": "random weights"}


def write_model_card(
    folder: Path,
    origin: Mapping[str, Any],
    scores: Mapping[str, float],
    splits: Mapping[str, str],
) -> Path:
    """Write `MODEL_CARD.md` beside an exported encoder and return its path.

    Args:
        folder: folder with `encoder.safetensors` and `encoder.json`.
        origin: provenance of the run.
        scores: scores of the final weights by "dataset/task/metric".
        splits: "test" or "val" by dataset: the images behind the scores.
    """
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    trained = {name: d for name, d in origin["datasets"].items() if d["role"] == "train"}
    by_task: dict[tuple[str, str], list[str]] = {}
    for key, value in scores.items():
        dataset, task, metric = key.split("/")
        by_task.setdefault((dataset, task), []).append(f"{metric} {value:.3f}")
    weights = str(origin["weights"])
    start = one_line(Path(weights).name).replace("`", "'")
    text = _template().render(
        facts=facts,
        origin=origin,
        trained=trained,
        synthetic=any(dataset["synthetic"] for dataset in trained.values()),
        base=_BASES.get(weights) or _Markdown(f"the weights in `{start}`"),
        loading=_Markdown(loading_lines(facts)),
        scores=by_task,
        splits={name: _SPLITS[split] for name, split in splits.items()},
    )
    write_text(folder / CARD_FILE, text)
    return folder / CARD_FILE


def loading_lines(facts: Mapping[str, Any]) -> str:
    """Return three lines of Python that load the export from its own folder."""
    kwargs = "".join(f", {key}={value!r}" for key, value in facts["model_kwargs"].items())
    return (
        "import timm, safetensors.torch\n"
        f'encoder = timm.create_model("{facts["timm_name"]}", num_classes=0{kwargs}).eval()\n'
        f'encoder.load_state_dict(safetensors.torch.load_file("{WEIGHTS_FILE}"))\n'
    )


class _Markdown(str):
    """A text that is Markdown already."""


def _plain(value: Any) -> Any:
    """Escape what Markdown or HTML would take for markup in a text of a user or publisher."""
    if not isinstance(value, str) or isinstance(value, _Markdown):
        return value
    return re.sub(r"([\\`*\[\]<>|&~])", r"\\\1", one_line(value))


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["numbers"] = lambda values: ", ".join(f"{value:g}" for value in values)
    return environment.get_template("model_card.md.j2")
