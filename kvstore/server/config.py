"""The settings of a replica: one table, from which flags, environment, file and documentation are made.

A setting comes from the first of these that names it: the flag `--lease-ms`, the environment's `KVSTORE_LEASE_MS`, the
key `lease_ms` of the TOML file, the default.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kvstore.replica import retention
from kvstore.server.http.limits import HttpLimits
from paxos.options import Options
from paxos.wire import MAX_MESSAGE_BYTES

_PROTOCOL, _FRONT_END, _RETENTION = Options(), HttpLimits(), retention.Limits()
"""Who has a setting has its default."""

ENV_PREFIX = "KVSTORE_"
MIN_SECRET_LENGTH = 16
FRAME_ROOM_BYTES = 64 * 1024
"""Left in a frame for keys, request ids and what else stands around the values."""

_SECRETS = {"secret", "secret_file"}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - recognised here, bound only where somebody asks for it


class ConfigError(Exception):
    """Settings that cannot be used. `problems` has one line for each: which, from where, what is wrong, what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Address(NamedTuple):
    """Where something listens. An IPv6 host is written in brackets: `[::1]:9001`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def overlaps(self, other: "Address") -> bool:
        """True when one machine cannot listen on both."""
        same_host = self.host == other.host or bool(_WILDCARDS & {self.host, other.host})
        return self.port == other.port and same_host


def parse_address(text: str) -> Address:
    """The Address in `host:port`. Raises ValueError."""
    host, _, port = text.strip().rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not an address: write host:port with a port of 1 to 65535, like 127.0.0.1:9001")
    return Address(host, int(port))


def _parse_listen(text: object) -> object:
    """Anything but text is handed on to the type's own validation."""
    return parse_address(text) if isinstance(text, str) else text


def _parse_members(text: object) -> object:
    if not isinstance(text, str):
        return text
    members: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, address = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not a member: write name=host:port, with commas between members")
        if name.strip() in members:
            raise ValueError(f"two members are named {name.strip()!r}: give each a name of its own")
        members[name.strip()] = address
    return members


