"""`/members`: the membership of the cluster, and its changes, on any replica.

A change is made to the membership that this replica knows, and carries its version: of two changes at the same time one
is refused with 409. To repeat a change is no error.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from urllib.parse import unquote

from msgspec import UNSET
from msgspec.structs import replace

from kvstore.api.address import parse_address, parse_peer_address
from kvstore.api.commands import NotReconfigured, Reconfigure
from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.json.documents import AddMemberRequest, ReplaceMemberRequest
from kvstore.api.membership import Member, MemberRole, Membership, MembershipVersion, newcomer, refusal
from kvstore.server.http.calls import TaskCall
from kvstore.server.http.problems import (
    INVALID_MEMBER,
    MEMBER_EXISTS,
    MEMBER_RUNS,
    MEMBERS_CHANGED,
    NO_SUCH_MEMBER,
    NO_SUCH_RESOURCE,
    RETRY_AFTER,
    TIMEOUT,
    UNSAFE_CHANGE,
    Problem,
    not_allowed,
)
from kvstore.server.http.query_parameters import parse_force, refuse_parameters
from kvstore.server.http.request import HttpRequest
from kvstore.server.http.request_body import decode, refuse_fields
from kvstore.server.http.response import HttpResponse, indented_json_response
from kvstore.server.http.writes import refuse_key
from kvstore.server.reply_future import reply_of
from kvstore.server.service import ReplicaService
from kvstore.server.setting_types import check_name
from paxos.quorum import is_quorum

PATH = "/members"

_USAGE = {
    "add": '{"name": "n4", "address": "10.0.0.4:9001", "role": "voter"}; role is voter (default), witness or learner',
    "replace": 'an empty body, or {"address": "10.0.0.4:9001"}',
}
IN_FORCE_S = 1.0
"""Longest wait of a response until the change is in force. Until then the old membership decides, and a removed member
is still needed; it may never learn that it was removed."""
_POLL_S = 0.01


class MemberHandlers:
    """Handlers that show and change the membership."""

    def __init__(self, replica: ReplicaService) -> None:
        self._replica = replica

    def route(self, request: HttpRequest, path: str, query: str) -> TaskCall:
        """Return the call of a request for `path`, `/members` or below it."""
        return TaskCall(partial(self._handle, request, path, query), takes_body=request.method == "POST")

    async def _handle(self, request: HttpRequest, path: str, query: str) -> HttpResponse:
        name, _, verb = path.removeprefix(PATH).removeprefix("/").partition("/")
        name = unquote(name)
        ways: dict[str, Callable[[], Awaitable[HttpResponse]]]
        if path == PATH:
            ways = {"GET": self._list, "HEAD": self._list, "POST": partial(self._add, request)}
            refuse_parameters(query)
        elif name and not verb:
            ways = {"DELETE": partial(self._remove, name, parse_force(query))}
        elif name and verb == "replace":
            ways = {"POST": partial(self._replace, request, name, parse_force(query))}
        elif name and verb == "promote":
            ways = {"POST": partial(self._promote, request, name)}
            refuse_parameters(query)
        else:
            known = f"{PATH}, {PATH}/{{name}}, {PATH}/{{name}}/replace and {PATH}/{{name}}/promote"
            raise Problem(NO_SUCH_RESOURCE, f"The paths of members are {known}. GET / explains them.")
        if request.method not in ways:
            raise not_allowed(request.method, ", ".join(ways))
        if request.method in ("POST", "DELETE"):
            refuse_key(request)
            if self._replica.members().leader is None:
                # Without a leader the membership that this replica knows may be outdated, or of a wiped disk.
                raise Refused(Reason.NO_LEADER, Outcome.FAILED)
        return await ways[request.method]()

    async def _list(self) -> HttpResponse:
        return self._present(200)

    def _present(self, status: int) -> HttpResponse:
        return indented_json_response(status, self._replica.members())

    async def _add(self, request: HttpRequest) -> HttpResponse:
        wanted = decode(request.body, AddMemberRequest, INVALID_MEMBER, _USAGE["add"])
        try:
            member = newcomer(check_name(wanted.name), str(parse_peer_address(wanted.address)), wanted.role)
        except ValueError as error:
            raise Problem(INVALID_MEMBER, f"{error}.") from None
        membership = self._replica.membership
        present = membership.get(member.name)
        if present is not None and (present.purpose, present.address) == (member.purpose, member.address):
            return self._present(200)
        if present is not None:
            detail = f"{member.name} is already a {present.purpose}. Use another name, or remove that member first."
            raise Problem(MEMBER_EXISTS, detail)
        self._refuse_used_address(member)
        await self._change(membership, membership.changed(member), force=True)
        return self._present(201)

    async def _remove(self, name: str, force: bool) -> HttpResponse:
        membership = self._replica.membership
        self._find(membership, name)
        await self._change(membership, membership.without(name), force=force)
        return self._present(200)

    async def _replace(self, request: HttpRequest, name: str, force: bool) -> HttpResponse:
        wanted = decode(request.body or b"{}", ReplaceMemberRequest, INVALID_MEMBER, _USAGE["replace"])
        membership = self._replica.membership
        present = self._find(membership, name)
        address = present.address
        if wanted.address is not UNSET:
            try:
                address = str(parse_peer_address(wanted.address))
            except ValueError as error:
                raise Problem(INVALID_MEMBER, f"{error}.") from None
        begun = replace(newcomer(name, address, present.purpose), incarnation=0)
        if begun == present or (present.joining and address == present.address and self._is_connected(name)):
            return self._present(200)  # the member was replaced before, and is receiving the state
        if self._is_connected(name):
            detail = f"{name} is connected. Stop it, repeat this request, and start it with an empty data directory."
            raise Problem(MEMBER_RUNS, detail, fields=RETRY_AFTER)
        self._refuse_used_address(begun)
        await self._change(membership, membership.changed(begun), force=force)
        return self._present(200)

    async def _promote(self, request: HttpRequest, name: str) -> HttpResponse:
        refuse_fields(request.body, INVALID_MEMBER)
        membership = self._replica.membership
        present = self._find(membership, name)
        if present.purpose is MemberRole.WITNESS:
            detail = f"{name} is a witness and has no state. Remove it, and add it again with an empty data directory."
            raise Problem(UNSAFE_CHANGE, detail)
        if present.purpose is not MemberRole.VOTER:
            joining = replace(present, joining=True, becomes=MemberRole.VOTER)
            await self._change(membership, membership.changed(joining), force=True)
        return self._present(200)

    async def _change(self, before: Membership, after: Membership, *, force: bool) -> None:
        """Propose the membership `after`, and wait until it is in force. Raises Problem or Refused."""
        why = refusal([MembershipVersion(0, before)], after, 0)
        if why is not None:
            raise Problem(UNSAFE_CHANGE, f"{_sentence(why)}.")
        if not force:
            self._refuse_without_majority(before, after)
        try:
            result = await reply_of(partial(self._replica.write, Reconfigure(after)))
        except Refused as refused:
            if refused.outcome is Outcome.FAILED:
                raise
            detail = "The change may have been made, or may be made later: see GET /members. It is safe to repeat it."
            raise Problem(TIMEOUT, detail, outcome=Outcome.UNKNOWN, fields=RETRY_AFTER) from None
        if isinstance(result, NotReconfigured):
            raise Problem(MEMBERS_CHANGED, f"{_sentence(result.why)}.", fields=RETRY_AFTER)
        with suppress(TimeoutError):
            async with asyncio.timeout(IN_FORCE_S):
                while not self._replica.members().in_force:  # noqa: ASYNC110 - a few slots, a few milliseconds
                    await asyncio.sleep(_POLL_S)

    def _refuse_without_majority(self, before: Membership, after: Membership) -> None:
        """Raise Problem unless a majority of the old voters, which decide the change, and one of the new voters, which
        decide after it, are connected to this replica."""
        connected = {member.name for member in self._replica.members().members if member.connected}
        heard = connected - set(after.configuration.unverified)
        if is_quorum(heard, before.configuration) and is_quorum(connected, after.configuration):
            return
        missing = sorted({*before.voters, *after.voters} - heard)
        detail = (
            f"The voters after this change would be {', '.join(after.voters)}, without a majority connected to this "
            f"replica; unreachable: {', '.join(missing)}. Start those, or add others first. ?force=true makes the "
            "change nevertheless: the cluster then decides nothing until a majority is back."
        )
        raise Problem(UNSAFE_CHANGE, detail)

    def _refuse_used_address(self, newcomer: Member) -> None:
        """Raise Problem if another member has the address of `newcomer`. A founding member that keeps the address in
        the settings has none here."""
        if not newcomer.address:
            return
        wanted = parse_address(newcomer.address)
        for member in self._replica.members().members:
            if member.name != newcomer.name and member.address and parse_address(member.address).is_same(wanted):
                detail = f"{newcomer.address} is the address of {member.name}. Use another host or port."
                raise Problem(MEMBER_EXISTS, detail)

    def _find(self, membership: Membership, name: str) -> Member:
        member = membership.get(name)
        if member is None:
            known = ", ".join(member.name for member in membership.members)
            raise Problem(NO_SUCH_MEMBER, f"{name!r} is not a member. The members are {known}.")
        return member

    def _is_connected(self, name: str) -> bool:
        return any(member.name == name and member.connected for member in self._replica.members().members)


def _sentence(why: str) -> str:
    return why[:1].upper() + why[1:]
