"""The types of the API description."""

from typing import Any, Literal

import msgspec

from kvstore.api.limits import MAX_KEY_BYTES, MAX_REVISION
from kvstore.server.http.problems import (
    ANSWER_NOT_KEPT,
    BODY_TOO_SLOW,
    COMPACTED,
    EXPECTATION_FAILED,
    FOREIGN_PAGE,
    HEAD_TOO_LARGE,
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
    TARGET_TOO_LONG,
    TIMEOUT,
    UNKNOWN_CONTENT_CODING,
    UNKNOWN_HOST,
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
    """A parameter in the path, the query or a header of a request."""

    name: str
    where: Literal["path", "query", "header"]
    schema: Schema
    text: str
    example: str | int | None = None
    required: bool = False
    """True for a parameter that must be given; one in a path always must be."""


class Header(msgspec.Struct, frozen=True):
    """A header of a response. It may be missing unless it is `always` there."""

    name: str
    schema: Schema
    text: str
    always: bool = True


class Body(msgspec.Struct, frozen=True):
    """The body of a request. `shape` is a schema, or the type that it is generated from."""

    media: str
    shape: Any
    text: str
    example: Any = None
    required: bool = True


class ApiResponse(msgspec.Struct, frozen=True):
    """A successful response. `media` has the shape of the body for each content type."""

    status: int
    text: str
    media: dict[str, Any] = {}
    headers: tuple[Header, ...] = ()


def events(*names: str) -> Schema:
    """Return the schema of a server-sent event with one of these names."""
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
    """A group of operations."""

    name: str
    text: str


class ApiOperation(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a path. `summary` is a phrase, `text` the details in paragraphs. `problems` are those that not every
    operation has. `curl` is a command to try, with BASE for the address of a replica."""

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
        """All problems of this operation, by status."""
        writing = set() if self.method in SAFE_METHODS else {FOREIGN_PAGE, UNSUPPORTED}
        return sorted({*ANY, *writing, *self.problems}, key=lambda kind: (kind.status, kind.name))

    def as_head(self) -> "ApiOperation":
        """Return the HEAD of this GET."""
        return msgspec.structs.replace(
            self,
            method="HEAD",
            name=f"{self.name}Head",
            summary=f"{self.summary}, headers only",
            text="",
            responses=tuple(msgspec.structs.replace(reply, media={}) for reply in self.responses),
            curl=self.curl.replace("curl ", "curl --head ", 1),
        )


ANY = (MALFORMED, INVALID_QUERY, TARGET_TOO_LONG, UNKNOWN_HOST, HEAD_TOO_LARGE, INTERNAL)
"""Problems of any request."""
ASKING = (OVERLOADED, NO_LEADER, TIMEOUT, STOPPING, NOT_READY, WITNESS, REMOVED)
"""Problems of a request that needs a majority, or the state of a replica."""
READING = (*ASKING, COMPACTED)
"""Problems of a read of a revision."""
SENDING = (BODY_TOO_SLOW, VALUE_TOO_LARGE, UNKNOWN_CONTENT_CODING, EXPECTATION_FAILED, UNSUPPORTED)
"""Problems with a body."""
ONCE = (INVALID_IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_EXPIRED, IDEMPOTENCY_KEY_REUSED, ANSWER_NOT_KEPT)
"""Problems of a write with an `Idempotency-Key`."""

STALENESS = (
    Header("KV-Applied-Slot", COUNT, "With consistency=stale: last slot that this replica has applied.", always=False),
    Header("KV-Applied-Revision", COUNT, "With consistency=stale: revision of the store at that slot.", always=False),
    Header(
        "KV-Age-Ms", COUNT, "With consistency=stale: milliseconds since the last message from the leader.", always=False
    ),
)
_AGAIN = Header("Retry-After", {"type": "integer"}, "Seconds after which to try again.", always=False)
HEADERS_OF_PROBLEMS: dict[ProblemKind, tuple[Header, ...]] = {
    NO_SUCH_KEY: STALENESS,
    PRECONDITION_FAILED: (
        Header("ETag", TAG_OF_KEY, "Present entity tag of the key; none if the key does not exist.", always=False),
        Header("KV-Revision", REVISION, "Present revision of the key; none if the key does not exist.", always=False),
    ),
    UNKNOWN_CONTENT_CODING: (Header("Accept-Encoding", TEXT, "The supported content coding: `identity`."),),
    COMPACTED: (Header("KV-Oldest-Revision", COUNT, "Oldest revision that can be read.", always=False),),
}
"""Headers of problems, except Retry-After."""


def headers_of(kinds: list[ProblemKind]) -> tuple[Header, ...]:
    """Return the headers that responses with these problems, of one status, may have."""
    own = {header.name: header for kind in kinds for header in HEADERS_OF_PROBLEMS.get(kind, ())}
    return (*own.values(), *((_AGAIN,) if kinds[0].status in (409, 429, 503) else ()))