def check_name(name: str) -> str:
    """`name`, if it can be the name of a member. Raises ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a name: use 1 to 32 of a-z, 0-9, '.', '_' and '-', with a letter or digit in front"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
Listen = Annotated[Address, BeforeValidator(_parse_listen)]
Members = Annotated[dict[Name, Listen], BeforeValidator(_parse_members)]


def _number(default: int, unit: str, least: int, most: int, description: str) -> Any:
    return Field(default, ge=least, le=most, json_schema_extra={"unit": unit}, description=description)


class Settings(BaseSettings):
    """What one replica is told. Made directly it reads nothing but its arguments; `load` reads all the places.

    Raises pydantic.ValidationError on values out of bounds and on settings that contradict each other.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,  # text in the environment has the same form as text in a flag, never JSON
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    node: Name = Field("n1", description="name of this replica among the members")
    cluster: Name = Field("kvstore", description="name of the cluster; replicas of another one are refused")
    members: Members = Field(
        {"n1": Address("127.0.0.1", 9001)},
        min_length=1,
        description="every voter and the address of its peer listener: `n1=127.0.0.1:9001,n2=...`; a table in the file",
    )
    join: bool = Field(
        False,
        description="true for a replica that joins a cluster which runs: members is then whom to take links from, and "
        "the cluster's own word counts from the first contact on",
    )
    listen: Listen = Field(Address("127.0.0.1", 8001), description="where clients are served, over HTTP")
    peer_listen: Listen | None = Field(
        None,
        description="where peers are served, if not at the own address in `members`: `0.0.0.0:9001` in a container",
    )
    data: Path = Field(Path("kvstore-data"), description="directory of this replica's data; made when it is absent")
    secret: SecretStr | None = Field(
        None,
        description=f"shared by all members, {MIN_SECRET_LENGTH} characters at least; needed when there are several",
    )
    secret_file: Path | None = Field(None, description="file that holds the secret, instead of `secret`")
    heartbeat_ms: int = _number(_PROTOCOL.heartbeat_ms, "ms", 5, 60_000, "time between two heartbeats of a leader")
    lease_ms: int = _number(
        _PROTOCOL.lease_ms,
        "ms",
        20,
        600_000,
        "how long a leader serves reads alone after a majority answered; a failover takes about as long",
    )
    clock_drift_ppm: int = _number(
        _PROTOCOL.clock_drift_ppm,
        "ppm",
        0,
        500_000,
        "bound on the difference between the rates of two members' clocks, per million",
    )
    election_jitter_ms: int = _number(
        _PROTOCOL.election_jitter_ms,
        "ms",
        1,
        60_000,
        "random delay of a candidacy up to this long, so that two seldom collide",
    )
    stall_ms: int = _number(
        _PROTOCOL.stall_ms, "ms", 20, 600_000, "a leader whose own disk or commits stand still for this long steps down"
    )
    request_timeout_ms: int = _number(
        2500, "ms", 50, 600_000, "a request without an answer ends after this time with an error"
    )
    max_value_bytes: int = _number(_FRONT_END.max_value_bytes, "bytes", 1, MAX_MESSAGE_BYTES, "longest value")
    max_batch_bytes: int = _number(
        _PROTOCOL.max_batch_bytes,
        "bytes",
        1024,
        MAX_MESSAGE_BYTES,
        "a batch that has reached this size takes no further command",
    )
    max_in_flight: int = _number(
        _FRONT_END.max_in_flight,
        "requests",
        1,
        1_000_000,
        "requests that one replica works on at once; more are refused with 429",
    )
    quota_bytes: int = _number(
        2 << 30,
        "bytes",
        1024,
        1 << 50,
        "keys and values that the store holds at most, with 64 bytes for each; above it a PUT is refused with 507",
    )
    log_slots: int = _number(
        _RETENTION.log_slots,
        "slots",
        1,
        1_000_000_000,
        "how many applied slots the log keeps at most; a peer that lags further behind is sent the state",
    )
    history_revisions: int = _number(
        _RETENTION.history_revisions,
        "revisions",
        0,
        1_000_000_000,
        "how many of the latest revisions are remembered: for reads of the past, and for watches that begin there",
    )
    history_age_ms: int = _number(
        _RETENTION.history_age_ms, "ms", 0, 10**12, "how long a revision is remembered at most"
    )
    window: int = _number(_PROTOCOL.window, "slots", 1, 4096, "slots that a leader has under way at once")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is logged")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only: `load` puts the places in order, and knows from which of them a value came."""
        return (init_settings,)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        problems = [*_membership_problems(self), *_timing_problems(self), *_secret_problems(self)]
        room = MAX_MESSAGE_BYTES - FRAME_ROOM_BYTES
        if self.max_value_bytes + self.max_batch_bytes > room:
            problems.append(
                f"max_value_bytes ({self.max_value_bytes}) and max_batch_bytes ({self.max_batch_bytes}) together must "
                f"fit one frame between peers: make them {room} or less in sum"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def peer_bind(self) -> Address:
        """Where this replica listens for its peers."""
        return self.peer_listen or self.members[self.node]

    def shared_secret(self) -> bytes:
        """The secret that peers prove to each other; empty only for a lone member that was given none: it has no peer
        to talk to. Raises OSError when `secret_file` cannot be read."""
        if self.secret is not None:
            return self.secret.get_secret_value().encode()
        return self.secret_file.read_bytes().strip() if self.secret_file is not None else b""

    def warnings(self) -> list[str]:
        """What is allowed and hardly meant, a line each with what to do."""
        return voters_warnings(len(self.members))


def voters_warnings(voters: int) -> list[str]:
    """What is to be said about this number of voters: nothing when it is odd."""
    if voters % 2:
        return []
    return [
        (
            f"{voters} voters tolerate as many failures as {voters - 1} would, {(voters - 1) // 2}, and each write "
            f"waits for one voter more: use {voters - 1} or {voters + 1} members"
        )
    ]


def _membership_problems(settings: Settings) -> Iterator[str]:
    members = settings.members
    if settings.node not in members:
        yield f"node {settings.node!r} is not in members ({', '.join(members)}): name one of them, or add it to members"
        return
    owners: dict[Address, str] = {}
    for name, address in members.items():
        other = owners.setdefault(address, name)
        if other != name:
            yield f"members {other} and {name} have one address, {address}: give each a host or a port of its own"
    if settings.listen in owners:
        yield (
            f"listen is {settings.listen}, which members gives to the peers of {owners[settings.listen]}: "
            "clients and peers need two ports"
        )
    elif settings.listen.overlaps(settings.peer_bind):
        yield (
            f"clients (listen, {settings.listen}) and peers (peer_listen or the own address in members, "
            f"{settings.peer_bind}) have one port: give them two"
        )


def _timing_problems(settings: Settings) -> Iterator[str]:
    heartbeat_ms, lease_ms, stall_ms = settings.heartbeat_ms, settings.lease_ms, settings.stall_ms
    if lease_ms < 3 * heartbeat_ms:
        yield (
            f"lease_ms ({lease_ms}) must be at least three times heartbeat_ms ({heartbeat_ms}), or one late heartbeat "
            f"ends the lease: raise lease_ms to {3 * heartbeat_ms} or lower heartbeat_ms to {lease_ms // 3}"
        )
    if stall_ms < lease_ms:
        yield (
            f"stall_ms ({stall_ms}) must not be shorter than lease_ms ({lease_ms}), nobody could take over earlier: "
            f"raise stall_ms to {lease_ms} or more"
        )


def _secret_problems(settings: Settings) -> Iterator[str]:
    if settings.secret is not None and settings.secret_file is not None:
        yield "secret and secret_file are both given: keep one of them"
        return
    if settings.secret is None and settings.secret_file is None:
        if len(settings.members) > 1:
            yield (
                f"secret is needed with {len(settings.members)} members: give all of them the same secret or "
                "secret_file, for instance from `openssl rand -hex 32`"
            )
        return
    try:
        length = len(settings.shared_secret())
    except OSError as error:
        yield f"secret_file {settings.secret_file} cannot be read ({error.strerror}): make it, or correct the path"
        return
    if length < MIN_SECRET_LENGTH:
        which = "secret_file" if settings.secret is None else "secret"
        yield (
            f"{which} has {length} characters, at least {MIN_SECRET_LENGTH} are needed: take one from "
            "`openssl rand -hex 32`"
        )


def load(flags: Mapping[str, object], file: Path | None) -> Settings:
    """Settings out of `flags` (by the settings' names; None means not given), the environment, `file` and defaults.

    Raises ConfigError, which has a line for each problem.
    """
    layers: list[tuple[Mapping[str, object], Callable[[str], str]]] = [
        (_read_file(file) if file is not None else {}, lambda _: str(file)),
        (EnvSettingsSource(Settings)(), lambda name: ENV_PREFIX + name.upper()),
        ({name: value for name, value in flags.items() if value is not None}, flag_of),
    ]
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for layer, origin in layers:
        if _SECRETS & layer.keys():  # two forms of one setting: the nearer place counts, whichever form it uses
            values = {name: value for name, value in values.items() if name not in _SECRETS}
        values |= layer
        origins |= {name: origin(name) for name in layer}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, origins)) from error


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError([f"{file} cannot be read ({error.strerror}): correct the path after --config"]) from error
    except ValueError as error:
        raise ConfigError([f"{file} is not valid TOML: {error}"]) from error


