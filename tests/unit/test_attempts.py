"""The time of a training job over its attempts: none is lost, and none is counted twice."""

import os
from pathlib import Path

import pytest

from nemoflow.attempts import Attempts
from nemoflow.files import write_json


@pytest.fixture
def progress(tmp_path):
    return tmp_path


def works_until(progress: Path, when: float) -> None:
    """A job writes its last line; its marks are from before."""
    (progress / "metrics.jsonl").touch()
    for path in progress.iterdir():
        os.utime(path, (1000.0, 1000.0))
    os.utime(progress / "metrics.jsonl", (when, when))


def test_a_killed_attempt_has_spent_what_lies_before_its_last_sign_of_life(progress):
    Attempts.of(progress).begin(1000.0)
    works_until(progress, 1060.0)
    second = Attempts.of(progress)
    second.begin(5000.0)
    assert second.facts() == {"attempts": 2, "first": 1000.0, "spent": 60.0}
    works_until(progress, 5030.0)
    third = Attempts.of(progress)
    third.begin(9000.0)
    assert third.facts() == {"attempts": 3, "first": 1000.0, "spent": 90.0}


def test_an_attempt_that_gave_no_sign_has_spent_nothing(progress):
    Attempts.of(progress).begin(2000.0)
    works_until(progress, 1500.0)  # a line of an attempt before
    assert Attempts.of(progress).spent == 0.0


def test_a_finished_job_is_adopted_with_its_time_however_often(progress):
    attempts = Attempts.of(progress)
    attempts.begin(1000.0)
    assert attempts.facts()["spent"] == 0.0  # its own time is that of the job that records it
    attempts.end(1100.0)
    for when in (7000.0, 8000.0):
        works_until(progress, when)  # published.json and others are written later still
        adopted = Attempts.of(progress)
        assert adopted.facts() == {"attempts": 1, "first": 1000.0, "spent": 100.0}
        adopted.end(when + 1)


def test_an_orphan_that_ended_alone_is_adopted_with_its_time(progress):
    Attempts.of(progress).begin(1000.0)
    works_until(progress, 1500.0)
    adopted = Attempts.of(progress)
    adopted.end(9000.0)
    works_until(progress, 9000.0)
    assert Attempts.of(progress).facts() == {"attempts": 1, "first": 1000.0, "spent": 500.0}


def test_work_of_an_earlier_release_counts_its_attempts_alone(progress):
    write_json(progress / "attempts.json", {"count": 2})
    attempts = Attempts.of(progress)
    attempts.begin(3000.0)
    assert attempts.facts() == {"attempts": 3, "first": 3000.0, "spent": 0.0}
