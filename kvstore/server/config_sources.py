"""The sources of settings: flags, environment, file and defaults; the messages about invalid settings; their table.

A setting comes from the first of these sources that names it: the flag `--lease-ms`, the environment variable
`KVSTORE_LEASE_MS`, the key `lease_ms` of the TOML file, the default.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from kvstore.api.text_files import NotTextError, text_of
from kvstore.server.config import ENV_PREFIX, ConfigError, Settings, bounds_of

_SECRETS = {"secret", "secret_file"}


def load(flags: Mapping[str, object], file: Path | None) -> Settings:
    """Return the settings from `flags` (None for an absent flag), the environment, `file` and the defaults.

    Raises ConfigError, with one line for each problem.
    """
    layers: list[tuple[Mapping[str, object], Callable[[str], str]]] = [
        (_read_file(file) if file is not None else {}, lambda _: str(file)),
        (EnvSettingsSource(Settings)(), lambda name: ENV_PREFIX + name.upper()),
        ({name: value for name, value in flags.items() if value is not None}, flag_of),
    ]
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for layer, origin in layers:
        if _SECRETS & layer.keys():  # `secret` overrides `secret_file` of an earlier layer, and vice versa
            values = {name: value for name, value in values.items() if name not in _SECRETS}
        values |= layer
        origins |= {name: origin(name) for name in layer}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, origins)) from error


def _read_file(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(text_of(file.read_bytes()))
    except OSError as error:
        raise ConfigError([f"{file} cannot be read ({error.strerror}): correct the path of --config"]) from error
    except NotTextError as error:
        raise ConfigError([f"{file} {error}"]) from error
    except ValueError as error:
        raise ConfigError([f"{file} is not valid TOML: {error}"]) from error
    if not found:
        raise ConfigError([f"{file} has no settings, it may be cut short: write settings, or leave --config away"])
    return found


def explain(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    """Return one line for each problem in `error`. `origins` maps setting names to the sources of their values."""
    lines: list[str] = []
    for problem in error.errors(include_url=False, include_input=False):
        text = str(problem.get("ctx", {}).get("error", problem["msg"])).replace("Input should be", "must be")
        if not problem["loc"]:
            lines += [contradiction + _origins_in(contradiction, origins) for contradiction in text.splitlines()]
            continue
        name = str(problem["loc"][0])
        origin = f" (from {origins[name]})" if name in origins else ""
        if problem["type"] == "extra_forbidden":
            lines.append(f"{name}{origin} is not a setting{_suggestion(name)}")
        else:
            where = "".join(f".{part}" for part in problem["loc"][1:] if part != "[key]")
            lines.append(f"{name}{where}{origin}: {text}")
    return lines


def _origins_in(text: str, origins: Mapping[str, str]) -> str:
    named = [f"{name} from {origin}" for name, origin in origins.items() if re.search(rf"\b{name}\b", text)]
    return f" [{', '.join(named)}]" if named else ""


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.7)
    return f": did you mean {close[0]}?" if close else ": remove it, or see all settings with `kvstore serve --help`"


def flag_of(name: str) -> str:
    """Return the flag of a setting: `--lease-ms` for `lease_ms`."""
    return "--" + name.replace("_", "-")


def default_of(field: FieldInfo) -> str:
    """Return the default as it would be written in a flag; empty if there is none."""
    if isinstance(field.default, dict):
        return ",".join(f"{name}={address}" for name, address in field.default.items())
    return "" if field.default in {None, ()} else str(field.default)


def unit_of(field: FieldInfo) -> str:
    """Return the unit of a number; empty for other settings."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def settings_table() -> str:
    """Return the settings as a Markdown table."""
    rows = [
        f"| `{name}` | {f'`{default}`' if (default := default_of(field)) else ''} | {unit_of(field)} "
        f"| {_allowed(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | default | unit | allowed | meaning |", "|---|---|---|---|---|", *rows])


def _allowed(field: FieldInfo) -> str:
    bounds = bounds_of(field)
    return f"{bounds[0]} to {bounds[1]}" if bounds is not None else ""
