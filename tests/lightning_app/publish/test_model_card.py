"""The model card agrees with export and provenance, and its loading code works."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt

from lightning_app.publish.model_card import write_model_card
from models.inference.export import export_encoder
from models.network.encoder import Encoder
from tests.support.synthetic_batches import tiny_model

SCORES = {"glands/outline/dice": 0.81234, "glands/outline/miou": 0.7}
SPLITS = {"glands": "test", "other": "val"}


def described(**changes: Any) -> dict[str, Any]:
    return {
        "title": "Glands of the colon | 2015",
        "licence": "CC BY 4.0",
        "digest": "0123456789abcdef",
        "images": 321,
        "groups": 9,
        "mpp": 0.5,
        "synthetic": False,
        "tasks": {"outline": "segmentation"},
        "role": "train",
        **changes,
    }


def origin(**datasets: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": "pretrain",
        "commit": "abc123+",
        "versions": {"python": "3.11.9", "torch": "2.15.0"},
        "weights": "imagenet",
        "datasets": datasets,
        "licence_line": "weights trained on non-commercial data: glands",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    export_encoder(Encoder(tiny_model(encoder="coatnet_nano_rw_224"), 96), tmp_path)
    return tmp_path


def test_a_card_lists_data_licences_scores_and_provenance(folder):
    unseen = described(title="Never seen", role="unseen")
    path = write_model_card(folder, origin(glands=described(), other=unseen), SCORES, SPLITS)
    text = path.read_text(encoding="utf-8")
    assert path == folder / "MODEL_CARD.md"
    assert (
        "| Glands of the colon \\| 2015 | outline (segmentation) | 321 | 0.5 | CC BY 4.0 | "
        "`glands` 0123456789ab |"
    ) in text
    assert "Never seen" not in text
    assert "Terms: weights trained on non-commercial data: glands." in text
    assert "| glands | published test split | outline | dice 0.812, miou 0.700 |" in text
    assert "ImageNet weights" in text
    assert "python 3.11.9, torch 2.15.0" in text and "abc123+" in text
    facts = json.loads((folder / "encoder.json").read_text())
    assert facts["digest"] in text
    assert "RGB, 96 x 96 px" in text and ", ".join(f"{v:g}" for v in facts["mean"]) in text


def test_the_loading_code_of_a_card_works(folder, monkeypatch):
    card = write_model_card(folder, origin(glands=described()), SCORES, SPLITS)
    (lines,) = re.findall(r"```python\n(.*?)```", card.read_text(), flags=re.DOTALL)
    assert len(lines.splitlines()) == 3
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(lines, names)
    with torch.inference_mode():
        assert names["encoder"](torch.zeros(1, 3, 96, 96)).shape == (1, 512)


@pytest.mark.parametrize("synthetic", [False, True])
def test_a_card_warns_of_synthetic_training_data_but_not_of_synthetic_probes(folder, synthetic):
    datasets = {"glands": described(synthetic=synthetic), "probe": described(role="unseen")}
    text = write_model_card(folder, origin(**datasets), {}, {}).read_text()
    assert ("SYNTHETIC" in text) is synthetic
    assert "Nothing was held out to score." in text


def test_initial_weights_from_a_file_are_named_without_their_folder(folder):
    facts = {**origin(glands=described()), "weights": "/home/somebody/start.safetensors"}
    text = write_model_card(folder, facts, {}, {}).read_text()
    assert "`start.safetensors`" in text
    assert "/home/somebody" not in text


def test_a_card_tells_of_leaking_splits_beside_the_scores(folder):
    caution = "1 group (patient) lies in train and in test: a | b; 50% of the test patches"
    told = origin(glands=described(cautions=[caution]), other=described(cautions=[]))
    text = write_model_card(folder, told, SCORES, SPLITS).read_text()
    scores = text.partition("## Scores")[2].partition("## Provenance")[0]
    assert "\n- glands: 1 group (patient) lies in train and in test: a \\| b; 50% of" in scores
    assert "\n- other" not in scores


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "[click](https://example.org)",
        "![](https://example.org/x.png)",
        "a | b",
        "`code` *bold* ~~gone~~",
        "&lt;b&gt; \\* <!-- comment -->",
    ],
)
def test_titles_and_licences_are_no_markup_in_a_card(folder, text):
    told = origin(glands=described(title=text, licence=text, cautions=[text]))
    told |= {"licence_line": text, "title": text}
    card = write_model_card(folder, told, SCORES, SPLITS).read_text()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(card)
    inline = [child for token in tokens for child in token.children or []]
    found = {child.type for child in inline} | {token.type for token in tokens}
    assert not found & {"html_inline", "html_block", "link_open", "image", "em_open", "s_open"}
    shown = ["".join(c.content for c in token.children or []) for token in tokens]
    assert sum(text in line for line in shown) == 5  # title, licence, terms, caution, run


def test_a_line_break_in_a_title_starts_no_section(folder):
    told = origin(glands=described(title="glands\n\n# A heading"))
    card = write_model_card(folder, told, SCORES, SPLITS).read_text()
    assert "| glands\\\\n\\\\n# A heading |" in card
