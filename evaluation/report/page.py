"""From content to a page on disk: templates, and files that are whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.figures.canvas import theme_css
from evaluation.figures.palette import number
from evaluation.report.headlines import bracket


def render(template: str, **content: Any) -> str:
    """Fill one of the templates; all text is escaped but figures and the theme."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["number"] = number
    environment.filters["bracket"] = bracket
    return environment.get_template(template).render(theme=theme_css(), **content)
