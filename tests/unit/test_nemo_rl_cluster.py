"""The engine on two nodes of one machine, with stand-ins for Ray and for NeMo-RL's driver."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

import nemo_rl_stand_in
import ray_stand_in
from nemoflow import checkpoint, metrics, specs
from nemoflow.config import Config
from nemoflow.files import read_json, write_json
from nemoflow.launch import INTERRUPTED, STOPPED

ROWS = 1024  # four steps of rlvr1


class Cluster:
    """A job, and the machine it runs on."""

    def __init__(self, folder):
        self.folder, self.progress = folder, folder / "progress"
        for name in ("ray", "prompts", "init", "progress"):
            (folder / name).mkdir()
        (folder / "prompts" / "train.jsonl").write_text("{}\n" * ROWS)
        ray_stand_in.install(folder / "bin")
        nemo_rl_stand_in.install(folder / "nemo-rl")
        told, options = specs.rl(Config("config"), "super3", "rlvr1")
        told |= {"judges": {}}
        job = {
            "task": "rl",
            "title": "rl.rlvr1",
            "config": told,
            "options": {**options, "save_every": 2},
            "seed": 42,
            "inputs": {"init": str(folder / "init"), "prompts": str(folder / "prompts")},
            "progress": str(self.progress),
            "machine": {"nodes": 2, "gpus": 8, "threads": 1, "generate_nodes": 1},
        }
        write_json(folder / "job.json", job)

    def start(self, how=None, **environment):
        """Both nodes' processes, the first node's first."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "RAY_STAND_IN": str(self.folder / "ray"),
            "RAY_STAND_IN_GPUS": "8",
            "NEMO_RL_STAND_IN": json.dumps(how or {}),
            "NEMOFLOW_NEMO_RL": str(self.folder / "nemo-rl"),
            "NEMOFLOW_HOSTS": "gpu01,gpu02",
            "NEMOFLOW_RAY_SECONDS": "30",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "SLURM_NTASKS": "2",
            **environment,
        }
        argv = [sys.executable, "-m", "nemoflow.engines.nemo_rl", str(self.folder / "job.json")]
        return [
            subprocess.Popen(
                argv,
                env={**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": "0"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in (0, 1)
        ]

    def run(self, how=None, **environment):
        """(exit codes, outputs) of both nodes."""
        return ended(self.start(how, **environment))

    def steps(self):
        """The steps of metrics.jsonl."""
        return [line["step"] for line in metrics.read(self.progress / "metrics.jsonl")]


def ended(processes):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], outputs


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A job whose driver fails in its last step, and the same again; outputs by start."""
    cluster = Cluster(tmp_path_factory.mktemp("story"))
    failed = cluster.run({"crash_at": 4})
    (cluster.progress / "nemo_rl" / "tmp_step_4").mkdir()
    return cluster, failed, cluster.run()


def test_a_failed_driver_is_resumed(story):
    cluster, (failed, told), (codes, outputs) = story
    assert failed == [1, 0]
    assert "exit code 9 after the checkpoint of step 2 of 4" in told[0]
    assert codes == [0, 0]
    assert "tmp_step_4 is no whole checkpoint; removed" in outputs[0]
    assert "Step 3" in outputs[0] and "Step 2" not in outputs[0]
    lines = metrics.read(cluster.progress / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["tokens"] for line in lines] == [1000, 2000, 3000, 4000]
    assert {"loss", "reward", "lr", "grad_norm", "seconds"} <= lines[0].keys()
    assert lines[3]["seconds"] == 8.0


def test_the_last_step_is_left_for_the_stage_to_publish(story):
    final = checkpoint.final(story[0].progress)
    state = read_json(final / "state.json")
    assert final.name == "step_0000004"
    assert (state["task"], state["step"], state["tokens"]) == ("rl", 4, 4000)
    assert (final / "policy" / "weights" / "iter_0000000" / "w").read_text() == "weights of 4"
    assert not (final / "config.yaml").exists()  # it names folders of this machine


def test_ray_starts_once_on_each_node_and_stops(story):
    calls = [json.loads(line) for line in (story[0].folder / "ray" / "calls.jsonl").open()]
    heads = [call for call in calls if "--head" in call]
    workers = [call for call in calls if call[0] == "start" and "--head" not in call]
    assert len(heads) == len([call for call in calls if call[0] == "stop"]) == 2  # two starts
    assert all("--block" in call for call in workers)
    resources = json.loads(next(w for w in heads[0] if "worker_units" in w).partition("=")[2])
    assert resources == {"worker_units": 8, "slurm_managed_ray_cluster": 1, "nemoflow_rank_0": 1}


@pytest.mark.parametrize(
    ("environment", "told"),
    [({"RAY_STAND_IN_LOST": "1"}, "without gpu02, 8 of 16 GPUs"),
     ({"RAY_STAND_IN_GPUS": "7"}, "with all nodes, 14 of 16 GPUs")],
)  # fmt: skip
def test_nodes_that_are_not_there_are_named(cluster, environment, told):
    codes, outputs = cluster.run(NEMOFLOW_RAY_SECONDS="6", **environment)
    assert codes[0] == 1
    assert told in outputs[0]
    assert not (cluster.progress / "nemo_rl" / "logs").exists()


def test_sigterm_ends_it_and_it_goes_on(cluster):
    processes = cluster.start({"seconds": 0.3})
    deadline = time.time() + 300
    while not (cluster.progress / "nemo_rl" / "step_2").exists() and time.time() < deadline:
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    codes, outputs = ended(processes)
    assert codes == [INTERRUPTED, 0]
    assert "SIGTERM; ended with the checkpoint of step 2 of 4" in outputs[0]
    assert cluster.run()[0] == [0, 0]
    assert cluster.steps() == [1, 2, 3, 4]


def test_a_time_limit_ends_it_saved(cluster):
    """The last minute is kept for ending in order."""
    codes, outputs = cluster.run({"seconds": 1.2}, NEMOFLOW_ENDS=str(time.time() + 63))
    assert codes == [INTERRUPTED, 0]
    assert "its time limit is near" in outputs[0]
    assert checkpoint.final(cluster.progress) is None


def test_a_loss_that_is_not_finite_stops_it_for_good(cluster):
    codes, outputs = cluster.run({"nan_at": 2})
    assert codes == [STOPPED, 0]
    assert "not finite" in outputs[0]
    assert not (cluster.progress / "nemo_rl" / "step_2").exists()
    told = read_json(cluster.progress / "stopped.json")
    assert told["step"] == 2


def test_an_error_that_nemo_rl_passes_over_is_none_of_success(cluster):
    codes, outputs = cluster.run({"swallow_at": 3})
    assert codes == [1, 0]
    assert "exit code 0 after the checkpoint of step 2 of 4" in outputs[0]
