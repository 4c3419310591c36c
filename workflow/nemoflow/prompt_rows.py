"""What a row of prompts must be for its trainer, and what is asked in it."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from nemoflow.files import canonical
from nemoflow.filters import field, is_number
from nemoflow.rows import Unusable

Row = dict[str, Any]
NO_ENVIRONMENT = "(none)"  # rows of evaluations and pairs have no agent_ref


def check(row: Row, kind: str) -> None:
    """Raise Unusable for a row that its trainer would refuse.

    `kind`: "rl" rows are what NeMo-RL's NemoGymDataset and NeMo-Gym read: responses_create_params
    with input, a list of messages, and agent_ref with type and name; "pairs" what NeMo-RL's
    PreferenceDataset reads: context (messages) and two completions of different rank; "items" may
    be any objects.
    """
    if "_hf_placeholder" in row:
        raise Unusable("placeholder", "it stands for a row of another set: resolve it first")
    if kind == "pairs":
        check_pair(row)
    if kind == "rl":
        check_request(row.get("responses_create_params"))
        check_agent(row.get("agent_ref"))


def check_request(asked: Any) -> None:
    """Raise Unusable unless NeMo-Gym can send this to a model."""
    messages = asked.get("input") if isinstance(asked, dict) else None
    if not isinstance(messages, list):
        raise Unusable("bad_input", "responses_create_params.input must be a list of messages")
    if not messages:
        raise Unusable("bad_input", "responses_create_params.input is empty")
    for number, message in enumerate(messages):
        if not is_entry(message):
            raise Unusable(
                "bad_input",
                f"responses_create_params.input.{number} must be an object with role (a name) and"
                " content (text, or a list of parts)",
            )
    if not isinstance(asked.get("tools", []), list):
        raise Unusable("bad_tools", "responses_create_params.tools must be a list")


def is_entry(entry: Any) -> bool:
    """Whether it is a message, or another entry of a conversation, which says its type.

    Calls, their results and reasoning are entries without a role (OpenAI's Responses API).
    """
    if not isinstance(entry, dict):
        return False
    if isinstance(entry.get("type"), str) and entry["type"] not in ("", "message"):
        return True
    named = isinstance(entry.get("role"), str) and entry["role"] != ""
    return named and isinstance(entry.get("content"), str | list)


def check_agent(agent: Any) -> None:
    """Raise Unusable unless NeMo-Gym can tell the environment."""
    if agent is None:
        raise Unusable("no_agent", "it has no agent_ref; name the agent of such rows with agent")
    if not isinstance(agent, dict):
        raise Unusable("bad_agent", "agent_ref must be an object with type and name")
    for key in ("type", "name"):
        if not isinstance(agent.get(key), str) or not agent[key]:
            raise Unusable("bad_agent", f"agent_ref.{key} must be a name")


def check_pair(row: Row) -> None:
    """Raise Unusable unless it is a pair of answers."""
    if not isinstance(row.get("context"), list):
        raise Unusable("bad_pair", "context must be a list of messages")
    answers = row.get("completions")
    if not (isinstance(answers, list) and len(answers) == 2 and all(map(is_answer, answers))):
        raise Unusable(
            "bad_pair",
            "completions must be two objects with rank (a number) and completion (messages)",
        )
    if answers[0]["rank"] == answers[1]["rank"]:
        raise Unusable("bad_pair", "both completions have the same rank; leave such pairs out")


def is_answer(value: Any) -> bool:
    """Whether it is one of the two answers of a pair."""
    known = isinstance(value, dict) and isinstance(value.get("completion"), list)
    return known and isinstance(value.get("rank"), int | float)


def difficulty_of(row: Row, name: str | None) -> float | None:
    """How difficult a row is; Unusable where the field of that (dotted) name does not tell."""
    if name is None:
        return None
    found = field(row, name)
    if not is_number(found) or abs(found) > sys.float_info.max:
        raise Unusable("no_difficulty", f"{name} (difficulty) is no number")
    return float(found)


def environment(row: Any) -> str:
    """The name of a row's agent."""
    agent = row.get("agent_ref") if isinstance(row, dict) else None
    name = agent.get("name") if isinstance(agent, dict) else None
    return name if isinstance(name, str) and name else NO_ENVIRONMENT


def asked_of(row: Row) -> Any:
    """What the model is asked: the input where there is one, else the context, else the row."""
    parameters = row.get("responses_create_params")
    asked = parameters.get("input") if isinstance(parameters, dict) else row.get("context")
    return row if asked is None else asked


def prompt(row: Row) -> str:
    """The same as text; rows with one prompt never lie in both splits."""
    return canonical(asked_of(row))


def texts(row: Row) -> Iterator[str]:
    """What a person would read of it: the content of its messages, or every text of the row."""
    asked = asked_of(row)
    if isinstance(asked, list):
        asked = [entry.get("content") for entry in asked if isinstance(entry, dict)]
    return strings(asked)


def strings(value: Any) -> Iterator[str]:
    """Every text in a value, at any depth; keys are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
