"""A profile: what a machine gives to each rule, and what its GPUs can do.

`config.yaml` is Snakemake's; a name that Snakemake ignores, or a value that it would hand on to
fail at the submission, is found here. `machine.yaml` beside it says what Snakemake does not ask.
"""

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from nemoflow import specs
from nemoflow.config import Config, layers, yaml12
from nemoflow.config.base import Number, Positive, Strict
from nemoflow.config.messages import nearest, validated
from nemoflow.errors import UserError
from nemoflow.expression import NUMBER, evaluated, leaves, misnamed
from nemoflow.machine import Machine

Precision = Literal["fp32", "bf16", "fp8", "nvfp4"]
Share = dict[Precision, Number]

# What snakemake-executor-plugin-slurm 2.8.0 reads, what Snakemake knows, and our own two.
NUMBERS = {
    "nodes", "tasks", "tasks_per_node", "tasks_per_gpu", "cpus_per_task", "cpus_per_gpu", "gpu",
    "mem_mb", "mem_mib", "mem_mb_per_cpu", "disk_mb", "disk_mib", "generate_nodes",
    "environment_nodes",
}  # fmt: skip
TEXTS = {
    "gres", "gpu_model", "constraint", "qos", "mpi", "slurm_extra", "slurm_account",
    "slurm_partition", "slurm_cluster", "cluster", "clusters", "reservation", "tmpdir",
}  # fmt: skip
EITHER = {"runtime", "mem", "disk"}  # 240, or 4h
MACHINE = ("nodes", "gres", "generate_nodes", "environment_nodes")


class Utilisation(Strict):
    """Assumed share of a precision's peak that a stage reaches, in the model's own FLOPs."""

    pretrain: Share
    sft: Share
    rl: Share = Field(description="the policy's training and log-probabilities")
    generate: Share = Field(description="rollouts: token by token, bound by memory")


class Hours(Strict):
    """Assumed duration of the jobs that do not train."""

    export: Number = Field(gt=0)
    eval_task: Number = Field(gt=0)


class Hardware(Strict):
    """`machine.yaml`: a profile's GPUs, and the assumptions behind hours and disk."""

    gpu: str = Field(description="kind, in words for messages")
    memory_gb: Positive = Field(description="of one GPU, 10^9 bytes")
    peak_tflops: Share = Field(description="dense, of one GPU, by the precisions that it has")
    utilisation: Utilisation
    hours: Hours


