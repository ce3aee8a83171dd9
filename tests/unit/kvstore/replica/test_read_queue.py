from kvstore.api.errors import Outcome, Reason, Refused
from kvstore.api.results import ReadAnswer
from kvstore.replica.read_queue import ReadQueue, ReadRequest

Answers = list[tuple[str, ReadAnswer | Refused]]


def request(name: str, answers: Answers, deadline: int = 100) -> ReadRequest:
    return ReadRequest(name.encode(), lambda answer: answers.append((name, answer)), deadline)


def refusals(answers: Answers) -> list[tuple[str, Reason, Outcome]]:
    return [(name, answer.reason, answer.outcome) for name, answer in answers if isinstance(answer, Refused)]


def test_one_question_is_asked_for_all_that_wait() -> None:
    queries, answers = ReadQueue(), Answers()
    assert not queries.begin(1)
    queries.add(request("a", answers))
    queries.add(request("b", answers))
    assert queries.waiting == 2
    assert queries.begin(1)
    assert [one.query for one in queries.indexed(1)] == [b"a", b"b"]
    assert queries.waiting == 0


def test_rule_18_a_read_that_comes_after_the_question_waits_for_the_next_one() -> None:
    queries, answers = ReadQueue(), Answers()
    queries.add(request("a", answers))
    assert queries.begin(1)
    queries.add(request("b", answers))
    assert not queries.begin(2)
    assert [one.query for one in queries.indexed(1)] == [b"a"]
    assert queries.begin(2)
    assert [one.query for one in queries.indexed(2)] == [b"b"]


def test_an_answer_to_another_question_answers_nothing() -> None:
    queries, answers = ReadQueue(), Answers()
    queries.add(request("a", answers))
    queries.begin(1)
    assert not queries.indexed(2)
    assert len(queries.indexed(1)) == 1
    assert not queries.indexed(1)


def test_rule_23_a_read_that_waited_long_enough_fails_and_the_rest_wait_on() -> None:
    queries, answers = ReadQueue(), Answers()
    queries.add(request("a", answers, deadline=10))
    queries.add(request("b", answers, deadline=20))
    queries.begin(1)
    assert queries.next_deadline() == 10
    assert queries.expire(9) is None
    assert answers == []
    assert queries.expire(10) is None
    assert refusals(answers) == [("a", Reason.NO_LEADER, Outcome.FAILED)]
    assert queries.next_deadline() == 20
    assert [one.query for one in queries.indexed(1)] == [b"b"]


def test_a_question_that_nobody_waits_for_makes_room_for_the_next() -> None:
    queries, answers = ReadQueue(), Answers()
    queries.add(request("a", answers, deadline=10))
    queries.begin(1)
    queries.add(request("b", answers, deadline=20))
    assert queries.expire(10) == 1
    assert queries.expire(10) is None
    assert queries.next_deadline() == 20
    assert queries.begin(2)
    assert not queries.indexed(1)
    assert [one.query for one in queries.indexed(2)] == [b"b"]
    assert queries.next_deadline() is None


def test_a_read_that_waits_for_its_question_fails_in_time_too() -> None:
    queries, answers = ReadQueue(), Answers()
    queries.add(request("a", answers, deadline=10))
    assert queries.next_deadline() == 10
    assert queries.expire(10) is None
    assert refusals(answers) == [("a", Reason.NO_LEADER, Outcome.FAILED)]
    assert queries.next_deadline() is None
