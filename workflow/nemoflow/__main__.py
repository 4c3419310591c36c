"""Read-only questions about runs, and a writer of new ones: `python -m nemoflow --help`."""

import argparse
import sys
from collections.abc import Sequence

from nemoflow import inspect, planning
from nemoflow.config import Config
from nemoflow.errors import report


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    main = argparse.ArgumentParser(
        prog="python -m nemoflow",
        description="Questions about runs. Building is Snakemake's:"
        " snakemake --profile profiles/local results/super3-tiny/eval.json",
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.add_argument(
            "--set", metavar="KEY=VALUE,…", help='as in snakemake --config set="…"', default=None
        )
        return added

    command("runs", "list the runs of config/")
    show = command("show", "print a run with all its parents' keys, defaults and overrides")
    show.add_argument("run")
    show.add_argument("key", nargs="?", help="only what stands under this dotted key")
    new = command("new", "write an experiment: a run that changes a few keys of another")
    new.add_argument("run", help="name of the new run")
    new.add_argument("--extends", required=True, metavar="RUN", help="the run to start from")
    new.add_argument("keys", nargs="+", metavar="KEY=VALUE", help="e.g. sft.schedule.peak=1e-5")
    explain = command("explain", "say which file and line set a value, and what it replaced")
    explain.add_argument("run")
    explain.add_argument("key", help="dotted, e.g. sft.schedule.peak")
    diff = command("diff", "list the keys in which two runs differ")
    diff.add_argument("run")
    diff.add_argument("other")
    plan = command("plan", "say what would be built and why, what that replaces, what it costs")
    plan.add_argument("target", nargs="+", help="e.g. results/super3-tiny/eval.json")
    plan.add_argument("--profile", default="profiles/local", help="default: %(default)s")
    check = command("check", "check a run without building: schema, sizes, data, world size")
    check.add_argument("run", nargs="+")
    check.add_argument("--profile", help="a profile whose nodes and GPUs the run must fit")
    return main


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Answer one question."""
    asked = parser().parse_args(arguments)
    config = Config(overrides=asked.set)
    match asked.command:
        case "runs":
            lines = inspect.runs(config)
        case "show":
            lines = inspect.show(config, asked.run, asked.key)
        case "new":
            lines = inspect.new(config, asked.run, asked.extends, asked.keys)
        case "explain":
            lines = inspect.explain(config, asked.run, asked.key)
        case "diff":
            lines = inspect.diff(config, asked.run, asked.other)
        case "plan":
            lines = planning.plan(config, asked.target, asked.profile, asked.set)
        case "check":
            lines = inspect.check(config, asked.run, asked.profile)
    for line in lines:
        print(line)
    return None


if __name__ == "__main__":
    report(lambda: main(sys.argv[1:]))