def rules(folder: Path) -> list[str]:
    """The rules in a folder of rule files."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.smk"))]
    return re.findall(r"^(?:rule|checkpoint) (\w+):", "\n".join(texts), flags=re.M)


def wildcards_of(rule: str) -> set[str] | None:
    """The wildcards of a rule that has a spec; None where that does not tell."""
    if rule not in specs.SPECS:
        return None
    return set(inspect.signature(specs.SPECS[rule]).parameters) - {"config"}


class Profile:
    """A folder with Snakemake's config.yaml, and machine.yaml where it has GPUs.

    Raises:
        UserError: there is no config.yaml, or one of the two cannot be read.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.path = self.folder / "config.yaml"
        if not self.path.exists():
            raise UserError(f"{folder}: no config.yaml there; profiles: profiles/local, b200, h100")
        self.values, self.lines = yaml12.read(self.path)

    @property
    def hardware(self) -> Hardware | None:
        """The profile's GPUs; None where it has no machine.yaml."""
        path = self.folder / "machine.yaml"
        if not path.exists():
            return None
        return validated(Hardware, layers.of_file(path, str(path)), str(path))

    @property
    def is_remote(self) -> bool:
        """Whether jobs are submitted to other machines."""
        return self.values.get("executor", "local") not in ("local", "dryrun", "touch")

    def place(self, *key: str) -> str:
        """`file:line: key` for messages."""
        line = self.lines.get(key)
        return f"{self.path}{f':{line}' if line else ''}: {'.'.join(key)}"

    def section(self, *key: str) -> Mapping[str, Any]:
        """The mapping at a key; empty where there is none."""
        value: Any = self.values
        for name in key:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping):
            raise UserError(f"{self.place(*key)}: must be a mapping of keys, not {value!r}")
        return value or {}

    def problems(self, known: Collection[str]) -> Iterator[str]:
        """What Snakemake would ignore, or Slurm refuse; `known` are the rules."""
        for name, value in self.values.items():
            if isinstance(value, str) and NUMBER.fullmatch(value):
                yield f"{self.place(name)}: {value!r} is text; write the number without quotes"
        for section in ("set-resources", "set-threads"):
            for rule in self.section(section):
                if rule not in known:
                    yield f"{self.place(section, rule)}: {nearest('rule', rule, list(known))}"
        for name, value in self.section("default-resources").items():
            yield from self.resource(None, name, value, "default-resources", name)
        for rule in self.section("set-resources"):
            for name, value in self.section("set-resources", rule).items():
                yield from self.resource(rule, name, value, "set-resources", rule, name)
        for rule, value in self.section("set-threads").items():
            yield from self.wrong(rule, value, True, "set-threads", rule)

    def resource(self, rule: str | None, name: str, value: Any, *key: str) -> Iterator[str]:
        """What is wrong with one resource."""
        known = NUMBERS | TEXTS | EITHER | set(self.section("resources"))
        if name not in known:
            yield f"{self.place(*key)}: {nearest('resource', name, sorted(known))}"
        else:
            number = True if name in NUMBERS else False if name in TEXTS else None
            yield from self.wrong(rule, value, number, *key)

    def wrong(self, rule: str | None, value: Any, number: bool | None, *key: str) -> Iterator[str]:
        """What is wrong with a value: `number` says what it must be, None for either."""
        place = self.place(*key)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            yield f"{place}: must be a number, text, or an expression, not {value!r}"
            return
        if number is not False and isinstance(value, str) and NUMBER.fullmatch(value):
            yield f"{place}: {value!r} is text; write the number without quotes"
            return
        for leaf in leaves(value):
            if isinstance(leaf, str) and NUMBER.fullmatch(leaf) and number is not False:
                yield f"{place}: {leaf!r} is text; write the number without quotes"
            elif isinstance(leaf, str) and number:
                yield f"{place}: must be a number, or an expression that gives one, not {leaf!r}"
            elif isinstance(leaf, int | float) and number is False:
                yield f"{place}: must be text, not the number {leaf}"
        yield from (f"{place}: {fault}" for fault in misnamed(value, rule and wildcards_of(rule)))

    def miscounted(self, config: Config) -> Iterator[str]:
        """RL steps of sound runs of which the nodes set aside leave none to train."""
        for name in config.run_names():
            try:
                steps = config.run(name).rl.steps
            except UserError:
                continue  # told when that run is asked for
            for step in steps:
                try:
                    self.machine("rl", {"run": name, "step": step})
                except UserError as error:
                    yield f"{error} ({name}, rl.{step})"

    def resources(self, rule: str, wildcards: Mapping[str, str]) -> dict[str, Any]:
        """What one job gets; expressions are evaluated as Snakemake does at the first attempt.

        Raises:
            UserError: an expression fails for these wildcards.
        """
        found = {}
        for section in (("default-resources",), ("set-resources", rule)):
            for name, value in self.section(*section).items():
                found[name] = evaluated(value, wildcards, self.place(*section, name))
        threads = self.section("set-threads").get(rule, 1)
        return {**found, "threads": evaluated(threads, wildcards, self.place("set-threads", rule))}

    def machine(self, rule: str, wildcards: Mapping[str, str]) -> Machine:
        """The nodes, GPUs and CPUs of one job.

        Raises:
            UserError: an expression fails, or the nodes do not add up.
        """
        given = self.resources(rule, wildcards)
        return machine_of(given, given["threads"], self.place("set-resources", rule))


def machine_of(given: Mapping[str, Any], threads: int, place: str) -> Machine:
    """The machine that a job's resources describe.

    Raises:
        UserError: they do not add up; `place` is where they stand.
    """
    words = [f"{key}={given[key]}" for key in MACHINE if given.get(key) not in (None, "")]
    if "gres" not in given and given.get("gpu"):
        words.append(f"gres=gpu:{given['gpu']}")
    try:
        return Machine.parse([*words, f"threads={threads}"])
    except UserError as error:
        raise UserError(f"{place}: {str(error).removeprefix('--machine ')}") from None
