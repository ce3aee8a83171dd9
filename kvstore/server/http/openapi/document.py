"""The description as OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1.html)."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec

from kvstore import __version__
from kvstore.api.json.documents import ProblemDocument, ResponseDocument
from kvstore.api.json.transaction_request import OperationRequest
from kvstore.api.json.transaction_result import OperationResultDocument
from kvstore.server.http import problems
from kvstore.server.http.openapi.description import (
    PROBLEM,
    ApiOperation,
    ApiResponse,
    Body,
    Header,
    Parameter,
    Schema,
    headers_of,
)
from kvstore.server.http.openapi.operations import OPERATIONS, TAGS
from kvstore.server.http.problems import ProblemKind

BASE = "http://127.0.0.1:8001"
"""Address of the replica in examples: the first one of `make cluster`."""

TITLE = "kvstore"
ABOUT = """\
A replicated, linearizable key-value store. Every replica answers every request.

The error response to a write says in `outcome` whether the write had no effect (`failed`) or may have been done
(`unknown`). Without a majority a request ends within 3 s with 503. Another path is answered with 404
(`no-such-resource`), another method with 405 (`method-not-allowed`) and an `Allow` header. A request to an
unknown host name is answered with 421 (`unknown-host`). Bytes that are not HTTP/1.1 are answered with 400
(`malformed-request`), 414 (`target-too-long`), 431 (`head-too-large`), 501 (`unknown-method`,
`unknown-transfer-coding`) or 505 (`unsupported-version`), and the end of the connection."""

_REFERENCE = "#/components/schemas/{name}"
_ONE_OF: Schema = {"minProperties": 1, "maxProperties": 1}
_NARROWER: dict[type, Schema] = {
    OperationRequest: _ONE_OF,
    OperationResultDocument: _ONE_OF,
    ProblemDocument: {"required": ["type", "title", "status", "detail"]},
}
"""Constraints that the types do not express: they hold for whatever this server takes and sends."""


def openapi() -> Schema:
    """Return the OpenAPI document. Raises TypeError for a type without a schema."""
    schemas = _Schemas()
    paths = {
        path: {call.method.lower(): _operation(call, schemas) for call in calls}
        for path, calls in groupby(sorted(OPERATIONS, key=lambda call: call.path), key=lambda call: call.path)
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": __version__, "description": ABOUT},
        "servers": [{"url": "/", "description": "The replica that serves this document."}],
        "tags": [{"name": tag.name, "description": tag.text} for tag in TAGS],
        "paths": paths,
        "components": {"schemas": schemas.components},
    }


def kinds() -> list[ProblemKind]:
    """Return all kinds of problems, by status."""
    found = (value for value in vars(problems).values() if isinstance(value, ProblemKind))
    return sorted(found, key=lambda kind: (kind.status, kind.name))


def example_of(call: ApiOperation) -> str:
    """Return the example command."""
    return call.curl.replace("BASE", BASE)


class _Schemas:
    """The schemas of all types."""

    def __init__(self) -> None:
        shapes = [shape for call in OPERATIONS for shape in _shapes(call) if not isinstance(shape, dict)]
        _, components = msgspec.json.schema_components([*shapes, ProblemDocument], ref_template=_REFERENCE)
        self.components: dict[str, Schema] = {_public(name): _in_public(schema) for name, schema in components.items()}
        for shape, narrower in _NARROWER.items():
            self.components[_name(shape)] |= narrower
        for shape in _below(ResponseDocument):
            if (schema := self.components.get(_name(shape))) is not None:
                schema["additionalProperties"] = False  # none is there that is not described; clients ignore others

    def of(self, shape: Any) -> Schema:
        """Return the schema of a type, or `shape` itself if that is one."""
        return shape if isinstance(shape, dict) else {"$ref": _REFERENCE.format(name=_name(shape))}


def _name(shape: type) -> str:
    return _public(shape.__name__)


def _public(name: str) -> str:
    """Return the name of a type without what says nothing to users of the API."""
    return name.removesuffix("Document")


def _below(base: type[ResponseDocument]) -> Iterator[type[ResponseDocument]]:
    for shape in base.__subclasses__():
        yield shape
        yield from _below(shape)


def _shapes(call: ApiOperation) -> list[Any]:
    replied = [shape for reply in call.responses for shape in reply.media.values()]
    return replied if call.body is None else [call.body.shape, *replied]


def _in_public(schema: Any) -> Any:
    """Return a schema without titles, which repeat the name; with public names of other schemas; texts in one line."""
    match schema:
        case dict():
            return {
                name: _in_public(value) for name, value in schema.items() if name != "title" or isinstance(value, dict)
            }
        case list():
            return [_in_public(each) for each in schema]
        case str() if schema.startswith(_REFERENCE.format(name="")):
            return _public(schema)
        case str():
            return " ".join(schema.split())
        case _:
            return schema


def _operation(call: ApiOperation, schemas: _Schemas) -> Schema:
    document: Schema = {
        "operationId": call.name,
        "tags": [call.tag.name],
        "summary": call.summary,
        "description": call.text or call.summary,
        "parameters": [_parameter(each) for each in call.parameters],
        "responses": _responses(call, schemas),
        "x-codeSamples": [{"lang": "Shell", "label": "curl", "source": example_of(call)}],
    }
    if call.body is not None:
        document["requestBody"] = _body(call.body, schemas)
    return document


def _parameter(parameter: Parameter) -> Schema:
    document: Schema = {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required or parameter.where == "path",
        "description": parameter.text,
        "schema": parameter.schema,
    }
    if parameter.example is not None:
        document["example"] = parameter.example
    return document


def _body(body: Body, schemas: _Schemas) -> Schema:
    media: Schema = {"schema": schemas.of(body.shape)}
    if body.example is not None:
        media["example"] = body.example
    return {"description": body.text, "required": body.required, "content": {body.media: media}}


def _responses(call: ApiOperation, schemas: _Schemas) -> Schema:
    documents = {str(reply.status): _reply(reply, schemas) for reply in call.responses}
    for status, each in groupby(call.all_problems, key=lambda kind: kind.status):
        found = list(each)
        documents[str(status)] = _problem(found, with_body=call.method != "HEAD")
    return documents


def _reply(reply: ApiResponse, schemas: _Schemas) -> Schema:
    document: Schema = {"description": reply.text, "headers": _headers(reply.headers)}
    if reply.media:
        document["content"] = {media: {"schema": schemas.of(shape)} for media, shape in reply.media.items()}
    return document


def _problem(found: list[ProblemKind], *, with_body: bool) -> Schema:
    document: Schema = {
        "description": " ".join(f"`{kind.name}`: {kind.title}." for kind in found),
        "headers": _headers(headers_of(found)),
    }
    if with_body:
        types = {"type": {"enum": [urn(kind) for kind in found]}}
        reference = {"$ref": _REFERENCE.format(name=_name(ProblemDocument))}
        document["content"] = {PROBLEM: {"schema": {"allOf": [reference, {"properties": types}]}}}
    return document


def urn(kind: ProblemKind) -> str:
    """Return the `type` of a problem."""
    return f"urn:kvstore:problem:{kind.name}"


def _headers(headers: tuple[Header, ...]) -> Schema:
    return {
        header.name: {"description": header.text, "required": header.always, "schema": header.schema}
        for header in headers
    }
