"""Read-only questions about runs, and a writer of new ones: `python -m nemoflow --help`."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence

from nemoflow import (
    compare,
    disk,
    fetching,
    inspect,
    lineage,
    mixture_counts,
    mixture_table,
    planning,
    prompts_table,
    status,
    status_page,
    submit,
    talking,
    verify,
)
from nemoflow.config import Config
from nemoflow.errors import report
from nemoflow.revision import Revision, WorkingTree

Answer = Callable[[Config, argparse.Namespace], Iterable[str]]
Command = Callable[[str, str, Answer], argparse.ArgumentParser]


def parser() -> argparse.ArgumentParser:
    """The commands, their arguments, and as `answer` what gives their lines."""
    main = argparse.ArgumentParser(
        prog="python -m nemoflow",
        description="Questions about runs. Building is Snakemake's:"
        " snakemake --profile profiles/local results/super3-tiny/eval.json",
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, answer: Answer) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.set_defaults(answer=answer)
        added.add_argument(
            "--set", metavar="KEY=VALUE,…", help='as in snakemake --config set="…"', default=None
        )
        return added

    about_config(command)
    about_data(command)
    about_products(command)
    about_jobs(command)
    add_verify(command)
    talking.arguments(command("chat", "talk to an exported model of a run", talking.chat))
    return main


def about_config(command: Command) -> None:
    """The commands that ask for, or write, config."""
    command("runs", "list the runs of config/", lambda config, asked: inspect.runs(config))
    show = command(
        "show",
        "print a run with all its parents' keys, defaults and overrides",
        lambda config, asked: inspect.show(config, asked.run, asked.key),
    )
    show.add_argument("run")
    show.add_argument("key", nargs="?", help="only what stands under this dotted key")
    new = command(
        "new",
        "write an experiment: a run that changes a few keys of another",
        lambda config, asked: inspect.new(config, asked.run, asked.extends, asked.keys),
    )
    new.add_argument("run", help="name of the new run")
    new.add_argument("--extends", required=True, metavar="RUN", help="the run to start from")
    new.add_argument("keys", nargs="+", metavar="KEY=VALUE", help="e.g. sft.schedule.peak=1e-5")
    explain = command(
        "explain",
        "say which file and line set a value, and what it replaced",
        lambda config, asked: inspect.explain(config, asked.run, asked.key),
    )
    explain.add_argument("run")
    explain.add_argument("key", help="dotted, e.g. sft.schedule.peak")
    diff = command(
        "diff",
        "list the keys in which two runs differ",
        lambda config, asked: inspect.diff(config, asked.run, asked.other),
    )
    diff.add_argument("run")
    diff.add_argument("other")
    check = command(
        "check",
        "check a run without building: schema, sizes, data, world size",
        lambda config, asked: inspect.check(config, asked.run, asked.profile),
    )
    check.add_argument("run", nargs="+")
    check.add_argument("--profile", help="a profile whose nodes and GPUs the run must fit")


def about_data(command: Command) -> None:
    """The commands that ask what a phase or a step trains on."""
    blend = command(
        "blend",
        "tell a phase's mixture: asked for and drawn, epochs, gaps; before it is trained, too",
        lambda config, asked: mixture_table.lines(config, asked.run, asked.phase),
    )
    blend.add_argument("run")
    blend.add_argument("phase", help="a phase of pretraining, e.g. phase1")
    counts = command(
        "mixture",
        "tell what became of a mixture's rows: by source, dropped, left out, shares, lengths",
        lambda config, asked: mixture_counts.lines(config, asked.mixture),
    )
    counts.add_argument("mixture", help="a file of config/mixtures/, e.g. super3")
    add_row(command)
    rows = command(
        "prompts",
        "tell what became of a set's rows: by environment, dropped, to train on, to validate",
        lambda config, asked: prompts_table.lines(config, asked.prompts),
    )
    rows.add_argument("prompts", help="a file of config/prompts/, e.g. super3-rlvr1")


def add_row(command: Command) -> None:
    """The command that shows a row as a model learns from it."""
    row = command("row", "show a row of a mixture, what is trained in colour", tell_row)
    row.add_argument("mixture", help="a file of config/mixtures/, e.g. super3")
    row.add_argument("number", type=positive, metavar="N", help="which row, from 1")
    row.add_argument(
        "--source", help="a row of this source's files, rendered now, instead of a packed one"
    )
    row.add_argument(
        "--split", choices=("train", "valid"), default="train", help="default: %(default)s"
    )
    row.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto",
        help="default: on a terminal; elsewhere brackets",
    )  # fmt: skip


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 up")
    return int(text)


def tell_row(config: Config, asked: argparse.Namespace) -> Iterable[str]:
    """A packed row, or one of a source."""
    from nemoflow import row_view  # loads the reader of Parquet

    colour = sys.stdout.isatty() if asked.color == "auto" else asked.color == "always"
    if asked.source:
        return row_view.of_source(config, asked.mixture, asked.source, asked.number, colour)
    return row_view.packed(config, asked.mixture, asked.number, asked.split, colour)


def about_products(command: Command) -> None:
    """The commands that ask for what would be built, or was, and that fetch it."""
    plan = command(
        "plan",
        "say what would be built and why, what that replaces, what it costs",
        lambda config, asked: planning.plan(config, asked.target, asked.profile, asked.set),
    )
    plan.add_argument("target", nargs="+", help="e.g. results/super3-tiny/eval.json")
    plan.add_argument("--profile", default="profiles/local", help="default: %(default)s")
    pull = command(
        "pull",
        "fetch from DVC's remote just what a target needs, and read it",
        lambda _, asked: fetching.fetch(asked.target, asked.profile, asked.set, asked.dry_run),
    )
    pull.add_argument("target", nargs="*", help="a product or a folder of results/; none = all")
    pull.add_argument("-n", "--dry-run", action="store_true", help="only say what and how much")
    pull.add_argument("--profile", default="profiles/local", help="default: %(default)s")
    room = command(
        "disk",
        "say what takes room, and what nothing refers to any more; remove the latter if asked",
        lambda _, asked: disk.disk(asked.clean, asked.yes),
    )
    room.add_argument("--clean", action="store_true", help="remove what can go, after asking")
    room.add_argument("--yes", action="store_true", help="do not ask")
    told = command(
        "lineage", "draw what a product was made from, back to the source files", tell_lineage
    )
    told.add_argument("target", nargs="+", help="e.g. results/super3-tiny/eval.json")
    told.add_argument("--rev", metavar="REV", help="as it is at a revision of git")
    told.add_argument("--json", action="store_true", help="as one JSON document")
    sides = command(
        "compare", "changed keys beside changed scores, of two runs or revisions", tell_comparison
    )
    sides.add_argument("a", help="a run, a revision of git, or REVISION:RUN")
    sides.add_argument("b", help="likewise")
    sides.add_argument("--json", action="store_true", help="as one JSON document")


def about_jobs(command: Command) -> None:
    """The commands that start a controller as a Slurm job, and tell what all jobs are about."""
    sent = command(
        "submit",
        "plan targets, then let a Slurm job of its own build them",
        lambda config, asked: submit.submit(
            config, asked.target, asked.profile, asked.set, asked.dry_run
        ),
    )
    sent.add_argument("target", nargs="+", help="e.g. results/super3/eval.json")
    sent.add_argument("--profile", required=True, help="e.g. profiles/b200")
    sent.add_argument("-n", "--dry-run", action="store_true", help="plan only; submit nothing")
    told = command("status", "say what runs, waits, failed and why, and how far it is", tell_status)
    told.add_argument("run", nargs="?", help="only this run; none = all that have begun")
    told.add_argument("--json", action="store_true", help="as one JSON document")
    told.add_argument("--watch", type=float, metavar="SECONDS", help="again and again")


def tell_status(config: Config, asked: argparse.Namespace) -> Iterable[str]:
    """What jobs are about."""
    if asked.json:
        found = status.document(status.gather(config, asked.run))
        return [json.dumps(found, indent=1)]
    return status_page.watched(lambda: status.gather(config, asked.run), asked.watch)


def add_verify(command: Command) -> None:
    """The command that reads every byte."""
    told = command("verify", "read all bytes, and say what is not what its job made", tell_wrong)
    told.add_argument("target", nargs="*", help="a product or a folder of results/; none = all")
    told.add_argument(
        "--no-bytes", action="store_true", help="only what a bare clone holds: manifests, pointers"
    )


def tell_lineage(config: Config, asked: argparse.Namespace) -> Iterable[str]:
    """What a product was made from."""
    tree = Revision(asked.rev) if asked.rev else WorkingTree()
    return (lineage.document if asked.json else lineage.lines)(asked.target, tree)


def tell_comparison(config: Config, asked: argparse.Namespace) -> Iterable[str]:
    """Changed keys beside changed scores."""
    found = compare.compare(asked.a, asked.b)
    return (compare.document if asked.json else compare.lines)(found)


def tell_wrong(config: Config, asked: argparse.Namespace) -> Iterable[str]:
    """What is wrong with products; the exit code says whether anything is."""
    verification = verify.Verification(asked.target, not asked.no_bytes)
    yield from verification.lines()
    if verification.wrong:
        sys.exit(1)


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Answer one question."""
    asked = parser().parse_args(arguments)
    for line in asked.answer(Config(overrides=asked.set), asked):
        print(line)
    return None


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `… | head` ends it without a traceback
    report(lambda: main(sys.argv[1:]))
