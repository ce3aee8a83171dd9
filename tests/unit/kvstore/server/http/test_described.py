"""What /openapi.json, /docs and / say, and whether it is so. That each answer of all other tests is described, too, is
looked after in conftest.py."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from kvstore.server import http
from kvstore.server.http.openapi.document import kinds
from kvstore.server.http.openapi.operations import OPERATIONS as API_OPERATIONS
from kvstore.server.http.problems import (
    HEAD_TOO_LARGE,
    METHOD_NOT_ALLOWED,
    NO_SUCH_MEMBER,
    NO_SUCH_RESOURCE,
    TARGET_TOO_LONG,
    UNKNOWN_METHOD,
    UNKNOWN_TRANSFER_CODING,
    UNSUPPORTED_VERSION,
    Problem,
)
from kvstore.server.http.response import HttpResponse
from tests.unit.kvstore.server.http.described import DOCUMENT, faults, operations_of
from tests.unit.kvstore.server.http.fake import Reply, Store, request, run

JSON = b"Content-Type: application/json\r\n"
METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE")
OPERATIONS = [(path, method.upper()) for path, operations in DOCUMENT["paths"].items() for method in operations]
OF_NO_CALL = {
    HEAD_TOO_LARGE,
    METHOD_NOT_ALLOWED,
    NO_SUCH_RESOURCE,
    TARGET_TOO_LONG,
    UNKNOWN_METHOD,
    UNKNOWN_TRANSFER_CODING,
    UNSUPPORTED_VERSION,
}
FILLED = {"{file}": "app.js", "{key}": "a", "{name}": "n9", "{id}": "9"}


def fill(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    assert "{" not in path, f"give the parameter in {path} a value in FILLED"
    return path


def parameters(path: str, method: str) -> list[str]:
    described = DOCUMENT["paths"][path][method.lower()]["parameters"]
    return sorted(each["name"] for each in described if each["in"] == "query")


def test_every_resource_of_the_server_is_described() -> None:
    async def scenario(store: Store) -> None:
        roots = {*store.frontend._paths, *store.frontend._folders}
        assert [root for root in roots if not any(path.startswith(root) for path in DOCUMENT["paths"])] == [], (
            "describe the calls in kvstore/server/http/openapi/operations"
        )

    run(scenario)


@pytest.mark.parametrize("target", ["/nothing", "/members/a/b", "/members/", "/leases/9/b"])
def test_every_path_that_a_404_names_is_described(target: str) -> None:
    async def scenario(store: Store) -> None:
        problem = (await store.call("GET", target)).problem()
        assert problem["type"].endswith(NO_SUCH_RESOURCE.name)
        named = re.findall(r"/[^\s,]*", problem["detail"].partition("GET /")[0])
        assert named
        assert [name for name in named if not operations_of(name.rstrip("."))] == []

    run(scenario)


def test_methods_are_answered_or_not_as_described(subtests: pytest.Subtests) -> None:
    """Whatever is asked for: a call that exists is answered by something else than 404 for the path, or 405."""

    async def scenario(store: Store) -> None:
        for path, operations in DOCUMENT["paths"].items():
            described = {method.upper() for method in operations}
            target = fill(path) + ("?consistency=never" if path in {"/backup", "/events"} else "")
            async with await store.wire() as wire:
                for method in METHODS:
                    reply = await wire.ask(request(method, target))
                    with subtests.test(path=path, method=method):
                        assert_as_described(reply, method, described)

    run(scenario)


def assert_as_described(reply: Reply, method: str, described: set[str]) -> None:
    if method in described:
        assert reply.status != 405
        assert reply.status != 404 or method == "HEAD" or NO_SUCH_RESOURCE.name not in reply.problem()["type"]
    elif reply.status == 405:
        assert set(reply.headers["allow"].split(", ")) == described
    else:
        assert (method, reply.status) == ("TRACE", 400)


def test_the_parameters_are_those_that_the_code_reads(subtests: pytest.Subtests) -> None:
    """A query with one that is not known is refused, with the list of those that are."""

    async def scenario(store: Store) -> None:
        for path, method in OPERATIONS:
            target = f"{fill(path)}?no-such-parameter=1"
            async with await store.wire() as wire:
                with subtests.test(path=path, method=method):
                    reply = await wire.ask(request(method, target))
                    assert reply.status == 400
                    if method == "HEAD":
                        reply = await wire.ask(request("GET", target))
                    known = re.findall(r"Known here: (.*)\.$", reply.problem()["detail"])[0]
                    assert sorted([] if known == "none" else known.split(", ")) == parameters(path, method)

    run(scenario)


def test_queries_are_taken_apart_in_one_place_only() -> None:
    """So that the test before this one sees all parameters."""
    sources = Path(http.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if re.search(r"parse_qs|\.query\b|split\(.&", path.read_text())] == [
        "query_parameters.py"
    ]


def test_every_problem_is_described() -> None:
    nowhere = {kind.name for kind in kinds() if not any(kind in call.all_problems for call in API_OPERATIONS)}
    assert nowhere <= {kind.name for kind in OF_NO_CALL}, (
        "name it in the problems of the calls that it can meet, kvstore/server/http/openapi"
    )
    for call in API_OPERATIONS:
        responses = DOCUMENT["paths"][call.path][call.method.lower()]["responses"]
        described = {
            kind.name
            for kind in kinds()
            if f"`{kind.name}`" in responses.get(str(kind.status), {}).get("description", "")
        }
        assert described == {kind.name for kind in kinds() if kind in call.all_problems}, call.name


def test_a_call_is_described_once() -> None:
    assert len(OPERATIONS) == len(API_OPERATIONS)
    assert len({call.name for call in API_OPERATIONS}) == len(API_OPERATIONS)


def test_the_file_is_of_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft202012Validator({**schema, "components": DOCUMENT["components"]})
        assert not name.startswith("_")
    for reference in references(DOCUMENT):
        assert reference.rpartition("/")[2] in DOCUMENT["components"]["schemas"]
    for path, method in OPERATIONS:
        operation = DOCUMENT["paths"][path][method.lower()]
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))


def references(part: Any) -> list[str]:
    match part:
        case {"$ref": str(reference)}:
            return [reference]
        case dict():
            return [each for value in part.values() for each in references(value)]
        case list():
            return [each for value in part for each in references(value)]
        case _:
            return []


@pytest.mark.parametrize("page", ["/openapi.json", "/docs"])
def test_pages_are_not_sent_again_to_who_has_them(page: str) -> None:
    async def scenario(store: Store) -> None:
        first = await store.call("GET", page)
        assert first.status == 200
        etag = first.headers["etag"]
        for known in (etag, f"W/{etag}", f'"7", {etag}', "*"):
            again = await store.call("GET", page, headers={"If-None-Match": known})
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        other = await store.call("GET", page, headers={"If-None-Match": '"7"'})
        assert other.body == first.body

    run(scenario)


class _Reader(HTMLParser):
    """What a page loads, links to, and has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in {"src", "srcset", "style"}, "nothing is loaded, and the policy takes no style on tags"
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def test_the_page_has_all_calls_needs_no_script_and_leads_nowhere_else() -> None:
    async def scenario(store: Store) -> None:
        reply = await store.call("GET", "/docs")
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        text = reply.body.decode()
        page = _Reader()
        page.feed(text)
        assert page.tags.isdisjoint({"script", "link", "img", "iframe", "form", "object"})
        assert "@import" not in text
        assert "url(" not in text
        assert len(page.ids) == len(set(page.ids))
        for link in page.links:
            assert link == "/openapi.json" or link.removeprefix("#") in page.ids
        assert {call.name for call in API_OPERATIONS if call.method != "HEAD"} <= set(page.ids)
        assert {kind.name for kind in kinds()} <= set(page.ids)

    run(scenario)


