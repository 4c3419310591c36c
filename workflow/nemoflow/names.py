"""Names for the rules: what stands in the wildcards of a rule's inputs.

Every method takes the wildcards of a job and returns a name, a list of names, or [] for no input;
paths stand in the rules.
"""

from typing import Any

from nemoflow import graph
from nemoflow.checked import Checked
from nemoflow.config import derived
from nemoflow.errors import UserError


class Names(Checked):
    """The names that follow from the config."""

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
        """The phase whose last checkpoint a phase starts from, where it was trained."""
        phase = self.run(wildcards).pretrain.phases[wildcards.phase]
        before = phase.after if phase.init != "merged" else None
        return before if before and not self.imported(wildcards, f"pretrain.{before}") else []

    def owner_of_phase_before(self, wildcards: Any) -> str:
        """The run that holds it."""
        before = self.phase_before(wildcards)
        return self.owner(wildcards, f"pretrain.{before}") if before else wildcards.run

    def merged_before(self, wildcards: Any) -> str | list:
        """The phase whose average a phase starts from."""
        phase = self.run(wildcards).pretrain.phases[wildcards.phase]
        return phase.after if phase.init == "merged" else []

    def window_before(self, wildcards: Any) -> str | list:
        """The window of that average."""
        found = self.merged_before(wildcards)
        return graph.merged(self.run(wildcards))[-1].partition(".")[2] if found else []

    def merger_before_phase(self, wildcards: Any) -> str:
        """The run that holds it."""
        found = self.merged_before(wildcards)
        return self.merger(wildcards, "merged") if found else wildcards.run

    def owner_of_merged_phase(self, wildcards: Any) -> str:
        """The run that holds the checkpoints of {phase}, to be averaged over {window}."""
        windows = graph.merged(self.run(wildcards))
        merge = self.run(wildcards).pretrain.merge
        if f"merged.{wildcards.window}" not in windows or merge.phase != wildcards.phase:
            known = f"of {merge.phase}: {', '.join(merge.windows)}" if merge else "none"
            raise UserError(
                f"{wildcards.run} averages no window {wildcards.window} of {wildcards.phase}"
                f" (pretrain.merge); known: {known}"
            )
        return self.owner(wildcards, f"pretrain.{wildcards.phase}")

    def validated_corpora(self, wildcards: Any) -> list[str]:
        """The corpora that tell an average's validation loss: the local engine's."""
        local = self.run(wildcards).pretrain.engine == "local"
        return self.trained_corpora(wildcards) if local else []

    def validated_phase(self, wildcards: Any) -> str | list:
        """The phase whose blend does."""
        return wildcards.phase if self.run(wildcards).pretrain.engine == "local" else []

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

    def exported_window(self, wildcards: Any) -> str | list:
        """The window that {stage} names."""
        full = graph.full_name(self.run(wildcards), wildcards.stage)
        return full.partition(".")[2] if full.startswith("merged.") else []

    def merged_phase(self, wildcards: Any) -> str | list:
        """The phase of that window."""
        found = self.exported_window(wildcards)
        return self.run(wildcards).pretrain.merge.phase if found else []

    def merger_of_stage(self, wildcards: Any) -> str:
        """The run that holds that average."""
        found = self.exported_window(wildcards)
        return self.merger(wildcards, wildcards.stage) if found else wildcards.run

    def adapted_phase(self, wildcards: Any) -> str | list:
        """The phase whose model the adapters of {stage} belong to, where it was trained."""
        return self.last_phase(wildcards) if self.adapted(wildcards) else []

    def owner_of_adapted(self, wildcards: Any) -> str:
        """The run that holds it."""
        found = self.adapted(wildcards)
        return self.owner(wildcards, "pretrain") if found else wildcards.run

    def importer_of_adapted(self, wildcards: Any) -> str | list:
        """The run that imports it."""
        return self.imported(wildcards, "pretrain") if self.adapted(wildcards) else []

    def adapted(self, wildcards: Any) -> bool:
        """Whether {stage} was trained as adapters of the stage before it."""
        return bool(self.exported_sft(wildcards)) and self.run(wildcards).sft.lora is not None

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
        """The prompts whose validation split a task's items are; UserError for a suite."""
        task = self.config.data("tasks", wildcards.task)
        if task.suite:
            known = ", ".join(task.suite)
            raise UserError(f"{wildcards.task} is a suite; ask for one of its tasks: {known}")
        return task.prompts or []

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

    def searched(self, wildcards: Any) -> str | list:
        """The run itself, where what it trains on is searched for evaluated items."""
        return wildcards.run if self.run(wildcards).eval.contamination else []
