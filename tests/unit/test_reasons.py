"""Which jobs can never start, and what is said of those that wait."""

import pytest

from nemoflow import reasons
from small_slurm import job


@pytest.mark.parametrize(
    "reason",
    [
        "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints",
        "InvalidAccount", "InvalidQOS", "QOSMaxNodePerJobLimit", "AssocMaxWallDurationPerJobLimit",
        "QOSMinGRES", "(PartitionConfig)",
    ],
)  # fmt: skip
def test_hopeless_reasons_say_what_to_change_for_which_rule(reason):
    said = reasons.never(job(state="PENDING", reason=reason))
    assert said.startswith(reason.strip("()"))
    assert said.endswith("of sft in the profile")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Resources", "for nodes to become free"),
        ("Priority", "other jobs come first"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "down, drained or reserved"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority"
            " partitions",
            "down, drained or reserved",
        ),
        ("QOSMaxJobsPerUserLimit", "for other jobs of the same account"),
        ("AssocGrpGRES", "for other jobs of the same account"),
        ("AssocGrpGRESMinutes", "budget is used up"),
        ("PartitionDown", "partition gpu is switched off"),
        ("JobHeldUser", "scontrol release 1"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_reasons_that_may_pass_are_told_and_not_hopeless(reason, words):
    waiting = job(state="PENDING", reason=reason)
    assert reasons.never(waiting) is None
    assert words in reasons.words(waiting)


def test_a_running_job_is_never_hopeless():
    assert reasons.never(job(reason="PartitionConfig")) is None


def test_what_sbatch_refused_is_one_line():
    message = (
        "SLURM sbatch failed. The error message was 'sbatch: error: Memory specification can not be"
        " satisfied\nsbatch: error: Batch job submission failed: Requested node configuration is"
        " not available'.\n    sbatch call:\n        sbatch --parsable …\n"
    )
    said = reasons.refusal(message)
    assert said.startswith("Slurm refused the job: Memory specification can not be satisfied Batch")
    assert "no node has what it asks for; change nodes, gres" in said
    assert "\n" not in said and "--parsable" not in said
    assert reasons.refusal("SLURM-job '3' failed") is None
