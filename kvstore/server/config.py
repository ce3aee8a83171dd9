"""The settings of a replica. Flags, environment variables, file keys and documentation are derived from this table."""

import itertools
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from annotated_types import Ge, Le
from pydantic import (
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kvstore.api.address import Address, loopback_warnings
from kvstore.api.numbers import check_integer, parse_integer
from kvstore.api.text_files import NotTextError, text_of
from kvstore.replica.retention import RetentionLimits
from kvstore.server.http.limits import HttpLimits
from kvstore.server.setting_types import FilePath, Listen, Members, Name, Names, PublicNames
from paxos.options import Options
from paxos.wire import MAX_MESSAGE_BYTES
from storage.reserve import RESERVE_BYTES

_PROTOCOL, _FRONT_END, _RETENTION = Options(), HttpLimits(), RetentionLimits()
"""Sources of default values: each default is defined by the package that uses the setting."""

ENV_PREFIX = "KVSTORE_"
MIN_SECRET_LENGTH = 16
FRAME_ROOM_BYTES = 64 * 1024
"""Bytes of a frame that are reserved for keys, request ids and other fields beside the values."""


class ConfigError(Exception):
    """Error for invalid settings. Each line of `problems` names a setting, its source, the problem and a remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _number(default: int, unit: str, least: int, most: int, description: str) -> Any:
    return Field(default, ge=least, le=most, json_schema_extra={"unit": unit}, description=description)


class Settings(BaseSettings):
    """The settings of one replica.

    The constructor reads only its arguments; `kvstore.server.config_sources.load` reads all sources. Raises
    pydantic.ValidationError for values out of bounds and for settings that contradict each other.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,  # an environment variable has the same form as a flag, never JSON
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    node: Name = Field("n1", description="name of this replica among the members")
    cluster: Name = Field("kvstore", description="name of the cluster; replicas of another cluster are refused")
    members: Members = Field(
        {"n1": Address("127.0.0.1", 9001)},
        min_length=1,
        description="founding voters and the addresses of their peer listeners: `n1=127.0.0.1:9001,n2=...`; in the "
        "file, a table",
    )
    join: bool = Field(
        False,
        description="true for a replica that joins a running cluster: it learns the membership from any reachable "
        "address in `members`",
    )
    bootstrap_without: Names = Field(
        (),
        description="founding voters for which the first start does not wait, separated by commas, the same on all "
        "other members; they join the new cluster when they start; remove this setting after the first start",
    )
    listen: Listen = Field(Address("127.0.0.1", 8001), description="address of the HTTP listener for clients")
    public_names: PublicNames = Field(
        (),
        description="host names in the URLs by which clients reach this replica, beside IP addresses, `localhost` and "
        "the hosts in `members`: `kv.example.com,kv.internal:8443`; other names are refused with 421",
    )
    peer_listen: Listen | None = Field(
        None,
        description="address of the peer listener, if it differs from the address of this replica in `members`: "
        "`0.0.0.0:9001` in a container",
    )
    data: FilePath = Field(Path("kvstore-data"), description="data directory of this replica; created if absent")
    secret: SecretStr | None = Field(
        None,
        description=f"shared secret of all members, at least {MIN_SECRET_LENGTH} characters; required with peers",
    )
    secret_file: FilePath | None = Field(None, description="file that contains the secret, instead of `secret`")
    heartbeat_ms: int = _number(_PROTOCOL.heartbeat_ms, "ms", 5, 60_000, "interval between heartbeats of the leader")
    lease_ms: int = _number(
        _PROTOCOL.lease_ms,
        "ms",
        20,
        600_000,
        "length of the leader lease, during which the leader answers reads without a quorum; a failover takes about as "
        "long",
    )
    clock_drift_ppm: int = _number(
        _PROTOCOL.clock_drift_ppm,
        "ppm",
        0,
        500_000,
        "bound on the difference between the clock rates of two members, in parts per million",
    )
    election_jitter_ms: int = _number(
        _PROTOCOL.election_jitter_ms,
        "ms",
        1,
        60_000,
        "maximum random delay before a replica tries to become leader, so that two candidates seldom collide; failed "
        "attempts double it",
    )
    stall_ms: int = _number(
        _PROTOCOL.stall_ms,
        "ms",
        20,
        600_000,
        "a leader whose disk or commits make no progress for this long steps down",
    )
    request_timeout_ms: int = _number(2500, "ms", 50, 600_000, "timeout of a client request")
    max_value_bytes: int = _number(
        _FRONT_END.max_value_bytes, "bytes", 1, MAX_MESSAGE_BYTES, "maximum length of a value"
    )
    max_batch_bytes: int = _number(
        _PROTOCOL.max_batch_bytes,
        "bytes",
        1024,
        MAX_MESSAGE_BYTES,
        "maximum size of a batch; a single larger command is a batch of its own",
    )
    max_in_flight: int = _number(
        _FRONT_END.max_in_flight,
        "requests",
        1,
        1_000_000,
        "maximum number of complete requests in progress on one replica; further requests are refused with 429",
    )
    quota_bytes: int = _number(
        2 << 30,
        "bytes",
        1024,
        1 << 50,
        "quota for the bytes of keys and values, plus 64 for each key; above it a PUT is refused with 507",
    )
    reserve_bytes: int = _number(
        RESERVE_BYTES,
        "bytes",
        0,
        1 << 40,
        "size of the preallocated file that is removed when the disk is full, so that deletions have room; 0 for none",
    )
    log_slots: int = _number(
        _RETENTION.log_slots,
        "slots",
        1,
        1_000_000_000,
        "maximum number of applied slots in the log; a peer that lags further behind receives a snapshot",
    )
    history_revisions: int = _number(
        _RETENTION.history_revisions,
        "revisions",
        0,
        1_000_000_000,
        "maximum number of past revisions that are retained, for reads at a revision and watches that start at one",
    )
    history_age_ms: int = _number(
        _RETENTION.history_age_ms, "ms", 0, 10**12, "maximum time for which a past revision is retained"
    )
    window: int = _number(_PROTOCOL.window, "slots", 1, 4096, "maximum number of slots that the leader has in flight")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest severity of log messages that are written"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic-settings'
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use the arguments only: `load` orders the sources and records the source of each value."""
        return (init_settings,)

    @field_validator("*", mode="before")
    @classmethod
    def _parse_number(cls, given: object, info: ValidationInfo) -> object:
        """Parse a number strictly: pydantic would also take `1_000`, ` 5 `, 5.0 and True."""
        bounds = bounds_of(cls.model_fields[info.field_name or ""])
        if bounds is None:
            return given
        return parse_integer(given, *bounds) if isinstance(given, str) else check_integer(given, *bounds)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        problems = [*_membership_problems(self), *_timing_problems(self), *_secret_problems(self)]
        room = MAX_MESSAGE_BYTES - FRAME_ROOM_BYTES
        if self.max_value_bytes + self.max_batch_bytes > room:
            problems.append(
                f"max_value_bytes ({self.max_value_bytes}) and max_batch_bytes ({self.max_batch_bytes}) together must "
                f"fit into one frame between peers: reduce their sum to {room} or less"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def peer_bind(self) -> Address:
        """Address of the peer listener."""
        return self.peer_listen or self.members[self.node]

    def shared_secret(self) -> bytes:
        """Return the shared secret of the members; empty only for a single member without a secret.

        Raises OSError if `secret_file` cannot be read, and NotTextError if the secret is not one line of text: an
        encoding or a line end of another system would make another secret of the same characters.
        """
        if self.secret is not None:
            text = self.secret.get_secret_value()
        else:
            text = text_of(self.secret_file.read_bytes()) if self.secret_file is not None else ""
        line = text.strip()
        if not line.isprintable():
            raise NotTextError("has several lines or control characters: the secret is one line of text")
        return line.encode()

    def warnings(self) -> list[str]:
        """Return one line, with advice, for each setting that is valid but not recommended."""
        return [
            *voters_warnings(len(self.members)),
            *loopback_warnings(self.members),
            *_secret_file_warnings(self.secret_file),
        ]


def bounds_of(field: FieldInfo) -> tuple[int, int] | None:
    """Return the bounds of a number, None for other settings."""
    lower = [bound.ge for bound in field.metadata if isinstance(bound, Ge) and isinstance(bound.ge, int)]
    upper = [bound.le for bound in field.metadata if isinstance(bound, Le) and isinstance(bound.le, int)]
    return (lower[0], upper[0]) if lower and upper else None


def voters_warnings(voters: int) -> list[str]:
    """Return a warning if the number of voters is even."""
    if voters % 2:
        return []
    return [
        (
            f"{voters} voters tolerate the loss of {(voters - 1) // 2}, no more than {voters - 1} voters would, and "
            f"each write waits for one more voter: use {voters - 1} or {voters + 1} members"
        )
    ]


def _secret_file_warnings(file: Path | None) -> list[str]:
    """Return a warning if users other than the owner and the group can read the secret."""
    mode = stat.S_IMODE(file.stat().st_mode) if file is not None else 0
    if not mode & stat.S_IROTH:
        return []
    return [f"every user of this machine can read secret_file {file} (mode {mode:04o}): run `chmod o= {file}`"]


def _membership_problems(settings: Settings) -> Iterator[str]:
    members = settings.members
    if settings.node not in members:
        yield f"node {settings.node!r} is not in members ({', '.join(members)}): set node to one of them, or add it"
        return
    for name in settings.bootstrap_without:
        if name not in members:
            yield f"bootstrap_without names {name!r}, which is not in members ({', '.join(members)}): correct the name"
    for (name, address), (other, same) in itertools.combinations(members.items(), 2):
        if address.is_same(same):
            yield f"members {name} and {other} have the same address, {address}: give each member its own host or port"
    owner = next((name for name, address in members.items() if settings.listen.is_same(address)), None)
    if owner is not None:
        yield (
            f"listen is {settings.listen}, which is also the peer address of {owner} in members: "
            "use another port for clients"
        )
    elif settings.listen.overlaps(settings.peer_bind):
        yield (
            f"listen ({settings.listen}) and the peer address ({settings.peer_bind}, from peer_listen or members) use "
            "the same port: use another port for one of them"
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
            f"stall_ms ({stall_ms}) must not be shorter than lease_ms ({lease_ms}), because no replica can take over "
            f"earlier: raise stall_ms to {lease_ms} or more"
        )


def _secret_problems(settings: Settings) -> Iterator[str]:
    if settings.secret is not None and settings.secret_file is not None:
        yield "secret and secret_file are both set: remove one of them"
        return
    if settings.secret is None and settings.secret_file is None:
        if len(settings.members) > 1:
            yield (
                f"secret or secret_file is required with {len(settings.members)} members: set the same secret on all "
                "of them, for example one from `openssl rand -hex 32`"
            )
        return
    try:
        length = len(settings.shared_secret())
    except OSError as error:
        yield f"secret_file {settings.secret_file} cannot be read ({error.strerror}): create it or correct the path"
        return
    except NotTextError as error:
        yield f"secret_file {settings.secret_file} {error}" if settings.secret is None else f"secret {error}"
        return
    if length < MIN_SECRET_LENGTH:
        which = "secret_file" if settings.secret is None else "secret"
        yield (
            f"{which} has {length} characters, at least {MIN_SECRET_LENGTH} are required: generate one with "
            "`openssl rand -hex 32`"
        )
