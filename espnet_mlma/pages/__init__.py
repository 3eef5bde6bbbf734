"""Templates of the HTML pages: one file each, without network or script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import jinja2


def render_page(name: str, filters: Mapping[str, Callable], **context: object) -> str:
    """Render a page.

    Args:
        name: `compare` or `report`, of the template and the style sheet.
        filters: of the template, by name.
        context: variables of the template, `title` among them.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(f"{name}.html").render(style=f"{name}.css", **context)
