"""Membership requests. A repeated change has the same effect as a single one."""

import asyncio
import time
from urllib.parse import quote

import msgspec
from msgspec import UNSET

from kvstore.api.json.documents import AddMemberRequest, ReplaceMemberRequest
from kvstore.api.membership import MemberRole
from kvstore.api.status import MembersStatus
from kvstore.client.caller import Caller, Repeat, Request
from kvstore.client.errors import Method, NoSuchMember

_POLL_S = 0.05
"""Polling interval of the membership until a change is in force."""


class MembershipClient:
    """Requests that read and change the membership of the cluster."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def show(self) -> MembersStatus:
        """Return the membership that the first available replica knows."""
        response = await self._caller.call(Request("GET", "/members"))
        return response.decode(MembersStatus)

    async def show_at(self, endpoint: str) -> MembersStatus:
        """Return the membership that the replica at `endpoint` knows, without retries."""
        response = await self._caller.ask(endpoint, Request("GET", "/members"), self._caller.attempt_s)
        return response.decode(MembersStatus)

    async def add(self, name: str, address: str, role: MemberRole) -> MembersStatus:
        """Add a member."""
        body = msgspec.json.encode(AddMemberRequest(name=name, address=address, role=role))
        return await self._change("POST", "/members", body)

    async def remove(self, name: str, *, force: bool) -> MembersStatus:
        """Remove a member."""
        return await self._change("DELETE", f"{_path(name)}{_forced(force)}")

    async def replace(self, name: str, address: str | None, *, force: bool) -> MembersStatus:
        """Replace a member by one with an empty disk."""
        body = msgspec.json.encode(ReplaceMemberRequest(address=UNSET if address is None else address))
        return await self._change("POST", f"{_path(name)}/replace{_forced(force)}", body)

    async def promote(self, name: str) -> MembersStatus:
        """Make a learner a voter."""
        return await self._change("POST", f"{_path(name)}/promote")

    async def _change(self, method: Method, path: str, body: bytes = b"") -> MembersStatus:
        """Request a change, wait until it is in force or the deadline has passed, and return the membership."""
        deadline = self._caller.deadline()
        try:
            response = await self._caller.call(Request(method, path, body, repeat=Repeat.HARMLESS), deadline)
            changed = response.decode(MembersStatus)
        except NoSuchMember as error:
            if error.__cause__ is None:
                raise
            changed = await self.show()  # an earlier attempt, whose answer was lost, has removed the member
        while not changed.in_force and time.monotonic() < deadline:
            urls = self._caller.endpoints.urls
            found = await asyncio.gather(*map(self.show_at, urls), return_exceptions=True)
            seen = [each for each in found if isinstance(each, MembersStatus)]
            changed = max([changed, *seen], key=lambda each: (each.version, each.in_force))
            await asyncio.sleep(_POLL_S)
        return changed


def _path(name: str) -> str:
    return f"/members/{quote(name, safe='')}"


def _forced(force: bool) -> str:
    return "?force=true" if force else ""
