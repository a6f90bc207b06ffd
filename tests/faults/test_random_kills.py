import pytest

from tests.faults import random_kills

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]


def test_a_job_that_is_killed_at_random_ends_as_an_undisturbed_one(tmp_path):
    outcome = random_kills.torment(tmp_path, kills=4, seed=1, images=1_600)
    assert outcome.killed.total() == 4
    assert random_kills.check(outcome) == 2 * 1_600 + 8
    assert outcome.progress == sorted(outcome.progress), "nothing that was done is lost"
