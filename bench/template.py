"""Pages of HTML out of templates."""

from pathlib import Path

import jinja2


def template(file: Path) -> jinja2.Template:
    """The template in `file`. What is put into it is escaped, and what it asks for must be there."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(file.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(file.name)
