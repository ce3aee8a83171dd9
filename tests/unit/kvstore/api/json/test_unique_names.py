"""Objects with a name twice, in every document that a person or a program writes."""

import pytest

from kvstore.api.json.transaction_parsing import InvalidTransactionError, transaction_of
from kvstore.api.json.unique_names import RepeatedNameError, refuse_repeated_names
from tests.unit.kvstore.server.http.fake import Store, run


@pytest.mark.parametrize(
    "document", ['{"a":1,"b":2,"a":3}', '[{"x":[{"a":{},"a":{}}]}]', '{"a":1,"\\u0061":1}', '{"":1,"":1}']
)
def test_a_name_that_is_repeated_is_found_at_any_depth_and_in_any_spelling(document: str) -> None:
    with pytest.raises(RepeatedNameError, match="twice"):
        refuse_repeated_names(document.encode())


@pytest.mark.parametrize("document", ["{}", "[]", '{"a":{"a":[{"a":1},{"a":1}]}}', "1" + "0" * 5000, '{"A":1,"a":2}'])
def test_other_documents_pass(document: str) -> None:
    refuse_repeated_names(document.encode())


def test_a_transaction_with_two_lists_of_conditions_is_refused_instead_of_losing_one() -> None:
    body = b'{"compare":[{"key":"a","exists":false}],"compare":[],"then":[{"put":{"key":"a","value":"1"}}]}'
    with pytest.raises(InvalidTransactionError, match="'compare' twice"):
        transaction_of(body)


def test_a_lease_with_two_times_to_live_is_refused() -> None:
    async def scenario(store: Store) -> None:
        for path in ("/leases", "/locks/a"):
            reply = await store.call("POST", path, b'{"ttl_s":60,"ttl_s":1}')
            assert reply.status == 400
            assert "'ttl_s' twice" in reply.problem()["detail"]

    run(scenario)