def explain(error: ValidationError, origins: Mapping[str, str]) -> list[str]:
    """A line for each problem in `error`; `origins` says for a setting's name where its value came from."""
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
            lines.append(f"{name}{where}{origin}: {text}{_hint(name)}")
    return lines


def _origins_in(text: str, origins: Mapping[str, str]) -> str:
    named = [f"{name} from {origin}" for name, origin in origins.items() if re.search(rf"\b{name}\b", text)]
    return f" [{', '.join(named)}]" if named else ""


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.7)
    return f": did you mean {close[0]}?" if close else ": remove it, or see `kvstore serve --help` for all settings"


def _hint(name: str) -> str:
    field = Settings.model_fields.get(name)
    allowed = bounds_of(field) if field is not None else ""
    return f"; allowed is {allowed}" if allowed else ""


def flag_of(name: str) -> str:
    """The flag of a setting: `--lease-ms` for `lease_ms`."""
    return "--" + name.replace("_", "-")


def default_of(field: FieldInfo) -> str:
    """A default as a person would write it; empty when there is none."""
    if isinstance(field.default, dict):
        return ",".join(f"{name}={address}" for name, address in field.default.items())
    return "" if field.default is None else str(field.default)


def unit_of(field: FieldInfo) -> str:
    """The unit of a number, else empty."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def bounds_of(field: FieldInfo) -> str:
    """The bounds of a number, `20 to 600000`, else empty."""
    lower = [str(bound.ge) for bound in field.metadata if isinstance(bound, Ge)]
    upper = [str(bound.le) for bound in field.metadata if isinstance(bound, Le)]
    return f"{lower[0]} to {upper[0]}" if lower and upper else ""


def settings_table() -> str:
    """The settings as a Markdown table, for the README."""
    rows = [
        f"| `{name}` | {f'`{default}`' if (default := default_of(field)) else ''} | {unit_of(field)} "
        f"| {bounds_of(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | default | unit | allowed | what it is |", "|---|---|---|---|---|", *rows])
