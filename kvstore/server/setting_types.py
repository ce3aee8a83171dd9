"""Types of settings that a person writes as text: addresses, names, paths, and lists of them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from kvstore.api.address import Address, parse_address, parse_peer_address
from kvstore.api.authority import Authority, parse_authority
from kvstore.api.numbers import shown

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


def _parse_listen(given: object) -> object:
    """Return the address of a listener; raise ValueError for other values than text."""
    return given if isinstance(given, Address) else parse_address(_text(given))


def _parse_peer(given: object) -> object:
    """Return the address of a member; raise ValueError for other values than text."""
    return given if isinstance(given, Address) else parse_peer_address(_text(given))


def _text(given: object) -> str:
    if isinstance(given, str):
        return given
    raise ValueError(f'{shown(given)} is not an address: write "host:port" as text, like "127.0.0.1:9001"')


def _parse_members(given: object) -> object:
    """Return the members of a table or of text; raise ValueError for other values."""
    if isinstance(given, Mapping):
        return given
    if isinstance(given, str):
        return _members_in(given)
    raise ValueError(f'{shown(given)} is no table: write [members] and below it lines like n1 = "127.0.0.1:9001"')


def _members_in(text: str) -> dict[str, str]:
    members: dict[str, str] = {}
    for part in text.split(","):
        name, equals, address = part.partition("=")
        if not part.strip():
            raise ValueError("it is empty, or has an empty part: write name=host:port, with one comma between members")
        if not equals:
            raise ValueError(f"{shown(part)} is not a member: write name=host:port, with commas between members")
        if name.strip() in members:
            raise ValueError(f"two members are named {shown(name.strip())}: give each member its own name")
        members[name.strip()] = address
    return members


def _parse_names(text: object) -> object:
    return tuple(_parts(text)) if isinstance(text, str) else text


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def check_name(name: str) -> str:
    """Return `name` if it is a valid name of a member. Raises ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} is not a name: use 1 to 32 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit"
        )
    return name


def _parse_public_names(names: object) -> object:
    """Parse a comma-separated list, or the strings of a list; leave other values to the type validation."""
    parts = _parts(names) if isinstance(names, str) else names
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return names
    return tuple(map(_public_name, parts))


def _public_name(text: str) -> Authority:
    try:
        return parse_authority(text)
    except ValueError as error:
        raise ValueError(
            f"{shown(text)} is not a host: {error}; write each name, or name:port, like kv.example.com"
        ) from None


def _parse_path(given: object) -> object:
    """Return the path unless it is empty, which would mean the working directory, or has a zero byte."""
    if isinstance(given, str) and (not given or "\0" in given):
        raise ValueError(f"{shown(given)} is not a path: write the name of a file or a directory")
    return given


Name = Annotated[str, AfterValidator(check_name)]
FilePath = Annotated[Path, BeforeValidator(_parse_path)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_parse_names)]
Listen = Annotated[Address, BeforeValidator(_parse_listen)]
PublicNames = Annotated[tuple[Authority, ...], BeforeValidator(_parse_public_names)]
Peer = Annotated[Address, BeforeValidator(_parse_peer)]
Members = Annotated[dict[Name, Peer], BeforeValidator(_parse_members)]
