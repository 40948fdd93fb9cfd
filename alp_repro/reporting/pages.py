"""Renders HTML pages that need no other file and no network, in one style."""

from __future__ import annotations

from typing import Any

import jinja2


def render_page(package: str, template: str, **values: Any) -> str:
    """Render a template of a package, which may include `style.css`, the style of all pages."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("alp_repro.reporting")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
