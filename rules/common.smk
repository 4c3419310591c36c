"""Config, specs, provenance and names, before any rule."""

import os
import sys
from pathlib import Path

from nemoflow import controller, imports, locks, provenance, sealing, specs
from nemoflow import import_packed, import_paths, import_prompts, storage
from nemoflow.config.base import NAME
from nemoflow.config.load import current
from nemoflow.errors import UserError
from nemoflow.names import Names


wildcard_constraints:
    run=rf"(?!(data|images)/){NAME}",
    image=NAME,
    tokenizer=NAME,
    corpus=NAME,
    part=r"\d{4}",
    phase=NAME,
    mixture=NAME,
    source=NAME,
    prompts=NAME,
    step=NAME,
    stage=r"(pretrain|merged|sft|rl)(\.[a-z0-9_-]+)?",
    window=NAME,
    task=NAME,
    kind="tokens|packed|prompts",
    data=NAME,


def politely(function):
    """Turn a user's mistake into its message alone, wherever Snakemake calls us."""

    def polite(*arguments):
        try:
            return function(*arguments)
        except UserError as error:
            sys.exit(f"error: {error}")

    return polite


# What is imported is looked at when the rules are read, where its product is not there yet.
EARLY = {
    "import_model": (imports.check_early, "results/{run}/init.json"),
    "corpus": (
        import_paths.check_early,
        "results/data/tokens/{tokenizer}/{corpus}.json",
    ),
    "pack": (import_packed.check_early, "results/data/packed/{mixture}.json"),
    "resolve": (import_prompts.check_early, "results/data/prompts/{prompts}.json"),
}


@politely
def load():
    """The config of this process; a controller also puts the records of finished work back."""
    loaded = current(config.get("set"), controller=workflow.is_main_process)
    if workflow.is_main_process:
        controller.forget_dead(controllers)
        if controllers.join():
            provenance.export_records(records)
            provenance.put_back(records)
        provenance.restore_records(records)
        provenance.keep_copies()
        sealing.forget_stale_marks()
    return loaded


def require_profile():
    """Without a profile's restricted triggers, the text of a shell line would retrain models."""
    triggers = {trigger.name.lower() for trigger in workflow.rerun_triggers}
    if workflow.is_main_process and triggers - {"mtime", "params", "input"}:
        sys.exit("error: say where to run: snakemake --profile profiles/local TARGET")


def spec(stage):
    """The parameter of a rule: the path of the job's spec, whose name holds its digest."""

    @politely
    def path(wildcards):
        require_profile()
        made = specs.of(settings, stage, dict(wildcards.items()))
        if stage in EARLY:
            check, product = EARLY[stage]
            named = dict(wildcards.items())
            check(settings, **named, product=Path(product.format(**named)))
        return str(made.write(Path(".snakemake/specs")))

    return path


def shared_cores(jobs):
    """The cores of each of some jobs side by side on this machine; elsewhere the profile says."""
    return max(1, (workflow.cores or 1) // jobs) if workflow.local_exec else 1


@politely
def remote(wildcards):
    """Where results are published: that there is such a place is known before the first job."""
    return storage.Storage().remote_name


class Polite:
    """The methods of an object, a user's mistake in them told without a traceback."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return politely(getattr(self.inner, name))


# `python` in the rules is the one that runs Snakemake, whether or not its environment is active.
os.environ["PATH"] = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"]]
)

records = provenance.Snakemake()
controllers = locks.Controllers(Path(".snakemake"))
settings = load()
names = Polite(Names(settings))
