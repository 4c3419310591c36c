"""The production profile's GPU jobs on a real Slurm: which processes start, where, in what."""

import json
import os
import shutil
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from cluster.conftest import controller
from nemoflow.config.load import Config
from workflow.checkout import Checkout

RUNS = ("super3", "nano3")
RULES = ("pretrain", "sft", "rl", "export", "eval_task")
SECRET = "marker-of-a-secret-5f1c"  # noqa: S105
# Two nodes instead of 96; the tests' machine has no 2 TB of memory, and two cores for all.
SCALED = {"mem_mb": 500, "runtime": 10, "slurm_extra": "--exclusive"}
QUICK = ("--retries", "0", "--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "6")
SANDBOX = "env | grep -c STAND_IN_PYXIS_IMAGE=sandbox:1 > seen/sandbox-$SLURM_NODEID; sleep 600"


def production(checkout: Checkout) -> None:
    """The micro run's sizes under the recipes' names, on the engines of the cluster."""
    run = dict(Config(checkout.folder / "config").raw["runs"]["micro"]["value"])
    for key in ("extends", "start", "init"):
        run.pop(key, None)
    run["pretrain"] |= {"engine": "megatron"}
    run["sft"] |= {"engine": "megatron"}
    run["rl"] |= {"engine": "nemo_rl"}
    for section in (run["pretrain"]["phases"]["phase1"], run["sft"]):
        section["batch"] |= {"global": 16, "micro": 1}  # what 16 GPUs can share
    run["eval"] |= {"backend": "vllm", "stages": ["sft"], "tasks": ["micro_facts"]}
    del run["pretrain"]["phases"]["phase2"], run["rl"]["steps"]["rlvr2"]
    for name, environment in zip(RUNS, ("mcqa", "ns_tools"), strict=True):
        run["rl"]["steps"]["rlvr1"]["environments"] = [environment]  # the second needs a sandbox
        (checkout.folder / f"config/{name}.yaml").write_text(yaml.safe_dump(run))
        place = Path("results", name, "pretrain/phase1/blend.json")  # no GPUs, nothing to see
        (checkout.folder / place).parent.mkdir(parents=True)
        shutil.copy(
            checkout.folder / "results/micro/pretrain/phase1/blend.json", checkout.folder / place
        )
    images = yaml.safe_load((checkout.folder / "envs/images.yaml").read_text())
    images["images"]["eval"]["reference"] = "registry.example.org/eval:1"
    images["images"]["sandbox"] |= {"reference": "sandbox:1", "command": ["sh", "-c", SANDBOX]}
    (checkout.folder / "envs/images.yaml").write_text(yaml.safe_dump(images))
    scale(checkout.folder / "profiles/b200/config.yaml")
    engines = checkout.folder / "workflow/nemoflow/engines"
    stand_in = (Path(__file__).parent / "stand_in_engine.py").read_text()
    for name in ("megatron/__main__.py", "nemo_rl/__main__.py", "harness.py"):
        (engines / name).write_text(stand_in)


def scale(path: Path) -> None:
    """The production profile at two nodes; --set-resources would replace all that it sets."""
    profile = yaml.safe_load(path.read_text())
    profile["default-resources"]["mem_mb"] = 500
    profile["set-threads"] |= dict.fromkeys(RULES, 1)
    for rule in RULES:
        profile["set-resources"][rule] |= SCALED
        if rule != "eval_task":
            profile["set-resources"][rule]["nodes"] = 2
    profile["set-resources"]["rl"] |= {"generate_nodes": 1, "environment_nodes": 0}
    path.unlink()  # it may be a link
    path.write_text(yaml.safe_dump(profile))


def secret_in_process_list() -> set[str]:
    """The programs that show the secret to whoever looks at the process list."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it has ended
            continue
        if SECRET.encode() in line:
            found.add(line.decode(errors="replace"))
    return found


@pytest.fixture(scope="module")
def launched(slurm, built, tmp_path_factory):
    """What the GPU jobs of both runs saw: {job: [one mapping per process]}."""
    checkout = built.copy(tmp_path_factory.mktemp("launch") / "checkout")
    production(checkout)
    (checkout.folder / "seen").mkdir()
    shown, done = set(), threading.Event()

    def look():
        while not done.wait(0.5):
            shown.update(secret_in_process_list())

    looking = threading.Thread(target=look)
    looking.start()
    with pytest.MonkeyPatch.context() as patch:
        told = {"CONTAINERS": "pyxis", "PARTITION": "gpu", "CPU_PARTITION": "cpu"}
        told |= {"MOUNTS": "/usr:/models", "ENVIRONMENT": "HF_TOKEN"}
        for key, value in told.items():
            patch.setenv(f"NEMOFLOW_{key}", value)
        for key in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, SECRET)
        targets = [f"results/{run}/rl/rlvr1/checkpoint.json" for run in RUNS]
        targets += [f"results/{run}/eval/sft/micro_facts.json" for run in RUNS]
        output = checkout.run(
            *controller(checkout, *QUICK, "--", *targets, profile="profiles/b200")
        )
    done.set()
    looking.join()
    assert output.returncode == 0, output.stdout
    seen = {
        folder.name: [json.loads(path.read_text()) for path in folder.iterdir()]
        for folder in (checkout.folder / "seen").iterdir()
        if folder.is_dir()
    }
    return SimpleNamespace(checkout=checkout, seen=seen, shown=shown, output=output.stdout)


def job(run: str, rule: str) -> str:
    """The name under which the stand-in tells of a job."""
    places = {"pretrain": "pretrain-phase1", "rl": "rl-rlvr1", "eval_task": "eval-sft"}
    return f"{run}-{places.get(rule, rule)}"


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("rule", ["pretrain", "sft", "export"])
def test_one_process_per_gpu_on_every_node(launched, run, rule):
    seen = launched.seen[job(run, rule)]
    ranks = [(int(p["RANK"]), p["SLURMD_NODENAME"], int(p["LOCAL_RANK"])) for p in seen]
    assert sorted(ranks) == [(i, f"n{1 + i // 8}", i % 8) for i in range(16)]
    assert {p["WORLD_SIZE"] for p in seen} == {"16"}
    assert {p["CUDA_VISIBLE_DEVICES"] for p in seen} == {"0,1,2,3,4,5,6,7"}


@pytest.mark.parametrize("run", RUNS)
def test_ray_has_one_process_per_node_and_evaluation_one(launched, run):
    for rule, nodes in (("rl", ["n1", "n2"]), ("eval_task", ["n1"])):
        seen = launched.seen[job(run, rule)]
        assert len(seen) == len(nodes) and {p["WORLD_SIZE"] for p in seen} == {str(len(nodes))}
        assert rule == "eval_task" or sorted(p["SLURMD_NODENAME"] for p in seen) == nodes
        assert {p["CUDA_VISIBLE_DEVICES"] for p in seen} == {"0,1,2,3,4,5,6,7"}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("rule", RULES)
def test_every_process_knows_the_first_node_and_the_end_of_its_time(launched, run, rule):
    seen = launched.seen[job(run, rule)]
    (first,) = {p["MASTER_ADDR"] for p in seen}
    assert {p["NEMOFLOW_HOSTS"].split(",")[0] for p in seen} == {first} <= {"n1", "n2"}
    for key in ("MASTER_PORT", "NEMOFLOW_ENDS"):
        assert len({p[key] for p in seen}) == 1 and seen[0][key].isdecimal()


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("rule", RULES)
def test_every_process_is_in_the_image_of_its_engine(launched, run, rule):
    name = {"rl": "nemo_rl", "eval_task": "eval"}.get(rule, "nemo")
    images = yaml.safe_load((launched.checkout.folder / "envs/images.yaml").read_text())["images"]
    root = str(launched.checkout.folder)
    for process in launched.seen[job(run, rule)]:
        assert process["NEMOFLOW_IMAGE"] == name
        assert process["STAND_IN_PYXIS_IMAGE"].replace("#", "/") == images[name]["reference"]
        assert process["STAND_IN_PYXIS_MOUNTS"] == f"{root}:{root},/usr:/models"
        assert process["folder"] == process["STAND_IN_PYXIS_WORKDIR"] == root
        assert {"PYTHONPATH", "HF_TOKEN"} <= {*process["STAND_IN_PYXIS_ENV"].split(",")}


def test_the_sandbox_runs_beside_the_step_that_needs_it_and_ends_with_it(launched, slurm):
    told = {path.name: path.read_text() for path in launched.checkout.folder.glob("seen/sandbox-*")}
    assert told == {"sandbox-0": "1\n", "sandbox-1": "1\n"}
    assert not slurm.jobs(launched.checkout.folder)


def test_a_secret_reaches_every_process_and_is_written_nowhere(launched, slurm):
    lengths = Counter(p["secret"] for seen in launched.seen.values() for p in seen)
    assert set(lengths) == {len(SECRET)}
    assert not launched.shown and SECRET not in launched.output
    for path in launched.checkout.folder.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    kept = [
        path
        for path in slurm.folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    # slurmctld keeps a job's environment while it knows the job (MinJobAge), for SlurmUser alone.
    for path in kept:
        assert path.name == "environment" and "state" in path.parts, path
        assert os.stat(path).st_mode & 0o077 == 0, path
