"""`/members`."""

from kvstore.api.json.documents import AddMemberRequest, ReplaceMemberRequest
from kvstore.api.status import MembersStatus
from kvstore.server.http.openapi.description import JSON, SENDING, ApiOperation, ApiResponse, Body, Tag
from kvstore.server.http.openapi.parameters import FORCE, MEMBER_IN_PATH
from kvstore.server.http.problems import (
    INVALID_IDEMPOTENCY_KEY,
    INVALID_MEMBER,
    MEMBER_EXISTS,
    MEMBER_RUNS,
    MEMBERS_CHANGED,
    NO_LEADER,
    NO_SUCH_MEMBER,
    NOT_READY,
    OVERLOADED,
    REMOVED,
    STOPPING,
    TIMEOUT,
    UNSAFE_CHANGE,
    WITNESS,
)

TAG = Tag(
    "Members",
    "The membership of the cluster. Changes are made one at a time, at any replica, and are safe to repeat.",
)

_MEMBERS = {JSON: MembersStatus}
_REFUSING = (NO_LEADER, TIMEOUT, STOPPING, OVERLOADED, NOT_READY, WITNESS, REMOVED)
_CHANGING = (INVALID_IDEMPOTENCY_KEY, MEMBERS_CHANGED, UNSAFE_CHANGE, *_REFUSING)

_LIST = ApiOperation(
    method="GET",
    path="/members",
    name="listMembers",
    tag=TAG,
    summary="Show the members, and whether the last change is in force",
    responses=(ApiResponse(200, "The membership that this replica has applied.", _MEMBERS),),
    curl="curl BASE/members",
)
_ADD = ApiOperation(
    method="POST",
    path="/members",
    name="addMember",
    tag=TAG,
    summary="Add a member",
    text="The member starts as a learner. It takes its `role` (`voter`, `witness`, `learner`) when it has caught up.",
    body=Body(JSON, AddMemberRequest, "The member.", {"name": "n4", "address": "127.0.0.1:9004", "role": "voter"}),
    responses=(
        ApiResponse(200, "The same member existed already.", _MEMBERS),
        ApiResponse(201, "The member was added.", _MEMBERS),
    ),
    problems=(INVALID_MEMBER, MEMBER_EXISTS, *_CHANGING, *SENDING),
    curl="""curl BASE/members -d '{"name": "n4", "address": "127.0.0.1:9004", "role": "voter"}'""",
)
_REMOVE = ApiOperation(
    method="DELETE",
    path="/members/{name}",
    name="removeMember",
    tag=TAG,
    summary="Remove a member",
    text="Stop the member only when the change is `in_force`: it is needed until then.",
    parameters=(MEMBER_IN_PATH, FORCE),
    responses=(ApiResponse(200, "The member was removed.", _MEMBERS),),
    problems=(NO_SUCH_MEMBER, *_CHANGING),
    curl="curl -X DELETE BASE/members/n4",
)
_REPLACE = ApiOperation(
    method="POST",
    path="/members/{name}/replace",
    name="replaceMember",
    tag=TAG,
    summary="Replace a member that lost its data",
    parameters=(MEMBER_IN_PATH, FORCE),
    body=Body(
        JSON,
        ReplaceMemberRequest,
        "A new address of the member, if it has one.",
        {"address": "127.0.0.1:9004"},
        required=False,
    ),
    responses=(ApiResponse(200, "The member was replaced: start it with an empty data directory.", _MEMBERS),),
    problems=(INVALID_MEMBER, NO_SUCH_MEMBER, MEMBER_EXISTS, MEMBER_RUNS, *_CHANGING, *SENDING),
    curl="curl -X POST BASE/members/n4/replace",
)
_PROMOTE = ApiOperation(
    method="POST",
    path="/members/{name}/promote",
    name="promoteMember",
    tag=TAG,
    summary="Make a learner a voter",
    text="The member votes when it has caught up.",
    parameters=(MEMBER_IN_PATH,),
    responses=(ApiResponse(200, "The member votes, or will vote when it has caught up.", _MEMBERS),),
    problems=(INVALID_MEMBER, NO_SUCH_MEMBER, *_CHANGING),
    curl="curl -X POST BASE/members/n4/promote",
)

OPERATIONS = (_LIST, _LIST.as_head(), _ADD, _REMOVE, _REPLACE, _PROMOTE)
