import operator
import os

import pytest

from fairdx.data.pool import ordered_map


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(ordered_map(operator.neg, range(40), workers=workers)) == [-i for i in range(40)]


def test_jobs_are_taken_only_a_little_ahead():
    taken = []
    results = ordered_map(operator.neg, (taken.append(i) or i for i in range(1000)), workers=2)
    assert next(results) == 0
    assert len(taken) < 10
    results.close()


def test_an_error_of_a_job_comes_through():
    with pytest.raises(ZeroDivisionError):
        list(ordered_map((1).__floordiv__, [1, 0], workers=1))
    with pytest.raises(TypeError):
        list(ordered_map(operator.neg, [1, "x"], workers=2))


def test_a_killed_process_is_one_sentence():
    with pytest.raises(RuntimeError, match=r"one of 2 processes was killed, .* with fewer workers"):
        list(ordered_map(os._exit, [0, 1, 2], workers=2))


@pytest.mark.parametrize("apart", [False, True])
def test_a_single_worker_may_be_a_process_of_its_own(apart):
    found = set(ordered_map(_process, range(5), workers=1, apart=apart))
    assert len(found) == 1
    assert (found == {os.getpid()}) is not apart


def _process(_):
    return os.getpid()
