"""What a controller notes of its jobs, as Snakemake's logger tells of them."""

import logging

import pytest

from nemoflow import journal

OUTPUT = "results/micro/sft/checkpoint.json"


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A logger with a journal in an empty checkout."""
    monkeypatch.chdir(tmp_path)
    logger = logging.Logger("snakemake", logging.INFO)
    notes = journal.Journal()
    notes.drop_oldest()
    logger.addHandler(notes)
    return logger


def begin(log, output=OUTPUT, number=3):
    told = {
        "event": "job_info", "jobid": number, "rule_name": "sft", "wildcards": {"run": "micro"},
        "output": [output, "results/micro/sft/curve.csv"], "log": ["results/micro/logs/sft.log"],
    }  # fmt: skip
    log.info("a job", extra=told)


def fail(log, message, logs=()):
    told = {"event": "job_error", "jobid": 3, "rule_name": "sft", "rule_msg": message}
    log.error("failed", extra={**told, "log": list(logs)})


def test_a_job_is_followed_from_its_start_to_its_end(log):
    begin(log)
    assert journal.read()[OUTPUT].event == "started"
    log.info("Job 3 has been submitted with SLURM jobid 41 (log: /x/41.log).")
    known = journal.read()[OUTPUT]
    assert (known.event, known.slurm) == ("submitted", "41")
    assert known.logs == ["results/micro/logs/sft.log", "/x/41.log"]
    log.info(None, extra={"event": "job_finished", "job_id": 3})
    assert journal.read()[OUTPUT].event == "finished"


def test_a_failure_stays_until_the_job_begins_again(log):
    begin(log)
    fail(log, "SLURM-job '41' failed, SLURM status is: 'TIMEOUT'.\nmore", ["/x/41.log"])
    known = journal.read()[OUTPUT]
    assert (known.event, known.message) == (
        "failed",
        "SLURM-job '41' failed, SLURM status is: 'TIMEOUT'.",
    )
    begin(log)
    assert (journal.read()[OUTPUT].event, journal.read()[OUTPUT].message) == ("started", "")


def test_torn_lines_are_left_out_and_old_files_dropped(log, tmp_path):
    begin(log)
    folder = tmp_path / journal.FOLDER
    for number in range(journal.KEPT + 5):
        (folder / f"19700101T0000{number:02}-1.jsonl").write_text('{"event": "fin')
    assert journal.read()[OUTPUT].event == "started"
    journal.Journal().drop_oldest()
    assert len(list(folder.iterdir())) == journal.KEPT - 1
    assert OUTPUT in journal.read()


def test_nothing_is_known_where_nothing_ran(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert journal.read() == {}
    assert not (tmp_path / ".snakemake").exists()
