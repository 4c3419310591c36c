"""YAML with the scalars of YAML 1.2, duplicate keys refused, and the line of every key.

PyYAML reads YAML 1.1, in which `1e-5` is text, `on` is true and `12:30` is 750; its resolver table
is replaced here by the core schema of https://yaml.org/spec/1.2.2/#103-core-schema.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from nemoflow.errors import UserError

Key = tuple[str, ...]


class Loader(yaml.CSafeLoader):
    """PyYAML's parser with YAML 1.2's implicit types."""

    yaml_implicit_resolvers: dict = {}


for tag, pattern, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    characters = [*first.replace("\0", ""), ""] if "\0" in first else [*first]
    Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), characters
    )


def scalar(node: yaml.ScalarNode) -> Any:
    """The value of a scalar by its resolved tag; underscores and sexagesimals are text."""
    kind, text = node.tag.rsplit(":", 1)[-1], node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def build(node: yaml.Node, where: str, key: Key, lines: dict[Key, int]) -> Any:
    """The value of a node; every key's line (1-based) is added to `lines`."""
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        try:
            return scalar(node)
        except ValueError:  # after an explicit tag, as in `!!int many`
            kind = node.tag.rsplit(":", 1)[-1]
            raise UserError(
                f"{where}:{node.start_mark.line + 1}: {'.'.join(key)}: {node.value!r} is no {kind}"
            ) from None
    if isinstance(node, yaml.SequenceNode):
        return [build(item, where, (*key, str(i)), lines) for i, item in enumerate(node.value)]
    mapping = {}
    for key_node, value_node in node.value:
        name, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(name, str):
            raise UserError(
                f"{where}:{line}: {'.'.join(key) or 'the file'}: a key must be text;"
                " put quotes around text in braces"
            )
        if name in mapping:
            first = lines[(*key, name)]
            raise UserError(
                f"{where}:{line}: {'.'.join((*key, name))} is set twice (first in line {first});"
                " keep one of them"
            )
        lines[(*key, name)] = line
        mapping[name] = build(value_node, where, (*key, name), lines)
    return mapping


def parse(text: str, where: str) -> tuple[Any, dict[Key, int]]:
    """The document in `text` and the line of each key.

    Raises:
        UserError: the text is no YAML, or a key stands twice in one mapping or is no text.
    """
    lines: dict[Key, int] = {}
    try:
        node = yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark or error.context_mark).line + 1
        raise UserError(f"{where}:{line}: not readable as YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not readable as YAML: {error}") from None
    return ({} if node is None else build(node, where, (), lines)), lines


def read(path: Path) -> tuple[dict, dict[Key, int]]:
    """The mapping in a YAML file and the line of each key.

    Raises:
        UserError: as `parse`, or the file holds something other than a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    document, lines = parse(text, str(path))
    if not isinstance(document, dict):
        raise UserError(f"{path}:1: a mapping of keys is expected, not {type(document).__name__}")
    return document, lines
