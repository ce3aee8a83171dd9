"""`kvstore serve`: one replica. Its flags are the table of settings."""

import inspect
from pathlib import Path
from typing import Annotated

import typer
from pydantic.fields import FieldInfo
from rich.console import Console

from kvstore.server.config import ENV_PREFIX, ConfigError, Settings
from kvstore.server.config_sources import default_of, flag_of, load, unit_of
from storage.base import StorageError

FAILED = 1
USAGE = 2

_Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", envvar=ENV_PREFIX + "CONFIG", help="TOML file with settings."),
]


def serve(config: _Config = None, **flags: str | None) -> None:
    """Run one replica until SIGTERM or Ctrl-C.

    Each setting comes from its flag, else the environment, else the file after --config, else its default.
    """
    errors = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        settings = load(flags, config)
    except ConfigError as error:
        for problem in error.problems:
            errors.print(f"kvstore: {problem}")
        raise typer.Exit(USAGE) from error
    for warning in settings.warnings():
        errors.print(f"kvstore: warning: {warning}")

    from kvstore.server import process  # noqa: PLC0415 - the commands that are clients start faster without the server

    try:
        process.serve(settings)
    except (StorageError, OSError) as error:
        errors.print(f"kvstore: {error}")
        raise typer.Exit(FAILED) from error


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    default = default_of(field)
    value = f"default {default} {unit_of(field)}".strip() if default else "no default"
    option = typer.Option(
        flag_of(name),
        metavar=(unit_of(field) or "TEXT").upper(),
        help=f"{field.description} ({value}; {ENV_PREFIX}{name.upper()})",
        show_default=False,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _add_flags() -> None:
    """Give `serve` a parameter for each setting: this is what typer reads."""
    flags = [_flag(name, field) for name, field in Settings.model_fields.items()]
    own = inspect.signature(serve)
    parameters = [*(parameter for parameter in own.parameters.values() if parameter.name == "config"), *flags]
    serve.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    serve.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


_add_flags()
