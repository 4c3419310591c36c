"""What pydantic found, as one sentence: file and line, key, what is wrong, what to do."""

import difflib
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from nemoflow.config.layers import Layered
from nemoflow.errors import UserError

WORDS = {
    "missing": "is missing; set it",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "finite_number": "must be a finite number",
}


def model_at(model: type[BaseModel], loc: tuple) -> type[BaseModel] | None:
    """The model that stands at a place of another, in a list or a mapping of them too."""
    current: Any = model
    for name in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            fields = {f.alias or n: f for n, f in current.model_fields.items()}
            current = fields[name].annotation if name in fields else None
        else:
            current = (get_args(current) or [None])[-1]  # of dict[Name, X] or list[X]
        if NoneType in get_args(current):  # X | None
            current = get_args(current)[0]
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def advice(model: type[BaseModel], loc: tuple) -> str:
    """The nearest right name for an unknown key."""
    around = model_at(model, loc[:-1])
    names = [f.alias or n for n, f in around.model_fields.items()] if around else []
    near = difflib.get_close_matches(str(loc[-1]), names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {'.'.join(map(str, (*loc[:-1], near[0])))}?"
    return f"known here: {', '.join(sorted(names))}" if names else "see config/README.md"


def sentence(model: type[BaseModel], problem: Any) -> str:
    """One problem in words that go on from the key's name."""
    kind, loc, given = problem["type"], problem["loc"], problem["input"]
    if kind == "extra_forbidden":
        return f" is not a setting; {advice(model, loc)}"
    if kind == "value_error":
        return f": {problem['ctx']['error']}"
    if kind in WORDS:
        shown = "" if kind == "missing" else f", not {given!r}"
        return f" {WORDS[kind]}{shown}"
    return f": {problem['msg'][0].lower()}{problem['msg'][1:]}, not {given!r}"


def validated(model: type[BaseModel], layered: Layered, name: str) -> BaseModel:
    """`layered` as a model.

    Raises:
        UserError: with one line per problem.
    """
    try:
        return model.model_validate(layered.value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    lines = []
    for problem in problems:
        key = tuple(str(part) for part in problem["loc"] if part != "[key]")
        lines.append(f"{layered.place(key)}: {'.'.join(key) or name}{sentence(model, problem)}")
    raise UserError("\n".join(dict.fromkeys(lines)))


def nearest(what: str, name: str, known: list[str]) -> str:
    """`there is no {what} {name}`, with the nearest name and the list."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no {what} {name}{hint or '.'} Known: {', '.join(sorted(known)) or 'none'}"
