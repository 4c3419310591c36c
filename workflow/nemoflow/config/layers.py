"""Layers of a file: parents, the file itself, overrides; and who set each value."""

import re
from dataclasses import dataclass, field
from typing import Any

from nemoflow.config import yaml12
from nemoflow.config.run import Phase, Pretrain, Rl, Step
from nemoflow.config.yaml12 import Key
from nemoflow.errors import UserError

# Mappings whose entries have names of the user's own: there, null removes an entry.
COLLECTIONS = {
    "phases", "windows", "steps", "sources", "weights", "judges", "gaps", "published", "settings"
}  # fmt: skip
# An assignment of `set=` ends at a comma before another `key=`, but not at one between quotes.
ASSIGNMENT = re.compile(
    r"""(?: (?<=[=:,\[{\s])(?: "(?:[^"\\]|\\.)*" | '(?:[^']|'')*' )
          | (?! ,\s*[A-Za-z_][\w.\-]*= ) . )+""",
    re.X | re.S,
)


@dataclass(frozen=True)
class Layered:
    """A merged mapping and, for each key, the place that set it (`file:line`, or the override)."""

    value: dict[str, Any]
    origin: dict[Key, str] = field(default_factory=dict)

    def place(self, key: Key) -> str:
        """Where `key`, or else the nearest mapping around it, was set."""
        while key and key not in self.origin:
            key = key[:-1]
        return self.origin.get(key, "the config")


def of_file(path, shown: str) -> Layered:
    """The layer of one file; `shown` is its name in messages."""
    value, lines = yaml12.read(path)
    return Layered(value, {key: f"{shown}:{line}" for key, line in lines.items()})


def merge(lower: Any, upper: Any, name: str = "") -> Any:
    """`upper` over `lower`: mappings merge, everything else replaces.

    Null removes a mapping, a list, or an entry of a collection; a plain value becomes null.
    """
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return upper
    merged = dict(lower)
    for key, value in upper.items():
        if value is None and (name in COLLECTIONS or isinstance(merged.get(key), (dict, list))):
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value, key)
    return merged


def over(lower: Layered, upper: Layered) -> Layered:
    """Two layers as one."""
    return Layered(merge(lower.value, upper.value), {**lower.origin, **upper.origin})


def overrides(text: str | None) -> list[tuple[Key, Any, str]]:
    """The assignments in `set="sft.schedule.peak=1e-5,rl.seed=2"` as (key, value, its own text).

    Raises:
        UserError: an assignment without `=`, or a value that is no YAML.
    """
    assignments = []
    for part in map(str.strip, ASSIGNMENT.findall("" if text is None else str(text))):
        name, equals, value = part.partition("=")
        where = f'set="{part}"'
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.\-]*", name.strip()):
            raise UserError(
                f'{where}: not an assignment; write --config set="key.of.config=value,other=value"'
            )
        assignments.append((tuple(name.strip().split(".")), yaml12.parse(value, where)[0], where))
        if assignments[-1][1] == {} and not value.strip():
            raise UserError(f"{where}: no value; write {name}=null to unset a key")
    return assignments


def with_override(layered: Layered, key: Key, value: Any, where: str) -> Layered:
    """`layered` with one key set."""
    upper: Any = value
    for name in reversed(key):
        upper = {name: upper}
    inside = [key[: i + 1] for i in range(len(key))] + leaves(value, key)
    return over(layered, Layered(upper, dict.fromkeys(inside, where)))


def leaves(value: Any, key: Key) -> list[Key]:
    """The keys below `key`."""
    if not isinstance(value, dict):
        return []
    return [k for name, v in value.items() for k in ((*key, name), *leaves(v, (*key, name)))]


def spread_defaults(run: Layered) -> Layered:
    """Move what a section says for all its phases (steps) into each of them, and fill in seeds."""
    value, origin = dict(run.value), dict(run.origin)
    for section, entries, whole, entry in (
        ("pretrain", "phases", Pretrain, Phase),
        ("rl", "steps", Rl, Step),
    ):
        if not isinstance(value.get(section), dict):
            continue
        own = dict(value[section])
        names = {f.alias or n for n, f in entry.model_fields.items()} - set(whole.model_fields)
        defaults = {name: own.pop(name) for name in names & set(own)}
        defaults = {"options": {}, **defaults, "seed": seed(value, defaults)}
        if isinstance(own.get(entries), dict):
            own[entries] = {
                name: merge(defaults, phase) if isinstance(phase, dict) else phase
                for name, phase in own[entries].items()
            }
            for name, phase in own[entries].items():
                if isinstance(phase, dict) and phase.get("seed") is None:
                    phase["seed"] = defaults["seed"]
                for key in leaves(defaults, ()):
                    lower = (section, *key) if (section, *key) in origin else key
                    if lower in origin:
                        origin.setdefault((section, entries, name, *key), origin[lower])
        value[section] = own
    if isinstance(value.get("sft"), dict):
        value["sft"] = {"options": {}, **value["sft"], "seed": seed(value, value["sft"])}
        if ("seed",) in origin:
            origin.setdefault(("sft", "seed"), origin[("seed",)])
    return Layered(value, origin)


def seed(run: dict, section: dict) -> Any:
    """A section's seed, or the run's."""
    return run.get("seed") if section.get("seed") is None else section["seed"]
