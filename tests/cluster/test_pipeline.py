"""The whole pipeline as Slurm jobs makes what it makes on one machine."""

import pytest

from cluster.conftest import controller
from workflow.checkout import Checkout


def test_the_micro_run_as_slurm_jobs_makes_the_same_bytes(pipeline, slurm, built):
    checkout, started = pipeline
    assert started.wait(600) == 0, (checkout.folder / "output.txt").read_text()
    assert checkout.products() == built.products()
    assert not slurm.jobs(checkout.folder)


@pytest.mark.long
def test_the_tiny_run_as_slurm_jobs_makes_the_same_bytes(slurm, tmp_path):
    target = "results/super3-tiny/eval.json"
    local, cluster = Checkout.fresh(tmp_path / "local"), Checkout.fresh(tmp_path / "cluster")
    local.build(target)
    cluster.run(*controller(cluster, "--", target), check=True)
    assert cluster.products() == local.products()
