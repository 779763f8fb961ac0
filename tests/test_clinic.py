"""The clinic: its questions lead to each patient's cause, and its cure makes the numbers usual."""

import math

import pytest
import redis

import cachelab as cl
from cachelab.lab import clinic
from cachelab.lab.watch.clinic import CASES, CAUSES, CURES, EXAM, QUESTIONS, TAUGHT

# What a cause brings with it: odd as well, and later in the order of the questions.
FOLLOWS = {2: {"hits"}, 6: {"hits", "immortal"}, 11: {"hits"}, 12: {"hits"}, 13: {"hits"}}
LEFT = {"let any key be evicted": {"immortal"}}  # what a right cure leaves as it is


@pytest.fixture(scope="module", params=CASES)
def patient(request):
    with clinic.patient(request.param) as patient:
        patient.observe()
        yield patient


@pytest.fixture(scope="module")
def one():
    with clinic.patient(6) as patient:
        yield patient


def question_of(patient) -> str:
    return CAUSES[CASES[patient.number].cause].question


def test_the_first_odd_number_is_that_of_the_cause_and_few_others_are_odd(patient):
    odd = clinic.odd(patient.evidence)
    first = next(name for name in odd if name != "hits")  # which says only: see those below
    assert first == question_of(patient)
    assert set(odd) == {first} | FOLLOWS.get(patient.number, set())


def test_each_right_cure_makes_all_numbers_usual_and_the_telling_one_by_far(patient):
    name = question_of(patient)
    for cure in CAUSES[CASES[patient.number].cause].cures:
        table = patient.cure(cure)
        assert set(clinic.odd(patient.evidence)) == LEFT.get(cure, set())
        before, after = table.loc[list(QUESTIONS).index(name), ["before", "after"]]
        assert math.isnan(after) or max(before, after) >= 2 * min(before, after)


def test_every_cause_is_told_by_a_number_of_its_own_and_has_one_patient():
    told = [cause.question for cause in CAUSES.values()]
    assert sorted(told) == sorted(QUESTIONS.keys() - {"hits"})
    assert sorted(case.cause for case in CASES.values()) == sorted(CAUSES)
    assert {cure for cause in CAUSES.values() for cure in cause.cures} == set(CURES)


def test_ten_are_taught_and_those_of_the_exam_are_others():
    assert len(TAUGHT) == 10 and not set(TAUGHT) & set(EXAM)
    assert {*TAUGHT, *EXAM} == set(CASES)


@pytest.mark.parametrize("number", CASES)
def test_neither_a_symptom_nor_a_hint_names_the_cause_or_the_cure(number):
    patient = clinic.patient(number)
    said = " ".join([repr(patient), *(clinic.hint(patient, step) for step in (1, 2, 3))])
    case = CASES[number]
    assert not any(name in said for name in (case.cause, *CAUSES[case.cause].cures))


def outcome(patient, cause, cure) -> list[str]:
    """Return "held" or what was seen instead, for each sentence."""
    seen = []
    for holds in clinic.diagnose(patient, cause, cure).values():
        try:
            assert holds()
            seen.append("held")
        except AssertionError as error:
            seen.append(str(error))
    return seen


def test_a_right_diagnosis_holds(one):
    right = ("full, and nothing may be evicted", "let each entry expire")
    assert outcome(one, *right) == ["held", "held"]


def test_a_wrong_diagnosis_is_told_which_number_speaks_against_it(one):
    cause, cure = outcome(one, "a value that is too big", "open a connection for each worker")
    assert cause.startswith("its number is as usual. How many kB does the server send")
    assert cure == "the first odd number still is odd"  # which, it does not give away


def test_a_wrong_cure_of_the_right_cause_is_told_the_number_that_stays_odd(one):
    _, cure = outcome(one, CASES[6].cause, "open a connection for each worker")
    assert cure.startswith("Of a hundred commands, how many are refused or fail? ")


def test_a_cause_whose_number_is_odd_as_well_is_told_that_another_one_comes_first(one):
    cause, _ = outcome(one, "entries that never expire", None)
    assert cause == "its number is odd, and another one is before it"


def test_who_names_nothing_is_told_so(one):
    assert outcome(one, None, None) == ["no cause is named", "no cure is named"]


def test_a_cure_that_only_helps_for_now_is_not_taken_for_one(one):
    assert outcome(one, CASES[6].cause, "give the server more memory") == [
        "held",
        "the number is as usual for now, the cause is still there",
    ]


