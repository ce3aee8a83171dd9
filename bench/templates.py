"""HTML pages from Jinja templates."""

from pathlib import Path

import jinja2


def render_page(file: Path, **values: object) -> str:
    """Return the page of a template; values are escaped, and a missing one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(file.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(file.name).render(**values)
