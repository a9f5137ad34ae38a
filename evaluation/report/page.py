"""Renders pages from templates."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.config import TITLES
from evaluation.figures.canvas import NEUTRALS, SLOTS, display_names, number
from evaluation.report.headlines import baseline_title, bracket


def render(template: str, **content: Any) -> str:
    """Fill one of the templates; all text is escaped except markup and the theme."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": number, "bracket": bracket, "names": display_names}
    environment.filters |= {"baseline_title": baseline_title, "predictor_title": TITLES.get}
    return environment.get_template(template).render(theme=_theme(), **content)


def _theme() -> str:
    """Return the palette as CSS variables, for light and dark pages."""
    palette = [(name, light, dark) for name, light, dark, _ in SLOTS] + list(NEUTRALS)
    light = "".join(f"{name}:{colour};" for name, colour, _ in palette)
    dark = "".join(f"{name}:{colour};" for name, _, colour in palette)
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"
