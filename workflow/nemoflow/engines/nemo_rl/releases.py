"""What a release of NeMo-RL is: its keys, what it sets where our config says nothing, its source.

`releases/NAME.yaml` are the values that the recipes of this release set and our config has no key
for. `releases/NAME.keys` are all keys it knows, one a line; below `x.*` anything is free. They were
read from the TypedDicts that MasterConfig of nemo_rl/algorithms/{grpo,dpo}.py is made of, joined
with the keys of examples/configs/*.yaml, examples/nemo_gym/*.yaml and of the released step files
(github.com/NVIDIA-NeMo/Nemotron, recipes/{super3,nano3}/stage2_rl): NeMo-RL reads keys that its
types do not name. Three of the four call themselves 0.5.0rc0, hence `SIGNS`.
"""

import difflib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nemoflow.config import yaml12
from nemoflow.errors import UserError

FOLDER = Path(__file__).parent / "releases"
DEFAULT = "super-v3"
PROGRAMS = {
    "grpo": "examples/nemo_gym/run_grpo_nemo_gym.py",
    "dpo": "examples/run_dpo.py",
}
# Words of nemo_rl/algorithms/grpo.py that a release has (or has not), enough to tell them apart.
SIGNS = {
    "super-v3": {"num_gpu_nodes": True, "penalize_invalid_tool_call": True},
    "nano-v3": {"val_at_end": False, "seq_logprob_error_threshold": True},
    "v0.5.0": {"val_at_end": False, "seq_logprob_error_threshold": False},
    "v0.6.0": {"val_at_end": True, "num_gpu_nodes": False},
}


@dataclass(frozen=True)
class Release:
    """One release of NeMo-RL, by the name of its branch or tag."""

    name: str

    @cached_property
    def keys(self) -> frozenset[str]:
        """All keys it knows, dotted; `x.*` where all below x is free."""
        return frozenset((FOLDER / f"{self.name}.keys").read_text().split())

    @cached_property
    def told(self) -> dict[str, Any]:
        """What its file says: `config`, by section, and the driver's `environment`."""
        return yaml12.read(FOLDER / f"{self.name}.yaml")[0]

    @property
    def serves_judges(self) -> bool:
        """Whether it keeps nodes for the models that judge."""
        return SIGNS[self.name].get("num_gpu_nodes", False)

    def knows(self, key: str) -> bool:
        """Whether it has a dotted key."""
        parts = key.split(".")
        above = (".".join(parts[:n]) + ".*" for n in range(1, len(parts) + 1))
        return key in self.keys or any(free in self.keys for free in above)

    def defaults(self, algorithm: str) -> dict[str, Any]:
        """What it sets for an algorithm where our config has no key, dotted."""
        others = {
            "grpo": ("dpo.",),
            "dpo": ("grpo.", "loss_fn.", "env.", "policy.generation.", "data.default."),
        }[algorithm]
        whole = flat(self.told["config"])
        return {key: value for key, value in whole.items() if not key.startswith(others)}

    def refuse_unknown(self, config: dict[str, Any]) -> None:
        """Raise UserError for a dotted key that it does not know."""
        for key, value in config.items():
            section = value in (None, {}) and any(k.startswith(f"{key}.") for k in self.keys)
            if not (section or self.knows(key)):
                near = difflib.get_close_matches(key, sorted(self.keys))
                hint = f"; did you mean {', or '.join(near)}?" if near else "."
                raise UserError(
                    f"nemo_rl: NeMo-RL {self.name} has no key {key}{hint} Correct it below nemo_rl"
                    " of the step, unset what asks for it, or choose another release"
                )

    def program(self, algorithm: str) -> Path:
        """The driver's program in NeMo-RL's folder.

        Raises:
            UserError: it is not there, or of another release.
        """
        program, source = home() / PROGRAMS[algorithm], home() / "nemo_rl/algorithms/grpo.py"
        if not (program.exists() and source.exists()):
            raise UserError(
                f"{program}: not there; start the job in the image of NeMo-RL {self.name}, or name"
                " NeMo-RL's folder in NEMOFLOW_NEMO_RL"
            )
        text = source.read_text()
        if wrong := [word for word, has in SIGNS[self.name].items() if (word in text) is not has]:
            raise UserError(
                f"{home()}: not NeMo-RL {self.name} ({source.name} and {', '.join(wrong)} do not"
                " fit); set rl.release to what the image holds, or choose the image"
            )
        return program


def of(config: dict[str, Any]) -> Release:
    """The release that a step names, or the default."""
    return Release(config.get("release") or DEFAULT)


def home() -> Path:
    """NeMo-RL's folder in its containers (Dockerfile of NeMo-RL), or where the user says."""
    return Path(os.environ.get("NEMOFLOW_NEMO_RL", "/opt/nemo-rl"))


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{above}.{name}" if above else str(name)
        found |= flat(value, key) if isinstance(value, dict) and value else {key: value}
    return found


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested mappings."""
    whole: dict[str, Any] = {}
    for key, value in values.items():
        *above, name = key.split(".")
        place = whole
        for part in above:
            place = place.setdefault(part, {})
        place[name] = value
    return whole
