"""The trace that every machine has: the names of Python's own source, in the order of reading."""

import keyword

import numpy as np
import pytest

from cachelab.lab import policies, traces


def test_names_come_in_the_order_of_paths_without_keywords_texts_and_comments(tmp_path):
    (tmp_path / "b.py").write_text("def last(): pass\n")
    (tmp_path / "a.py").write_text("first = 'text'  # comment\nif first:\n    print(first)\n")
    (tmp_path / "a.txt").write_text("no source")
    trace = traces.python_names(9, tmp_path)
    assert trace.names == ["first", "print", "last"] and trace.ids.tolist() == [0, 0, 1, 0, 2]


def test_tests_and_what_others_have_installed_are_left_out(tmp_path):
    for folder in ("test", "site-packages", "json"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text(f"{folder[:4]}_ = 1\n")
    assert traces.python_names(9, tmp_path).names == ["json_"]


@pytest.mark.parametrize("broken", [b"a = (\n", b"b = 1\n  c = 2\n", b"# coding: none\n", b"\xff"])
def test_source_that_is_broken_ends_its_own_file_alone(tmp_path, broken):
    (tmp_path / "a.py").write_bytes(broken)
    (tmp_path / "b.py").write_text("last = 1\n")
    assert traces.python_names(9, tmp_path).names[-1] == "last"


def test_a_folder_without_source_is_refused(tmp_path):
    with pytest.raises(traces.TraceError, match="holds no Python source"):
        traces.python_names(9, tmp_path)


def test_of_the_librarys_own_names_as_many_as_asked_for_come_each_time_the_same():
    trace = traces.python_names(5000)
    assert np.array_equal(trace.ids, traces.python_names(5000).ids)
    assert len(trace.ids) == 5000 and trace.ids.max() + 1 == len(trace.names)
    assert not any(map(keyword.iskeyword, trace.names))


def test_names_that_were_just_read_are_wanted_again_as_chance_would_not_have_it():
    ids = traces.python_names(20_000).ids
    shuffled = np.random.default_rng(0).permutation(ids)
    rate = {
        policy: [policies.simulate(policy, trace, 100).mean() for trace in (ids, shuffled)]
        for policy in ("LRU", "LFU")
    }
    assert rate["LRU"][0] > rate["LRU"][1] + 0.1  # the control has the same names, equally often
    assert rate["LRU"][0] > rate["LFU"][0] + 0.1 and rate["LRU"][1] < rate["LFU"][1]
