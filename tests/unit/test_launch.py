"""The one line of a job: where it starts its processes, in what, with which variables."""

import sys
from pathlib import Path

import pytest

from nemoflow import launch
from nemoflow.errors import UserError
from nemoflow.machine import Machine

JOB = Path("job.json")
FOUR = Machine(nodes=4, gpus=8, threads=12)
SRUN = ["srun", "--nodes=4", "--ntasks-per-node=8", "--gpus-per-node=8", "--cpus-per-task=12"]
SRUN += ["--kill-on-bad-exit=1"]
NODES = ["srun", "--nodes=4", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=96"]
NODES += ["--kill-on-bad-exit=1"]
IMAGES = """
images:
  nemo: {about: trains, reference: registry.example.org/nemo:1, engines: [megatron]}
  nemo_rl: {about: RL, reference: registry.example.org/rl:1, engines: [nemo_rl], python: python3}
  eval: {about: scores, reference: registry.example.org/eval:1, engines: [vllm]}
  sandbox: {about: runs, reference: box:1, environments: [ns_tools], command: [/go], port: 6000}
"""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A checkout outside Slurm, without a site."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/images.yaml").write_text(IMAGES)
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "NEMOFLOW_CONTAINERS", "NEMOFLOW_LAUNCHER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def in_slurm(tmp_path, monkeypatch):
    """In job 17 on n3 and n4, of an MPI rule: of Slurm's variables there is its number alone."""
    for name, printed in (("squeue", "n[3-4]|2024-05-01T12:00:00"), ("scontrol", "n3\nn4")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{printed}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("TZ", "UTC")


def line(machine, engine="megatron", task="sft", **config):
    return launch.line({"engine": engine, **config}, task, JOB, machine)


def program(engine, python=sys.executable):
    return [python, "-m", f"nemoflow.engines.{engine}", "job.json"]


def test_the_local_engine_and_its_harness_are_plain_processes_wherever(in_slurm):
    assert line(Machine(), "local").argv == program("local")
    for backend in ("hf", "endpoint"):
        told = launch.line({"backend": backend}, "eval_task", JOB, Machine())
        assert told.argv == program("harness") and not told.env


def test_one_machine_with_gpus_starts_torchrun():
    told = line(Machine(gpus=2))
    agent = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    assert told.argv == [sys.executable, *agent, "-m", "nemoflow.engines.megatron", "job.json"]
    assert told.env["MASTER_ADDR"] == "localhost" and "NEMOFLOW_ENDS" not in told.env


def test_in_slurm_srun_repeats_all_and_starts_one_process_per_gpu(in_slurm):
    told = line(FOUR)
    assert told.argv == [*SRUN, *program("megatron")]
    assert told.env["MASTER_ADDR"] == "n3" and told.env["NEMOFLOW_HOSTS"] == "n3,n4"
    assert told.env["NEMOFLOW_ENDS"] == "1714564800" and told.env["MASTER_PORT"] == "20017"
    assert told.env["NEMOFLOW_IMAGE"] == "nemo"
    assert told.env["PYTHONPATH"] == str(Path("workflow").resolve())


def test_ray_and_vllm_have_one_process_per_node_with_the_cpus_of_all(in_slurm):
    assert line(FOUR, "nemo_rl", "rl").argv == [*NODES, *program("nemo_rl")]
    told = launch.line({"backend": "vllm"}, "eval_task", JOB, Machine(gpus=8, threads=12))
    assert told.argv == ["srun", "--nodes=1", *NODES[2:], *program("harness")]
    with pytest.raises(UserError, match="one node"):
        launch.line({"backend": "vllm"}, "eval_task", JOB, FOUR)


def test_every_cluster_export_is_megatrons(in_slurm):
    assert line(FOUR, "nemo_rl", "export").argv == [*SRUN, *program("megatron")]


def test_a_site_may_prefer_torchrun(in_slurm, monkeypatch):
    monkeypatch.setenv("NEMOFLOW_LAUNCHER", "torchrun")
    agent = ["-m", "torch.distributed.run", "--nproc-per-node=8", "--nnodes=4"]
    meeting = ["--rdzv-backend=c10d", "--rdzv-endpoint=n3:20017", "--rdzv-id=20017"]
    last = ["-m", "nemoflow.engines.megatron", "job.json"]
    assert line(FOUR).argv == [*NODES, sys.executable, *agent, *meeting, *last]


def test_pyxis_has_its_flags_on_the_inner_srun(in_slurm, monkeypatch):
    monkeypatch.setenv("NEMOFLOW_CONTAINERS", "pyxis")
    told = line(FOUR)
    assert told.argv[: len(SRUN)] == SRUN and told.argv[-4:] == program("megatron", "python")
    assert "--container-image=registry.example.org#nemo:1" in told.argv


@pytest.mark.parametrize("containers", ["none", "enroot"])
def test_a_step_of_one_task_cannot_start_more(in_slurm, monkeypatch, containers):
    """Of a rule without mpi: on one node torchrun does, over two or with pyxis nothing does."""
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert line(Machine(gpus=8)).argv[:3] == [sys.executable, "-m", "torch.distributed.run"]
    with pytest.raises(UserError, match="mpi: srun and tasks_per_node"):
        line(FOUR)
    monkeypatch.setenv("NEMOFLOW_CONTAINERS", "pyxis")
    with pytest.raises(UserError, match="mpi: srun and tasks_per_node"):
        line(Machine(gpus=8))


def test_a_service_goes_beside_the_step_that_needs_it_alone(in_slurm, monkeypatch):
    with pytest.raises(UserError, match="container sandbox beside them; set containers"):
        line(FOUR, "nemo_rl", "rl", environments=["ns_tools"])
    monkeypatch.setenv("NEMOFLOW_CONTAINERS", "pyxis")
    assert line(FOUR, "nemo_rl", "rl", environments=["mcqa"]).beside is None
    told = line(FOUR, "nemo_rl", "rl", environments=["mcqa", "ns_tools"])
    assert told.beside.argv[:4] == ["srun", "--overlap", "--nodes=4", "--ntasks-per-node=1"]
    assert told.beside.argv[-1] == "/go" and "--container-image=box:1" in told.beside.argv
    assert told.env["NEMO_SKILLS_SANDBOX_PORT"] == told.beside.env["LISTEN_PORT"] == "6000"
    assert str(told).splitlines()[0].endswith("/go &")


def test_without_gpus_a_cluster_engine_is_refused():
    with pytest.raises(UserError, match=r"sft: engine megatron needs GPUs.*gres.*engine: local"):
        line(Machine())


def test_outside_slurm_a_line_of_several_nodes_can_be_read():
    told = str(line(FOUR))
    assert told.startswith("MASTER_ADDR=FIRST_NODE ") and " srun --nodes=4 " in told


def test_no_value_of_the_environment_stands_in_a_line(in_slurm, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "marker")
    monkeypatch.setenv("NEMOFLOW_ENVIRONMENT", "HF_TOKEN")
    for containers in ("pyxis", "apptainer", "none"):
        monkeypatch.setenv("NEMOFLOW_CONTAINERS", containers)
        told = line(FOUR)
        assert "marker" not in str(told) and "marker" not in str(told.env)