def test_the_frames_show_what_the_program_and_the_server_saw(one):
    frames = one.frames()
    assert list(frames) == ["waits", "commands", "big", "hot", "prefixes"]
    waits = frames["waits"].set_index("name")
    assert waits.loc["a request", "n"] == clinic.REQUESTS
    assert 0 < waits.loc["a request", "server_ms"] < waits.loc["a request", "p50_ms"]
    assert "order:" in set(frames["prefixes"]["prefix"])
    assert "get" in set(frames["commands"]["command"])


def test_a_patient_works_in_the_background_while_others_look(one):
    before = one.client.info("stats")["keyspace_hits"]
    with one.working():
        while one.client.info("stats")["keyspace_hits"] == before:
            pass


def test_a_patient_leaves_neither_program_nor_server():
    with clinic.patient(10) as patient:
        port = patient.client.connection_pool.connection_kwargs["port"]
        program = patient._program
    assert program.returncode is not None
    with pytest.raises(cl.RedisUnavailable):
        cl.connect(f"redis://127.0.0.1:{port}")


def test_a_patient_whose_program_died_can_be_started_anew(one):
    one._program.kill()
    with pytest.raises(RuntimeError, match="patient 6 has ended: start"):
        one.observe()
    assert "refused" in clinic.odd(one.start().observe())


def program(client, key):
    """An unseen program: it reads what it has just written, 200 times."""

    def serve():
        errors = 0
        for number in range(200):
            try:
                client.set(f"page:{number % 20}", "text", ex=60)
                client.get(key(number))
            except redis.RedisError:
                errors += 1
        return {"requests": 200, "workers": 1, "calls": 400, "errors": {"ResponseError": errors}}

    return serve


UNSEEN = {
    "well": (lambda number: f"page:{number % 20}", []),
    "reads what nobody stores": (lambda number: f"other:{number}", ["hits"]),
    "takes a list for a text": (lambda number: "list:1", ["refused"]),
}


@pytest.mark.parametrize(("key", "odd"), UNSEEN.values(), ids=UNSEEN)
def test_the_questions_can_be_asked_of_a_program_that_nobody_has_seen(client, key, odd):
    client.rpush("list:1", "a")
    client.expire("list:1", 60)
    assert clinic.odd(clinic.examine(client, program(client, key))) == odd


def unseen(client, page):
    """Return a program of one worker that no patient is: what a page returns it meant to send."""

    def serve():
        calls = sum(page(number) for number in range(200))
        return {"requests": 200, "workers": 1, "calls": calls, "errors": {}}

    return clinic.examine(client, serve)


def test_a_program_that_pings_before_each_call_is_not_told_that_its_commands_get_lost(client):
    client.set("page", "text", ex=60)
    seen = unseen(client, lambda number: 10 * sum((client.ping(), bool(client.get("page")))))
    assert "arrives" in clinic.odd(seen)  # the control: of twenty only two were sent

    def page(number):
        return sum(2 for _ in range(5) if client.ping() and client.get("page"))

    assert clinic.odd(unseen(client, page)) == ["trips"]


def test_entries_that_are_deleted_at_once_are_told_where_few_reads_find_theirs(client):
    def page(number):
        if client.get("page") is None:
            client.set("page", "text", ex=60)
        return 2 + client.delete("page")

    seen = unseen(client, page)
    table = clinic.questions(seen).set_index("question")
    assert clinic.odd(seen) == ["hits"]
    assert table.loc[QUESTIONS["hits"].text, "remark"] == "0 hits, 200 misses, 200 deletes"


def test_a_key_that_is_hardly_used_is_not_hot_because_no_other_is_left(client):
    client.config_set("maxmemory-policy", "allkeys-lfu")
    client.set("page", "text", ex=60)
    client.get("page")

    def page(number):  # a lock, which is gone when the keys are looked at
        return client.set("lock", number, nx=True, ex=60) + client.delete("lock")

    try:
        assert clinic.odd(unseen(client, page)) == []
    finally:
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: clinic.patient(14), "number must be at most 13"),
        (lambda: clinic.patient("1"), "number must be a whole number"),
        (lambda: clinic.hint(clinic.patient(1), 4), "step must be at most 3"),
        (lambda: clinic.diagnose(clinic.patient(1), "a cold", None), "cause must be one of None, "),
        (lambda: clinic.patient(1).cure("tea"), "name must be one of 'await"),
        (lambda: clinic.patient(1).questions(), r"patient 1 is not here: call start\(\)"),
        (lambda: clinic.patient(1).serve(), "patient 1 is not here"),
    ],
)
def test_what_is_no_number_or_name_of_the_clinic_is_refused(call, said):
    with pytest.raises((TypeError, ValueError, RuntimeError), match=said):
        call()
