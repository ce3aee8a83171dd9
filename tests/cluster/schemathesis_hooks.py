"""What schemathesis asks of a replica, bounded; see schemathesis.toml."""

from typing import Any

import schemathesis

LONGEST_WAIT_S = 0.05
"""A POST for a lock that is held may ask to wait for a minute."""


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    body = case.body
    if isinstance(body, dict):
        wait_s = body.get("wait_s")
        if isinstance(wait_s, int | float):
            body["wait_s"] = min(wait_s, LONGEST_WAIT_S)
