"""Exported models and their scores."""


rule export:
    """Write a stage's checkpoint in Hugging Face format."""
    input:
        pretrain=collect(
            "results/{owner}/pretrain/{phase}/checkpoint.json",
            owner=names.owner_of_stage,
            phase=names.exported_phase,
        ),
        sft=collect(
            "results/{owner}/{sft}/checkpoint.json",
            owner=names.owner_of_stage,
            sft=names.exported_sft,
        ),
        rl=collect(
            "results/{owner}/rl/{step}/checkpoint.json",
            owner=names.owner_of_stage,
            step=names.exported_step,
        ),
        imported=collect("results/{owner}/init.json", owner=names.importer_of_stage),
        merged=collect(
            "results/{owner}/pretrain/{phase}/merged/{window}.json",
            owner=names.merger_of_stage,
            phase=names.merged_phase,
            window=names.exported_window,
        ),
        base=collect(
            "results/{owner}/pretrain/{phase}/checkpoint.json",
            owner=names.owner_of_adapted,
            phase=names.adapted_phase,
        ),
        imported_base=collect(
            "results/{owner}/init.json", owner=names.importer_of_adapted
        ),
        tokenizer=collect(
            "results/data/tokenizers/{tokenizer}.json", tokenizer=names.tokenizer
        ),
    output:
        model="results/{run}/export/{stage}.json",
        parity="results/{run}/parity/{stage}.json",
    log:
        "results/{run}/logs/export-{stage}.log",
    resources:
        nodes=1,
        gres="",
    params:
        spec=spec("export"),
    shell:
        "python workflow/scripts/export.py --spec {params.spec:q}"
        " --checkpoint {input.pretrain} {input.sft} {input.rl} {input.imported} {input.merged}"
        " --base {input.base} {input.imported_base} --tokenizer {input.tokenizer}"
        " --output {output.model} --parity {output.parity} --log {log:q}"
        " --machine nodes={resources.nodes} gres={resources.gres:q} threads={threads}"


rule eval_task:
    """Score an exported model on one task."""
    input:
        model=collect(
            "results/{owner}/export/{{stage}}.json", owner=names.exporter_of_stage
        ),
        prompts=collect(
            "results/data/prompts/{prompts}.json", prompts=names.task_prompts
        ),
    output:
        scores="results/{run}/eval/{stage}/{task}.json",
    log:
        "results/{run}/logs/eval-{stage}-{task}.log",
    resources:
        nodes=1,
        gres="",
    params:
        spec=spec("eval_task"),
    shell:
        "python workflow/scripts/eval_task.py --spec {params.spec:q} --model {input.model}"
        " --prompts {input.prompts} --output {output.scores} --log {log:q}"
        " --machine nodes={resources.nodes} gres={resources.gres:q} threads={threads}"


rule eval:
    """Gather the scores of all evaluated stages."""
    input:
        models=collect(
            "results/{owner}/export/{stage}.json",
            zip,
            owner=names.exporters,
            stage=names.evaluated,
        ),
        scores=collect(
            "results/{owner}/eval/{stage}/{task}.json",
            zip,
            owner=names.scorers,
            stage=names.scored_stages,
            task=names.scored_tasks,
        ),
    output:
        eval="results/{run}/eval.json",
    log:
        "results/{run}/logs/eval.log",
    params:
        spec=spec("eval"),
    shell:
        "python workflow/scripts/eval.py --spec {params.spec:q} --run {wildcards.run}"
        " --models {input.models} --scores {input.scores} --output {output.eval} 2>&1 | tee {log:q}"
