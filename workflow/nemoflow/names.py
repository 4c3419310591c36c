"""Names for the rules: what stands in the wildcards of a rule's inputs.

Every method takes the wildcards of a job and returns a name, a list of names, or [] for no input;
paths stand in the rules.
"""

from typing import Any

from nemoflow import graph
from nemoflow.config import Config, derived
from nemoflow.config.load import Runs
from nemoflow.config.run import Run


class Names:
    """The names that follow from the config."""

    def __init__(self, config: Config):
        self.config, self.runs = config, Runs(config)

    def run(self, wildcards: Any) -> Run:
        """The run of a job."""
        return self.runs[wildcards.run]

    def parts(self, wildcards: Any) -> list[str]:
        """The numbers of a corpus' parts; an imported one has none."""
        count = self.config.data("corpora", wildcards.corpus).parts or 0
        return [f"{i:04d}" for i in range(count)]

    def tokenizer_of_import(self, wildcards: Any) -> str | list:
        """The tokenizer that an imported corpus is checked against."""
        imported = self.config.data("corpora", wildcards.corpus).import_ is not None
        return wildcards.tokenizer if imported else []

    def tokenizer(self, wildcards: Any) -> str:
        """The tokenizer of a run."""
        return self.run(wildcards).pretrain.tokenizer

    def blended_corpora(self, wildcards: Any) -> list[str]:
        """The corpora of a phase's blend, those of weight 0 too."""
        self.require(wildcards, f"pretrain.{wildcards.phase}")
        return list(derived.weights(self.config, self.run(wildcards), wildcards.phase))

    def trained_corpora(self, wildcards: Any) -> list[str]:
        """The corpora with weight in a phase's blend."""
        weights = derived.weights(self.config, self.run(wildcards), wildcards.phase)
        return [corpus for corpus in self.blended_corpora(wildcards) if weights[corpus]]

    def phase_before(self, wildcards: Any) -> str | list:
        """The phase that a phase comes after, where it was trained."""
        before = self.run(wildcards).pretrain.phases[wildcards.phase].after
        return before if before and not self.imported(wildcards, f"pretrain.{before}") else []

    def owner_of_phase_before(self, wildcards: Any) -> str:
        """The run that holds it."""
        before = self.phase_before(wildcards)
        return self.owner(wildcards, f"pretrain.{before}") if before else wildcards.run

    def importer_before_phase(self, wildcards: Any) -> str | list:
        """The run that imports the model that a phase starts from."""
        before = self.run(wildcards).pretrain.phases[wildcards.phase].after
        if before:
            return self.imported(wildcards, f"pretrain.{before}")
        return wildcards.run if self.run(wildcards).init else []

    def last_phase(self, wildcards: Any) -> str | list:
        """The phase whose checkpoint goes on to SFT, where it was trained."""
        last = graph.phases(self.run(wildcards))[-1]
        return last if not self.imported(wildcards, "pretrain") else []

    def owner_of_last_phase(self, wildcards: Any) -> str:
        """The run that holds it."""
        self.require(wildcards, "sft")
        return self.owner(wildcards, "pretrain")

    def importer_before_sft(self, wildcards: Any) -> str | list:
        """The run that imports the model that goes on to SFT."""
        return self.imported(wildcards, "pretrain")

    def mixture_tokenizer(self, wildcards: Any) -> str:
        """The tokenizer of a mixture."""
        return self.config.data("mixtures", wildcards.mixture).tokenizer

    def tokenizer_of_packed(self, wildcards: Any) -> str | list:
        """The tokenizer that an imported mixture is checked against."""
        model = self.config.data("mixtures", wildcards.mixture)
        return model.tokenizer if model.import_ is not None else []

    def mixture_sources(self, wildcards: Any) -> list[str]:
        """The sources with weight in a mixture; an imported one has none."""
        sources = self.config.data("mixtures", wildcards.mixture).sources
        return [name for name, source in sources.items() if source.weight]

    def sft_mixture(self, wildcards: Any) -> str | list:
        """The mixture of a run that has SFT."""
        return self.run(wildcards).sft.mixture if self.has(wildcards, "sft") else []

    def step_prompts(self, wildcards: Any) -> str:
        """The prompts of a step."""
        return self.run(wildcards).rl.steps[wildcards.step].prompts

    def stage_before_step(self, wildcards: Any) -> str:
        """The stage whose export a step starts from."""
        run, step = self.run(wildcards), f"rl.{wildcards.step}"
        self.require(wildcards, step)
        return graph.short_name(run, graph.previous(run, step))

    def exporter_before_step(self, wildcards: Any) -> str:
        """The run that holds that export."""
        return self.exporter(wildcards, self.stage_before_step(wildcards))

    def exported(self, wildcards: Any, section: str) -> str | list:
        """The phase, the step, or `sft` itself that {stage} names, if it is of this section.

        And was trained: an imported model is an input of its own.
        """
        full = graph.full_name(self.run(wildcards), wildcards.stage)
        found, _, name = full.partition(".")
        wanted = found == section and not self.imported(wildcards, full)
        return (name or found) if wanted else []

    def exported_phase(self, wildcards: Any) -> str | list:
        """The phase that {stage} names."""
        return self.exported(wildcards, "pretrain")

    def exported_sft(self, wildcards: Any) -> str | list:
        """`sft` where {stage} names it."""
        return self.exported(wildcards, "sft")

    def exported_step(self, wildcards: Any) -> str | list:
        """The step that {stage} names."""
        return self.exported(wildcards, "rl")

    def importer_of_stage(self, wildcards: Any) -> str | list:
        """The run that imports the model in the place of {stage}."""
        return self.imported(wildcards, wildcards.stage)

    def owner_of_stage(self, wildcards: Any) -> str:
        """The run that holds the checkpoint of {stage}."""
        return self.owner(wildcards, wildcards.stage)

    def exporter_of_stage(self, wildcards: Any) -> str:
        """The run that holds the export of {stage}."""
        return self.exporter(wildcards, wildcards.stage)

    def task_prompts(self, wildcards: Any) -> str | list:
        """The prompts whose validation split a task's items are."""
        return self.config.data("tasks", wildcards.task).prompts or []

    def evaluated(self, wildcards: Any) -> list[str]:
        """The evaluated stages of a run."""
        return list(self.run(wildcards).eval.stages)

    def exporters(self, wildcards: Any) -> list[str]:
        """The runs that hold their exports, in the same order."""
        return [self.exporter(wildcards, stage) for stage in self.evaluated(wildcards)]

    def scored_stages(self, wildcards: Any) -> list[str]:
        """The stage of each of a run's scores: one per stage and task."""
        tasks = self.run(wildcards).eval.tasks
        return [stage for stage in self.evaluated(wildcards) for _ in tasks]

    def scored_tasks(self, wildcards: Any) -> list[str]:
        """The task of each, in the same order."""
        return [t for _ in self.evaluated(wildcards) for t in self.run(wildcards).eval.tasks]

    def scorers(self, wildcards: Any) -> list[str]:
        """The run that holds each, in the same order."""
        return [self.scorer(wildcards, stage) for stage in self.scored_stages(wildcards)]

    def own_phases(self, wildcards: Any) -> list[str]:
        """The phases of a run, in order."""
        known = graph.phases(self.run(wildcards))
        return [phase for phase in known if self.has(wildcards, f"pretrain.{phase}")]

    def owners_of_phases(self, wildcards: Any) -> list[str]:
        """The runs that hold them, in the same order."""
        return [self.owner(wildcards, f"pretrain.{p}") for p in self.own_phases(wildcards)]

    def own_steps(self, wildcards: Any) -> list[str]:
        """The steps of a run's chain, in order."""
        known = graph.steps(self.run(wildcards))
        return [step for step in known if self.has(wildcards, f"rl.{step}")]

    def owners_of_steps(self, wildcards: Any) -> list[str]:
        """The runs that hold them, in the same order."""
        return [self.owner(wildcards, f"rl.{s}") for s in self.own_steps(wildcards)]

    def own_stages(self, wildcards: Any) -> list[str]:
        """The stages of a run's chain with a checkpoint, in order."""
        phases = [f"pretrain.{phase}" for phase in self.own_phases(wildcards)]
        sft = ["sft"] if self.has(wildcards, "sft") else []
        return [*phases, *sft, *(f"rl.{step}" for step in self.own_steps(wildcards))]

    def owner_of_sft(self, wildcards: Any) -> str | list:
        """The run that holds the fine-tuned checkpoint, where there is one."""
        return self.owner(wildcards, "sft") if self.has(wildcards, "sft") else []

    def importer(self, wildcards: Any) -> str | list:
        """The run whose imported model a run goes back to."""
        return graph.importer(self.runs, wildcards.run) or []

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
        run, owner = self.run(wildcards), self.owner(wildcards, stage)
        theirs = run if owner == wildcards.run else self.config.unchanged(owner)
        same = graph.full_name(theirs, stage) == graph.full_name(run, stage)
        return owner if same and theirs.export == run.export else wildcards.run

    def scorer(self, wildcards: Any, stage: str) -> str:
        """The run that holds a stage's scores: the export's, unless it evaluates otherwise."""
        exporter, ours = self.exporter(wildcards, stage), self.run(wildcards).eval
        theirs = ours if exporter == wildcards.run else self.config.unchanged(exporter).eval
        same = (theirs.backend, theirs.batch_size) == (ours.backend, ours.batch_size)
        return exporter if same else wildcards.run
