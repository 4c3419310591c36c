"""A config edited while jobs wait in the queue is for later jobs."""

from cluster.conftest import controller
from cluster.slurm import eventually
from workflow.checkout import TARGET

WAIT = "eval:slurm_extra='--begin=now+12'"


def published(value: float) -> str:
    """A line of the run's `eval`; one short job depends on it."""
    return f"  published: {{rl: {{micro_facts: {{value: {value}, tolerance: 0.1}}}}}}\n"


def test_a_key_changed_after_the_submission_is_for_later_jobs(slurm, copy):
    """Jobs read the rules again when they start, and find the config of their submission."""
    copy.edit("config/micro.yaml", "\neval:\n", f"\neval:\n{published(0.5)}")
    started = copy.start(*controller(copy, "--set-resources", WAIT, "--", TARGET))
    [job] = eventually(lambda: slurm.jobs(copy.folder))
    assert job["state"] == "PENDING"
    copy.edit("config/micro.yaml", published(0.5), published(0.25))
    assert started.wait(120) == 0, (copy.folder / "output.txt").read_text()
    assert copy.json(TARGET)["stages"]["rl"]["micro_facts"]["published"] == 0.5
    assert copy.planned(TARGET) == {"eval": 1}
