"""All config of a checkout: read once, checked when asked for, frozen for the jobs."""

import os
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

from nemoflow.config import averages, derived, layers, suites, templates
from nemoflow.config.checks import check_data, check_run
from nemoflow.config.data import KINDS
from nemoflow.config.layers import Layered
from nemoflow.config.messages import nearest, validated
from nemoflow.config.run import Run
from nemoflow.errors import UserError
from nemoflow.files import canonical, digest, read_json, write_whole

FROZEN = "NEMOFLOW_CONFIG"  # names the frozen file to every job of a controller
SUBMITTED = "NEMOFLOW_SUBMITTED"  # set for a controller that is a job itself


class Config:
    """Runs, data files and templates by name.

    A broken file is an error when it is asked for, so that a mistake in one run stops no other.
    """

    def __init__(self, folder: str | Path = "config", overrides: str | None = None):
        """Read `{folder}/*.yaml` and its data folders; `overrides` is the text of `set=`."""
        self.folder = Path(folder)
        self.overrides = layers.overrides(overrides)
        self.drafts: dict[str, Layered] = {}
        self.raw: dict[str, dict[str, Any]] = {
            "runs": {},
            "templates": {},
            **{k: {} for k in KINDS},
        }
        self.origins: dict[tuple[str, str], Layered] = {}
        for kind in KINDS:
            for path in sorted((self.folder / kind).glob("*.yaml")):
                self.keep(kind, path.stem, lambda k=kind, n=path.stem: self.layered_data(k, n))
        for path in sorted((self.folder / "templates").glob("*.jinja")):
            self.raw["templates"][path.stem] = path.read_text(encoding="utf-8")
        self.raw["templates"] |= templates.at_paths(self.raw["mixtures"])
        for path in sorted(self.folder.glob("*.yaml")):
            self.keep("runs", path.stem, lambda n=path.stem: self.layered_run(n))
        self.refuse_stray_overrides()
        if any(key[0] not in KINDS for key, _, _ in self.overrides):
            self.raw["unchanged"] = Config(self.folder).raw["runs"]

    @classmethod
    def thawed(cls, path: str | Path) -> "Config":
        """The config that `freeze` wrote."""
        config = cls.__new__(cls)
        config.folder, config.overrides, config.origins = Path("config"), [], {}
        config.raw = read_json(path)
        return config

    def freeze(self, folder: Path) -> Path:
        """Write what this config resolves to into a file named by its digest."""
        path = folder / f"{digest(self.raw)}.json"
        if not path.exists():
            write_whole(path, canonical(self.raw))
        return path

    def with_draft(self, name: str, value: dict[str, Any]) -> "Config":
        """The same config with one more run, which no file holds yet."""
        draft = copy(self)
        draft.raw = {**self.raw, "runs": dict(self.raw["runs"])}
        draft.origins = dict(self.origins)
        draft.drafts = {name: Layered(value, dict.fromkeys(layers.leaves(value, ()), "new"))}
        draft.keep("runs", name, lambda: draft.layered_run(name))
        return draft

    def keep(self, kind: str, name: str, read: Callable[[], Layered]) -> None:
        """Read one file; a mistake in it is kept, and told when the file is asked for."""
        try:
            layered = read()
        except UserError as error:
            self.raw[kind][name] = {"error": str(error)}
            return
        self.origins[kind, name] = layered
        self.raw[kind][name] = {"value": layered.value}

    def refuse_stray_overrides(self) -> None:
        """An override of a data file that does not exist would be lost without a word."""
        for key, _, where in self.overrides:
            if key[0] in KINDS and (len(key) < 3 or key[1] not in self.raw[key[0]]):
                known = sorted(self.raw[key[0]])
                raise UserError(
                    f"{where}: write {key[0]}.NAME.KEY=value with a NAME of {', '.join(known)}"
                )

    def layered_data(self, kind: str, name: str) -> Layered:
        """A data file with the overrides that name it."""
        path = self.folder / kind / f"{name}.yaml"
        layered = layers.of_file(path, f"config/{kind}/{name}.yaml")
        for key, value, where in self.overrides:
            if key[:2] == (kind, name):
                layered = layers.with_override(layered, key[2:], value, where)
        return layered

    def lineage(self, name: str) -> Iterator[tuple[str, Layered]]:
        """A run's own layer, then its parent's, and so on.

        Raises:
            UserError: a parent does not exist, or a run extends itself.
        """
        seen: list[str] = []
        child = "the command line"
        while name is not None:
            path = self.folder / f"{name}.yaml"
            if name in seen:
                raise UserError(f"{child}: extends: {' extends '.join([*seen, name])}: a circle")
            if name not in self.drafts and not path.exists():
                raise UserError(f"{child}: extends: {nearest('run', name, self.run_names())}")
            layer = self.drafts.get(name) or layers.of_file(path, f"config/{name}.yaml")
            yield name, layer
            seen.append(name)
            child, name = layer.place(("extends",)), layer.value.get("extends")

    def layered_run(self, name: str) -> Layered:
        """A run merged over its parents, overridden, its sections' defaults spread."""
        lineage = list(self.lineage(name))
        own = lineage[0][1]
        merged = Layered({})
        for _, layer in reversed(lineage):
            merged = layers.over(merged, layer)
        for key in ("extends", "start", "init", "about"):  # a file's own, never its parent's
            merged.value[key] = own.value.get(key)
        for key, value, where in self.overrides:
            if key[0] not in KINDS:
                merged = layers.with_override(merged, key, value, where)
        return layers.spread_defaults(merged)

    def run_names(self) -> list[str]:
        """Every run, broken ones included."""
        return sorted(self.raw["runs"]) or sorted(p.stem for p in self.folder.glob("*.yaml"))

    def names(self, kind: str) -> list[str]:
        """Every data file of a kind."""
        return sorted(self.raw[kind])

    def layered(self, kind: str, name: str) -> Layered:
        """What a file resolves to, unchecked.

        Raises:
            UserError: there is no such file, or it cannot be read.
        """
        if name not in self.raw[kind]:
            raise UserError(f"config/: {nearest(kind.rstrip('s'), name, self.names(kind))}")
        entry = self.raw[kind][name]
        if "error" in entry:
            raise UserError(entry["error"])
        return self.origins.get((kind, name), Layered(entry["value"]))

    @cache  # noqa: B019  (one config per process)
    def data(self, kind: str, name: str) -> Any:
        """A data file's model, or a derived corpus; kind is a folder of config/."""
        if kind == "corpora" and (found := derived.corpus(self, name)):
            return found
        layered = self.layered(kind, name)
        model = validated(KINDS[kind], layered, f"config/{kind}/{name}.yaml")
        check_data(self, kind, name, model)
        return model

    @cache  # noqa: B019
    def run(self, name: str) -> Run:
        """A run's model, checked with everything that it names."""
        model = validated(Run, self.layered("runs", name), f"config/{name}.yaml")
        model = suites.expanded(self, model)
        check_run(Runs(self, {name: model}), name)
        suites.check(self, name, model)
        return averages.evaluated(Runs(self, {name: model}), name)

    @cache  # noqa: B019
    def unchanged(self, name: str) -> Run:
        """A run's model as its files have it: overrides are for a target's own stages."""
        entry = self.raw.get("unchanged", {}).get(name, {})
        if "value" not in entry:
            return self.run(name)
        return suites.expanded(self, validated(Run, Layered(entry["value"]), f"config/{name}.yaml"))

    def template(self, written: str) -> str:
        """The text of a chat template: of config/templates/ by name, of a path, or itself."""
        return templates.text_of(self.raw["templates"], written)

    def place(self, kind: str, name: str, *key: str) -> str:
        """`file:line` of a key, for messages."""
        layered = self.origins.get((kind, name))
        return layered.place(key) if layered else f"config/{name}.yaml"


class Runs(Mapping):
    """The runs of a config as a mapping, each checked when looked up, but for those given."""

    def __init__(self, config: Config, given: Mapping[str, Run] | None = None):
        self.config, self.given = config, given or {}

    def __getitem__(self, name: str) -> Run:
        return self.given[name] if name in self.given else self.config.run(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.config.run_names())

    def __len__(self) -> int:
        return len(self.config.run_names())


def current(overrides: str | None, controller: bool) -> Config:
    """The config of this process: read and frozen by a controller, thawed by its jobs.

    Jobs re-read the Snakefile when they start, hours later perhaps; what they were planned with is
    in the frozen file that the controller names in the environment. A controller that was submitted
    is such a job.
    """
    if FROZEN in os.environ and (not controller or SUBMITTED in os.environ):
        return Config.thawed(os.environ[FROZEN])
    config = Config(overrides=overrides)
    os.environ[FROZEN] = str(config.freeze(Path(".snakemake/config")).absolute())
    return config
