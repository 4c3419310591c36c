"""Where the items of evaluations lie, for training rows to be kept apart from."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nemoflow.config.base import plain
from nemoflow.errors import UserError

if TYPE_CHECKING:
    from nemoflow.config.load import Config


def of_task(config: "Config", name: str) -> dict[str, Any]:
    """{"sources", "text_field"} of a task's items, as canonical JSON types.

    Those of a task of ours are the validation rows of its prompts, all texts of which count: it has
    no text_field.

    Raises:
        UserError: there is no such task, or nobody can tell where its items lie.
    """
    task = config.data("tasks", name)
    if task.items is not None:
        return {"sources": [plain(task.items.source)], "text_field": task.items.text_field}
    if task.prompts is None:
        raise UserError(f"task {name} does not say where its items lie; set items in its file")
    rows = config.data("prompts", task.prompts)
    if not rows.validation:
        raise UserError(
            f"the items of task {name} are no rows of their own: prompts {task.prompts} has no"
            " validation, and what its holdout chooses is known only when it is built; name"
            " validation sources there"
        )
    return {"sources": [plain(source) for source in rows.validation]}


def check(config: "Config", prompts: str) -> None:
    """Raise UserError unless the items that rows of prompts are kept apart from can be found."""
    for task in config.data("prompts", prompts).apart_from:
        try:
            of_task(config, task)
        except UserError as error:
            place = config.place("prompts", prompts, "apart_from")
            raise UserError(f"{place}: apart_from: {error}") from None


def unchecked(config: "Config", tasks: Iterable[str]) -> dict[str, str]:
    """{task: why} of those whose items nobody can look for in training data."""
    why = "its file does not say where its items lie (items)"
    models = {name: config.data("tasks", name) for name in tasks}
    return {name: why for name, task in models.items() if not (task.items or task.prompts)}
