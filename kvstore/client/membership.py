"""Changes of the members, which may be repeated without harm."""

import asyncio
import time
from urllib.parse import quote

import msgspec

from kvstore.api.membership import MemberRole
from kvstore.api.status import MembersStatus
from kvstore.client.caller import Caller, Repeat, Request
from kvstore.client.errors import Method, NoSuchMember

_LOOK_S = 0.05
"""While a change of the members is not in force, they are looked at so often."""


class MembershipClient:
    """Who belongs to the cluster."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def show(self) -> MembersStatus:
        """By the first replica that answers."""
        answer = await self._caller.call(Request("GET", "/members"))
        return msgspec.json.decode(answer.body, type=MembersStatus)

    async def show_at(self, endpoint: str) -> MembersStatus:
        """As the replica at `endpoint` knows it; asked once."""
        answer = await self._caller.ask(endpoint, Request("GET", "/members"), self._caller.attempt_s)
        return msgspec.json.decode(answer.body, type=MembersStatus)

    async def add(self, name: str, address: str, role: MemberRole) -> MembersStatus:
        """Make it a member."""
        body = msgspec.json.encode({"name": name, "address": address, "role": role})
        return await self._change("POST", "/members", body)

    async def remove(self, name: str, *, force: bool) -> MembersStatus:
        """Make it a member no more."""
        return await self._change("DELETE", f"{_path(name)}{_forced(force)}")

    async def replace(self, name: str, address: str | None, *, force: bool) -> MembersStatus:
        """Take it back with a new disk."""
        body = msgspec.json.encode({"address": address} if address is not None else {})
        return await self._change("POST", f"{_path(name)}/replace{_forced(force)}", body)

    async def promote(self, name: str) -> MembersStatus:
        """Have a learner vote."""
        return await self._change("POST", f"{_path(name)}/promote")

    async def _change(self, method: Method, path: str, body: bytes = b"") -> MembersStatus:
        """What is given is `in_force`, unless the time is over."""
        deadline = self._caller.deadline()
        try:
            answer = await self._caller.call(Request(method, path, body, repeat=Repeat.HARMLESS), deadline)
            changed: MembersStatus = msgspec.json.decode(answer.body, type=MembersStatus)
        except NoSuchMember as error:
            if error.__cause__ is None:
                raise
            changed = await self.show()  # it was made, and only the answer was missing
        while not changed.in_force and time.monotonic() < deadline:
            urls = self._caller.endpoints.urls
            found = await asyncio.gather(*map(self.show_at, urls), return_exceptions=True)
            seen = [each for each in found if isinstance(each, MembersStatus)]
            changed = max([changed, *seen], key=lambda each: (each.version, each.in_force))
            await asyncio.sleep(_LOOK_S)
        return changed


def _path(name: str) -> str:
    return f"/members/{quote(name, safe='')}"


def _forced(force: bool) -> str:
    return "?force=true" if force else ""
