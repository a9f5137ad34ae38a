"""How encoders are called and coloured, the same in every figure and table.

Colours are of Okabe and Ito's set for colour-blind readers ("Color Universal Design", 2008),
darkened where needed so that a label in that colour is legible on white; each has a lighter
partner for dark pages. A marker goes with each, so that nothing hangs on colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Look:
    """How one encoder is drawn.

    Attributes:
        name: as people read it.
        slot: CSS variable of its colour.
        colour: on white.
        marker: matplotlib marker.
    """

    name: str
    slot: str
    colour: str
    marker: str


SLOTS = (
    ("--series-1", "#0067a6", "#5ab6ec", "o"),
    ("--series-2", "#b84a00", "#f28a4b", "s"),
    ("--series-3", "#00795a", "#35c79b", "^"),
    ("--series-4", "#97467b", "#e29cc4", "D"),
    ("--series-5", "#7a5c00", "#e3b93d", "v"),
    ("--series-6", "#4a4f8f", "#a5abf0", "P"),
)
"""(CSS variable, colour on white, colour on dark, marker)."""

INK, MUTED, GRID = "#1f2430", "#616875", "#dfe2e8"
NEUTRALS = (
    ("--ink", INK, "#e8eaf0"),
    ("--muted", MUTED, "#a0a7b5"),
    ("--grid", GRID, "#343a48"),
)
"""(CSS variable, colour on white, colour on dark) of text and lines."""

_SOURCES = {"imagenet": "ImageNet", "random": "random weights"}


def looks(encoders: Sequence[str], baseline: str | None) -> dict[str, Look]:
    """The look of each encoder: blue for the study's own, orange for the baseline, green random.

    Args:
        encoders: names, the study's own first.
        baseline: name of the baseline.
    """
    fixed: dict[str, int] = {}
    for encoder in encoders:
        if encoder == baseline:
            fixed[encoder] = 1
        elif encoder.startswith("random:"):
            fixed.setdefault(encoder, 2)
    free = [slot for slot in (0, 3, 4, 5) if slot not in fixed.values()]
    found = {}
    names = display_names(encoders)
    for encoder in encoders:
        slot = fixed.get(encoder)
        if slot is None:
            slot = free.pop(0) if free else 5
        variable, light, _, marker = SLOTS[slot]
        found[encoder] = Look(names[encoder], variable, light, marker)
    return found


def display_names(encoders: Sequence[str]) -> dict[str, str]:
    """Short names; the architecture is named only where several share their source."""
    short: dict[str, str] = {}
    for encoder in encoders:
        source, _, architecture = encoder.partition(":")
        alone = sum(other.startswith(f"{source}:") for other in encoders) == 1
        if architecture and source in _SOURCES:
            short[encoder] = _SOURCES[source] if alone else f"{_SOURCES[source]} {architecture}"
        else:
            short[encoder] = encoder.rstrip("/").rsplit("/", 1)[-1]
    own = [encoder for encoder in encoders if encoder.partition(":")[0] not in _SOURCES]
    if len(own) == 1:
        short[own[0]] = "this encoder"
    return short


def number(value: float, percent: bool, signed: bool = False) -> str:
    """A score as people read it: 75.2 for a percentage, else four decimals below ten."""
    shown = 100 * value if percent else value
    digits = 1 if percent else (4 if abs(shown) < 10 else 2)
    text = f"{shown:+.{digits}f}" if signed else f"{shown:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")
