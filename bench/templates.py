"""HTML pages from Jinja templates."""

from pathlib import Path

import jinja2


def render_page(file: Path, **values: object) -> str:
    """Render the template `file`. Values are escaped; a missing value is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(file.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(file.name).render(**values)
