import pytest

pytest.register_assert_rewrite("tests.unit.paxos.harness")  # so that a failing `expect` shows what differs
