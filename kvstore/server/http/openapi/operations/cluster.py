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
    "Who belongs to the cluster. A change is made one at a time, at any replica, and may be repeated without harm.",
)

_MEMBERS = {JSON: MembersStatus}
_REFUSING = (NO_LEADER, TIMEOUT, STOPPING, OVERLOADED, NOT_READY, WITNESS, REMOVED)
_CHANGING = (INVALID_IDEMPOTENCY_KEY, MEMBERS_CHANGED, UNSAFE_CHANGE, *_REFUSING)

_LIST = ApiOperation(
    method="GET",
    path="/members",
    name="listMembers",
    tag=TAG,
    summary="The members, and whether the last change of them is in force",
    responses=(ApiResponse(200, "As this replica knows them.", _MEMBERS),),
    curl="curl BASE/members",
)
_ADD = ApiOperation(
    method="POST",
    path="/members",
    name="addMember",
    tag=TAG,
    summary="Add a member",
    text="It begins as a learner, and becomes what its `role` says once it has caught up: `voter`, `witness` or "
    "`learner`.",
    body=Body(JSON, AddMemberRequest, "Who it is.", {"name": "n4", "address": "127.0.0.1:9004", "role": "voter"}),
    responses=(
        ApiResponse(200, "It is a member already, as asked.", _MEMBERS),
        ApiResponse(201, "It was added.", _MEMBERS),
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
    text="It is needed until the change is `in_force`: stop it only then.",
    parameters=(MEMBER_IN_PATH, FORCE),
    responses=(ApiResponse(200, "It was removed.", _MEMBERS),),
    problems=(NO_SUCH_MEMBER, *_CHANGING),
    curl="curl -X DELETE BASE/members/n4",
)
_REPLACE = ApiOperation(
    method="POST",
    path="/members/{name}/replace",
    name="replaceMember",
    tag=TAG,
    summary="Take a member back whose disk is a new one",
    parameters=(MEMBER_IN_PATH, FORCE),
    body=Body(
        JSON, ReplaceMemberRequest, "Its new address, if it has one.", {"address": "127.0.0.1:9004"}, required=False
    ),
    responses=(ApiResponse(200, "It was replaced: start it with an empty data directory.", _MEMBERS),),
    problems=(INVALID_MEMBER, NO_SUCH_MEMBER, MEMBER_EXISTS, MEMBER_RUNS, *_CHANGING, *SENDING),
    curl="curl -X POST BASE/members/n4/replace",
)
_PROMOTE = ApiOperation(
    method="POST",
    path="/members/{name}/promote",
    name="promoteMember",
    tag=TAG,
    summary="Have a learner vote",
    text="Once it has caught up.",
    parameters=(MEMBER_IN_PATH,),
    responses=(ApiResponse(200, "It votes, or will.", _MEMBERS),),
    problems=(NO_SUCH_MEMBER, *_CHANGING),
    curl="curl -X POST BASE/members/n4/promote",
)

OPERATIONS = (_LIST, _LIST.as_head(), _ADD, _REMOVE, _REPLACE, _PROMOTE)
