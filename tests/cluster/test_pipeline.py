"""The whole pipeline as Slurm jobs makes what it makes on one machine."""

import pytest

from cluster.conftest import controller
from workflow.checkout import TARGET, Checkout

DATA = ("tokenizer", "plan", "tokens", "corpus", "blend", "render", "pack", "resolve")
SCORES = ("eval_task", "eval")
# Each Slurm job starts Snakemake twice, 5 s of a core. What trains is a job of its own; the rest
# is two, its rules one after the other inside them (`nodes` would be added up).
GROUPED = (
    "--groups",
    *(f"{rule}=data" for rule in DATA),
    *(f"{rule}=scores" for rule in SCORES),
    *("--set-resource-scopes", "nodes=local", "--resources", "nodes=1"),
)


def test_the_micro_run_as_slurm_jobs_makes_the_same_bytes(slurm, built, fresh):
    fresh.run(*controller(fresh, *GROUPED, "--", TARGET), check=True)
    assert fresh.products() == built.products()
    assert not slurm.jobs(fresh.folder)


@pytest.mark.long
def test_the_tiny_run_as_slurm_jobs_makes_the_same_bytes(slurm, tmp_path):
    target = "results/super3-tiny/eval.json"
    local, cluster = Checkout.fresh(tmp_path / "local"), Checkout.fresh(tmp_path / "cluster")
    local.build(target)
    cluster.run(*controller(cluster, "--", target), check=True)
    assert cluster.products() == local.products()
