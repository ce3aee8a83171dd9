"""Whether an answer is one of those that `/openapi.json` describes."""

import json
import re
from functools import cache
from typing import Any

from jsonschema_rs import Draft202012Validator

from kvstore.server.http.openapi.document import openapi
from kvstore.server.http.openapi.pages import openapi_page
from kvstore.server.http.problems import METHOD_NOT_ALLOWED, NO_SUCH_RESOURCE, Problem, ProblemKind
from kvstore.server.http.request_target import split_target
from kvstore.server.http.response import HttpResponse, StreamedResponse

DOCUMENT: dict[str, Any] = json.loads(openapi_page().body)
OF_ANY_ANSWER = {"cache-control", "connection", "content-type", "date", "transfer-encoding"} | {
    "content-security-policy",
    "referrer-policy",
    "x-content-type-options",
}
"""Headers that say nothing about the store."""


def faults(method: str, target: str, answer: HttpResponse | StreamedResponse) -> list[str]:
    """What is not as it is described. `answer` is what the front end gives to a request for `target`."""
    headers, body = _parts(answer)
    what = f"{method} {target}: {answer.status} {headers} {body[:300]!r}"
    if target == "*":
        return [] if _is(json.loads(body), METHOD_NOT_ALLOWED) else [f"OPTIONS * names no resource: {what}"]
    operations = operations_of(target)
    if method.lower() not in operations:
        return [] if _is_of_no_call(operations, headers, body) else [f"no call does that: {what}"]
    described = operations[method.lower()]["responses"].get(str(answer.status))
    if described is None:
        return [f"the status is not described: {what}"]
    known = {name.lower(): header for name, header in described["headers"].items()}
    found = [f"the header {name} is not described: {what}" for name in headers.keys() - known.keys() - OF_ANY_ANSWER]
    found += [
        f"the header {name} is missing: {what}"
        for name, header in known.items()
        if header["required"] and name not in headers
    ]
    if "content" not in described:
        return found
    content = described["content"].get(headers["content-type"])
    if content is None:
        return [*found, f"the content type is not described: {what}"]
    if headers["content-type"].endswith("json") and isinstance(answer, HttpResponse):
        found += [f"{error.message}: {what}" for error in _validator(json.dumps(content)).iter_errors(json.loads(body))]
    return found


def operations_of(target: str) -> dict[str, Any]:
    """What is described of the path of `target`, by method."""
    try:
        path, _ = split_target(target.partition("#")[0])
    except Problem:
        return {}
    found: list[dict[str, Any]] = [
        operations for template, operations in DOCUMENT["paths"].items() if re.fullmatch(_pattern(template), path)
    ]
    return found[0] if found else {}


def _pattern(template: str) -> str:
    """A key, and the name of a lock, is all of the rest."""
    whole = template.replace("{key}", ".+").replace("/locks/{name}", "/locks/.+")
    whole = whole.replace("{file}", "[a-z]+[.](js|css)")
    return whole.replace("{name}", "[^/]+").replace("{id}", "[1-9][0-9]*")


def _is_of_no_call(operations: dict[str, Any], headers: dict[str, str], body: bytes) -> bool:
    """404 where there is nothing, 405 with all that is there. What is malformed may be told first."""
    problem = json.loads(body)
    if problem["status"] in (400, 403, 421, 429, 503):
        return True
    if not operations:
        return _is(problem, NO_SUCH_RESOURCE)
    allowed = {method.lower() for method in headers.get("allow", "").split(", ")}
    return _is(problem, METHOD_NOT_ALLOWED) and allowed == operations.keys()


def _is(problem: dict[str, Any], kind: ProblemKind) -> bool:
    return bool(problem["type"] == f"urn:kvstore:problem:{kind.name}")


def _parts(answer: HttpResponse | StreamedResponse) -> tuple[dict[str, str], bytes]:
    lines = answer.fields.decode().split("\r\n")[:-1]
    body = answer.body if isinstance(answer, HttpResponse) else b""
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


@cache
def _validator(content: str) -> Draft202012Validator:
    return Draft202012Validator({**json.loads(content)["schema"], "components": openapi()["components"]})
