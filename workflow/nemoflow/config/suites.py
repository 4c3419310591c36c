"""Suites: files of config/tasks/ that name other tasks; `eval.tasks` may name them."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from nemoflow.config.messages import nearest
from nemoflow.config.run import Run
from nemoflow.errors import UserError

if TYPE_CHECKING:
    from nemoflow.config.load import Config


def expanded(config: "Config", run: Run) -> Run:
    """A run whose `eval.tasks` are tasks alone: those of suites in their place, none twice."""
    tasks = list(dict.fromkeys(tasks_of(config, run.eval.tasks)))
    return run.model_copy(update={"eval": run.eval.model_copy(update={"tasks": tasks})})


def tasks_of(config: "Config", names: Iterable[str], within: tuple[str, ...] = ()) -> Iterator[str]:
    """The tasks that names of tasks and suites stand for; a name of neither is left as it is.

    Raises:
        UserError: a suite holds itself, or a task that does not exist.
    """
    for name in names:
        if name not in config.raw["tasks"]:
            if within:
                place = config.place("tasks", within[-1], "suite")
                raise UserError(f"{place}: suite: {nearest('task', name, config.names('tasks'))}")
            yield name
            continue
        if (suite := config.data("tasks", name).suite) is None:
            yield name
            continue
        if name in within:
            circle = " holds ".join((*within, name))
            raise UserError(f"{config.place('tasks', name, 'suite')}: suite: {circle}: a circle")
        yield from tasks_of(config, suite, (*within, name))


def check(config: "Config", name: str, run: Run) -> None:
    """That published scores are of tasks that exist.

    Raises:
        UserError: one is of none, and would be held against nothing without a word.
    """
    for stage, scores in run.eval.published.items():
        for task in scores:
            if task not in config.raw["tasks"] or config.data("tasks", task).suite:
                place = config.place("runs", name, "eval", "published", stage, task)
                known = [each for each in config.names("tasks") if is_task(config, each)]
                key = f"eval.published.{stage}.{task}"
                raise UserError(f"{place}: {key}: {nearest('task', task, known)}")


def is_task(config: "Config", name: str) -> bool:
    """Whether a file of config/tasks/ is a task, not a suite."""
    return config.data("tasks", name).suite is None
