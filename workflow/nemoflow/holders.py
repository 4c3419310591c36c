"""Which run holds a stage's checkpoint, average, export and scores: the job's own, or a parent."""

from typing import Any

from nemoflow import graph
from nemoflow.config import Config
from nemoflow.config.load import Runs
from nemoflow.config.run import Run


class Holders:
    """The runs of a config; every method takes the wildcards of a job."""

    def __init__(self, config: Config):
        self.config, self.runs = config, Runs(config)

    def run(self, wildcards: Any) -> Run:
        """The run of a job."""
        return self.runs[wildcards.run]

    def owner(self, wildcards: Any, stage: str) -> str:
        """The run that holds a stage's checkpoint, or the model imported in its place."""
        return graph.owner(self.runs, wildcards.run, graph.full_name(self.run(wildcards), stage))

    def imported(self, wildcards: Any, stage: str) -> str | list:
        """The run that imports the model in a stage's place; [] where it was trained."""
        full = graph.full_name(self.run(wildcards), stage)
        found = graph.is_imported(self.runs, wildcards.run, full)
        return graph.owner(self.runs, wildcards.run, full) if found else []

    def has(self, wildcards: Any, stage: str) -> bool:
        """Whether a stage is trained for a run, by itself or a parent."""
        return stage in graph.stages(self.runs, wildcards.run)

    def require(self, wildcards: Any, stage: str) -> None:
        """Raise UserError for a stage that the run has not, or that an imported model replaces."""
        full = graph.full_name(self.run(wildcards), stage)
        if not self.has(wildcards, full):
            raise graph.nothing_before(self.runs, wildcards.run, full)

    def exporter(self, wildcards: Any, stage: str) -> str:
        """The run that holds a stage's export: the stage's owner, unless it exports otherwise.

        Or means another stage by the name: its last step need not be the run's last.
        """
        run = self.run(wildcards)
        full = graph.full_name(run, stage)
        holder = self.merger if full.startswith("merged.") else self.owner
        owner = holder(wildcards, stage)
        theirs = run if owner == wildcards.run else self.config.unchanged(owner)
        same = graph.full_name(theirs, stage) == full
        return owner if same and theirs.export == run.export else wildcards.run

    def merger(self, wildcards: Any, stage: str) -> str:
        """The run that holds an average: its phase's owner, unless it averages otherwise."""
        run, owner = self.run(wildcards), self.owner(wildcards, stage)
        theirs = run if owner == wildcards.run else self.config.unchanged(owner)
        return owner if theirs.pretrain.merge == run.pretrain.merge else wildcards.run

    def scorer(self, wildcards: Any, stage: str) -> str:
        """The run that holds a stage's scores: the export's, unless it evaluates otherwise."""
        exporter, ours = self.exporter(wildcards, stage), self.run(wildcards).eval
        theirs = ours if exporter == wildcards.run else self.config.unchanged(exporter).eval
        same = (theirs.backend, theirs.batch_size) == (ours.backend, ours.batch_size)
        return exporter if same else wildcards.run
