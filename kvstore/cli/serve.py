"""`kvstore serve`, which has a flag for each setting."""

import inspect
from pathlib import Path
from typing import Annotated

import typer
from pydantic.fields import FieldInfo

from kvstore.cli.exit_status import ExitStatus, fail
from kvstore.server.config import ENV_PREFIX, ConfigError, Settings
from kvstore.server.config_sources import default_of, flag_of, load, unit_of
from storage.base import StorageError

_Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", envvar=ENV_PREFIX + "CONFIG", help="TOML file with settings."),
]


def serve(config: _Config = None, **flags: str | None) -> None:
    """Run one replica until SIGTERM or Ctrl-C.

    A setting is taken from its flag, the environment, the file of --config, or its default, in this order.
    """
    try:
        settings = load(flags, config)
    except ConfigError as error:
        fail("\nkvstore: ".join(error.problems), ExitStatus.USAGE)

    from kvstore.server import process  # noqa: PLC0415 - --help starts faster without the server

    try:
        process.serve(settings)
    except (StorageError, OSError) as error:
        fail(error, ExitStatus.FAILED)


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
    """Add a parameter for each setting to the signature and the annotations of `serve`, where typer reads them."""
    flags = [_flag(name, field) for name, field in Settings.model_fields.items()]
    own = inspect.signature(serve)
    parameters = [*(parameter for parameter in own.parameters.values() if parameter.name == "config"), *flags]
    serve.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    serve.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


_add_flags()