def test_the_root_names_every_call() -> None:
    async def scenario(store: Store) -> None:
        lines = (await store.call("GET", "/")).body.decode().splitlines()
        calls = {tuple(line.split()[:2]) for line in lines if line.startswith("  ")}
        assert {(method, path) for path, method in OPERATIONS if method != "HEAD"} <= calls

    run(scenario)


def test_what_is_not_described_is_noticed() -> None:
    answers = {
        "a status": ("GET", "/kv/a", HttpResponse(202, JSON, b"{}")),
        "a header": (
            "DELETE",
            "/kv/?prefix=a",
            HttpResponse(200, JSON + b"KV-New: 1\r\n", b'{"revision":1,"deleted":1}'),
        ),
        "a missing header": ("PUT", "/kv/a", HttpResponse(200, JSON, b'{"key":"a","revision":1,"version":1}')),
        "a field": ("DELETE", "/kv/?prefix=a", HttpResponse(200, JSON, b'{"revision":1,"deleted":1,"new":1}')),
        "a content type": ("GET", "/status", HttpResponse(200, b"Content-Type: text/plain\r\n", b"")),
        "a problem": ("GET", "/kv/a", Problem(NO_SUCH_MEMBER, "detail").response("GET")),
        "a call": ("PUT", "/status", Problem(NO_SUCH_MEMBER, "detail").response("PUT")),
    }
    assert [what for what, (method, target, answer) in answers.items() if not faults(method, target, answer)] == []
