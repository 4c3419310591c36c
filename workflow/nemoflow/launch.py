"""One command line for the heavy work of a stage.

On one machine a subprocess, or torchrun; inside a Slurm job one srun that repeats nodes, tasks,
GPUs and CPUs, since an srun inside an MPI rule inherits none of them. Containers start there too:
Snakemake and the scripts stay outside. Variables go in by name, so no line holds a value of them.
"""

import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemoflow import allocation, images, site
from nemoflow.allocation import Allocation
from nemoflow.containers import Container
from nemoflow.errors import UserError
from nemoflow.machine import Machine

MODULES = {
    "local": "nemoflow.engines.local",
    "megatron": "nemoflow.engines.megatron",
    "nemo_rl": "nemoflow.engines.nemo_rl",
    "hf": "nemoflow.engines.harness",
    "vllm": "nemoflow.engines.harness",
    "endpoint": "nemoflow.engines.harness",
}
ONE_PROCESS = ("local", "hf", "endpoint")  # started as they are, wherever
PER_GPU = ("megatron",)  # one process for each; the others start their own, one per node
STOPPED = 3  # exit code of a training that stopped itself; it has said why
INTERRUPTED = 75  # of one that saved a checkpoint and ended early; the same command goes on


@dataclass(frozen=True)
class Line:
    """A command, what is added to its environment, and a service that runs as long."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    beside: "Line | None" = None

    def __str__(self) -> str:
        """As a shell would take it."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.env.items()]
        shown = " ".join([*words, shlex.join(self.argv)])
        return f"{self.beside} &\n{shown}" if self.beside else shown


def line(config: dict[str, Any], task: str, job: Path, machine: Machine) -> Line:
    """The line that works on a job file; `config` is the identity of the stage's spec.

    Raises:
        UserError: the engine needs what the machine, the site or the profile does not give.
    """
    engine = engine_of(config, task)
    if engine in ONE_PROCESS:
        return Line([sys.executable, "-m", MODULES[engine], str(job)])
    if not machine.gpus:
        raise UserError(
            f"{task}: engine {engine} needs GPUs, and this profile gives the rule none (gres); use"
            " one that does, such as profiles/b200, or a run of engine: local, such as super3-tiny"
        )
    if task == "eval_task" and machine.nodes > 1:
        raise UserError("eval_task: vLLM evaluates on one node; correct nodes in the profile")
    here, given = site.load(), allocation.of_this_job()
    environments = config.get("environments", [])
    name = images.of_engine(engine, config.get("release"), environments)
    by_gpu, by_srun = engine in PER_GPU, starts_by_srun(machine, here.containers)
    env = environment(given, by_srun) | {"NEMOFLOW_IMAGE": name}
    beside = service(environments, machine)
    if beside:
        env |= beside.env
    container = Container.of(here, name, env)
    program = ["-m", MODULES[engine], str(job)]
    if by_gpu and (not by_srun or here.launcher == "torchrun"):
        program = [*torchrun(machine, env), *program]
        by_gpu = False
    program = container.wrap([container.python, *program])
    start = [*srun(machine, by_gpu), *container.flags] if by_srun else []
    return Line([*start, *program], env, beside)


def engine_of(config: dict[str, Any], task: str) -> str:
    """The engine of a task; evaluation has backends, and a cluster's conversions are Megatron's.

    NeMo-RL's checkpoints are Megatron's, which Megatron-Bridge imports and exports.
    """
    engine = config["backend"] if task == "eval_task" else config["engine"]
    return "megatron" if task in ("import", "export") and engine == "nemo_rl" else engine


def environment(given: Allocation | None, by_srun: bool) -> dict[str, str]:
    """What every process of a job is told: where the first is, its nodes, the end of its time."""
    hosts = given.hosts if given else ["FIRST_NODE" if by_srun else "localhost"]
    port = 20000 + int(given.job) % 10000 if given else 29500  # two jobs may share a node
    ends = {"NEMOFLOW_ENDS": str(given.ends)} if given and given.ends else {}
    return {
        "MASTER_ADDR": hosts[0],
        "MASTER_PORT": str(port),
        "NEMOFLOW_HOSTS": ",".join(hosts),
        "PYTHONPATH": str(Path("workflow").resolve()),
        **ends,
    }


def starts_by_srun(machine: Machine, containers: str) -> bool:
    """Whether srun starts the processes: not on one machine without Slurm, nor inside a step.

    Raises:
        UserError: a step of one task, as of a rule without mpi, where that is not enough.
    """
    if not allocation.in_step():
        return "SLURM_JOB_ID" in os.environ or machine.nodes > 1 or containers == "pyxis"
    if machine.nodes > 1 or containers == "pyxis":
        raise UserError(
            "the profile gives this rule GPUs without mpi: srun and tasks_per_node (the GPUs per"
            " node); without them Slurm starts one task on one node, and no container"
        )
    return False


def srun(machine: Machine, by_gpu: bool) -> list[str]:
    """The inner srun: one task per GPU, or one per node with the CPUs of all."""
    tasks = machine.gpus if by_gpu else 1
    cpus = machine.threads if by_gpu else machine.threads * machine.gpus
    return [
        "srun",
        f"--nodes={machine.nodes}",
        f"--ntasks-per-node={tasks}",
        f"--gpus-per-node={machine.gpus}",
        f"--cpus-per-task={cpus}",
        "--kill-on-bad-exit=1",
    ]


def torchrun(machine: Machine, env: dict[str, str]) -> list[str]:
    """The agent that starts one process per GPU of its node."""
    agent = ["-m", "torch.distributed.run", f"--nproc-per-node={machine.gpus}"]
    if machine.nodes == 1:
        return [*agent, "--standalone"]
    meeting = f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}"
    return [
        *agent,
        f"--nnodes={machine.nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={meeting}",
        f"--rdzv-id={env['MASTER_PORT']}",
    ]


def service(environments: list[str], machine: Machine) -> Line | None:
    """The container that runs on every node beside an RL step whose environments need it."""
    if not (name := images.of_environments(environments)):
        return None
    image, here = images.named(name), site.load()
    if here.containers == "none":
        raise UserError(
            f"this step's environments need the container {name} beside them; set containers in"
            " profiles/site.yaml"
        )
    port = str(image.port)
    env = {key: port for key in ("NEMO_SKILLS_SANDBOX_PORT", "LISTEN_PORT", "NGINX_PORT")}
    container = Container.of(here, name, env)
    step = ["srun", "--overlap", f"--nodes={machine.nodes}", "--ntasks-per-node=1"]
    return Line([*step, *container.flags, *container.wrap(image.command)], env)
