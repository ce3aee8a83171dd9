"""What a description is made of."""

from typing import Any, Literal

import msgspec

from kvstore.api.limits import MAX_KEY_BYTES, MAX_REVISION
from kvstore.server.http.problems import (
    ANSWER_NOT_KEPT,
    BODY_TOO_SLOW,
    COMPACTED,
    EXPECTATION_FAILED,
    FOREIGN_PAGE,
    IDEMPOTENCY_KEY_EXPIRED,
    IDEMPOTENCY_KEY_REUSED,
    INTERNAL,
    INVALID_IDEMPOTENCY_KEY,
    INVALID_QUERY,
    MALFORMED,
    NO_LEADER,
    NO_SUCH_KEY,
    NOT_READY,
    OVERLOADED,
    PRECONDITION_FAILED,
    REMOVED,
    SAFE_METHODS,
    STOPPING,
    TIMEOUT,
    UNSUPPORTED,
    VALUE_TOO_LARGE,
    WITNESS,
    ProblemKind,
)

Schema = dict[str, Any]
"""A JSON schema."""
Method = Literal["GET", "HEAD", "PUT", "POST", "DELETE"]

JSON = "application/json"
BYTES = "application/octet-stream"
PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"
BINARY: Schema = {"type": "string", "format": "binary"}
TEXT: Schema = {"type": "string"}
KEY: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES}
REVISION: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_REVISION}
COUNT: Schema = {"type": "integer", "minimum": 0}
TAG_OF_KEY: Schema = {"type": "string", "pattern": '^"[1-9][0-9]*"$'}


class Parameter(msgspec.Struct, frozen=True):
    """Something that a path, a query or a header of a request says."""

    name: str
    where: Literal["path", "query", "header"]
    schema: Schema
    text: str
    example: str | int | None = None
    required: bool = False
    """Where it is not in the path, of which all is needed."""


class Header(msgspec.Struct, frozen=True):
    """A header of an answer; not `always` there."""

    name: str
    schema: Schema
    text: str
    always: bool = True


class Body(msgspec.Struct, frozen=True):
    """What a request carries. `shape`: a schema, or the type whose schema it is."""

    media: str
    shape: Any
    text: str
    example: Any = None
    required: bool = True


class ApiResponse(msgspec.Struct, frozen=True):
    """An answer that was asked for. `media`: the shape of each content type that there may be."""

    status: int
    text: str
    media: dict[str, Any] = {}
    headers: tuple[Header, ...] = ()


def events(*names: str) -> Schema:
    """What a server-sent event is, of a stream with events of these names."""
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "enum": list(names)},
            "id": {"type": "string", "pattern": "^[0-9]+$"},
            "data": {"type": "string", "contentMediaType": JSON},
        },
    }


class Tag(msgspec.Struct, frozen=True):
    """A sort of calls."""

    name: str
    text: str


class ApiOperation(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a path. `summary` is half a line, `text` the rest of what there is to say, in paragraphs; `problems`
    those that only some calls have; `curl` a command to try, with BASE for the address of a replica."""

    method: Method
    path: str
    name: str
    tag: Tag
    summary: str
    text: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    responses: tuple[ApiResponse, ...]
    problems: tuple[ProblemKind, ...] = ()
    curl: str

    @property
    def all_problems(self) -> list[ProblemKind]:
        """Those of any call among them, by status."""
        foreign = set() if self.method in SAFE_METHODS else {FOREIGN_PAGE}
        return sorted({*ANY, *foreign, *self.problems}, key=lambda kind: (kind.status, kind.name))

    def as_head(self) -> "ApiOperation":
        """The HEAD of this GET."""
        return msgspec.structs.replace(
            self,
            method="HEAD",
            name=f"{self.name}Head",
            summary=f"The headers of that GET only: {self.summary[:1].lower()}{self.summary[1:]}",
            text="",
            responses=tuple(msgspec.structs.replace(reply, media={}) for reply in self.responses),
            curl=self.curl.replace("curl ", "curl --head ", 1),
        )


ANY = (MALFORMED, INVALID_QUERY, INTERNAL)
"""What any request can meet."""
ASKING = (OVERLOADED, NO_LEADER, TIMEOUT, STOPPING, NOT_READY, WITNESS, REMOVED)
"""What stands against whatever a replica has to agree on with others, or does not have."""
READING = (*ASKING, COMPACTED)
"""The same of what can be asked of the past."""
SENDING = (BODY_TOO_SLOW, VALUE_TOO_LARGE, EXPECTATION_FAILED, UNSUPPORTED)
"""What can be wrong with a body on its way."""
ONCE = (INVALID_IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_EXPIRED, IDEMPOTENCY_KEY_REUSED, ANSWER_NOT_KEPT)
"""What a write with an `Idempotency-Key` can meet."""

STALENESS = (
    Header("KV-Applied-Slot", COUNT, "With consistency=stale: the slot that this replica had applied.", always=False),
    Header("KV-Applied-Revision", COUNT, "With consistency=stale: the revision of the store there.", always=False),
    Header(
        "KV-Age-Ms", COUNT, "With consistency=stale: time since the last word from the leader, in ms.", always=False
    ),
)
_AGAIN = Header("Retry-After", {"type": "integer"}, "Seconds after which to try again.", always=False)
HEADERS_OF_PROBLEMS: dict[ProblemKind, tuple[Header, ...]] = {
    NO_SUCH_KEY: STALENESS,
    PRECONDITION_FAILED: (
        Header("ETag", TAG_OF_KEY, "The present entity tag of the key; none where it is absent.", always=False),
        Header("KV-Revision", REVISION, "The present revision of the key; none where it is absent.", always=False),
    ),
    COMPACTED: (Header("KV-Oldest-Revision", COUNT, "The oldest revision that is kept.", always=False),),
}
"""Beside Retry-After."""


def headers_of(kinds: list[ProblemKind]) -> tuple[Header, ...]:
    """What answers with these problems, of one status, may have."""
    own = {header.name: header for kind in kinds for header in HEADERS_OF_PROBLEMS.get(kind, ())}
    return (*own.values(), *((_AGAIN,) if kinds[0].status in (409, 429, 503) else ()))
