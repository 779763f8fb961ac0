"""What calls cost a server, many of them at once, and one that comes between two commands."""

import subprocess
import threading

import pytest
import redis

import cachelab as cl
from cachelab.lab.measure.callers import after_first, beside, counted, crowd


@pytest.fixture
def watcher(server: cl.Server) -> redis.Redis:
    return cl.connect(server.url, timeout=5)


def test_a_call_costs_the_commands_that_it_sends_and_no_other(watcher):
    for n in (0, 1, 3):
        assert counted(watcher, lambda n=n: [watcher.get("x") for _ in range(n)]).commands == n


def test_a_connection_counts_when_it_is_opened_and_not_when_it_is_used_again(watcher, server):
    with redis.Redis.from_url(server.url) as fresh:
        assert [counted(watcher, fresh.get, "x").connections for _ in range(2)] == [1, 0]


def test_what_the_call_returned_comes_with_its_cost(watcher):
    assert counted(watcher, watcher.echo, "so").result == "so"


def test_all_threads_of_a_crowd_are_there_before_one_of_them_calls():
    together = threading.Barrier(20, timeout=20)
    assert sorted(crowd(together.wait, threads=20)) == list(range(20))


def test_each_thread_calls_as_often_as_it_was_told():
    assert len(crowd(lambda: 1, threads=3, times=4)) == 12


def test_a_crowd_that_does_not_end_is_left_behind():
    go, begun = threading.Event(), []
    with pytest.raises(TimeoutError, match="2 of 2 threads still wait after 0.1 s"):
        crowd(lambda: (begun.append(1), go.wait()), threads=2, times=3, limit=0.1)
    left = [thread for thread in threading.enumerate() if "(work)" in thread.name]
    assert len(left) == 2 and all(thread.daemon for thread in left)
    go.set()
    for thread in left:
        thread.join()
    assert begun == [1, 1]  # they call no more


def test_what_a_call_of_a_crowd_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        crowd(lambda: 1 / 0, threads=2)


def test_another_program_comes_between_the_first_command_and_the_second(watcher, server):
    other = cl.connect(server.url, timeout=4)
    watcher.set("x", "mine")
    with after_first(watcher, lambda: other.set("x", "theirs")):
        seen = watcher.get("x"), watcher.get("x"), watcher.set("x", "mine"), watcher.get("x")
    assert seen == ("mine", "theirs", True, "mine")
    watcher.set("x", "mine")
    assert (watcher.get("x"), watcher.get("x")) == ("mine", "mine")  # the block has ended


def test_another_program_comes_between_what_a_transaction_reads_and_what_it_writes(watcher, server):
    other, tries = cl.connect(server.url, timeout=4), []
    watcher.set("x", 1)

    def add(block):
        tries.append(int(block.get("x")))
        block.multi()
        block.set("x", tries[-1] + 1)

    with after_first(watcher, lambda: other.set("x", 10)):  # after WATCH: the first try fails
        watcher.transaction(add, "x")
    assert tries == [10, 10] and watcher.get("x") == "11"


def test_another_program_comes_as_often_as_it_is_told(watcher):
    acted = []
    with after_first(watcher, lambda: acted.append(1), times=2):
        for _ in range(3):
            watcher.get("x")
    assert acted == [1, 1]


def test_another_program_comes_after_a_pipeline(watcher, server):
    other = cl.connect(server.url, timeout=4)
    with after_first(watcher, lambda: other.set("x", "theirs")):
        watcher.pipeline().set("x", "mine").get("x").execute()
        assert watcher.get("x") == "theirs"


def test_another_program_comes_though_the_first_command_fails(watcher):
    acted = []
    watcher.set("x", "text")
    with after_first(watcher, lambda: acted.append(1)), pytest.raises(redis.ResponseError):
        watcher.incr("x")
    assert acted == [1]


def test_calls_go_on_while_another_process_runs_a_program(watcher, server):
    watcher.delete("there")
    program = "client.set('there', 1)\nwhile client.get('there'): sleep(0.001)"

    def call():
        if watcher.get("there"):
            watcher.delete("there")  # ends the program

    times = beside(server.url, program, call)
    assert len(times) > 1 and all(0 < seconds < 60 for seconds in times)


def test_a_program_that_fails_is_said_to(server, capfd):
    with pytest.raises(subprocess.CalledProcessError):
        beside(server.url, "1 / 0", lambda: None)
    assert "ZeroDivisionError" in capfd.readouterr().err
