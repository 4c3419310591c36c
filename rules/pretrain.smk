"""Pretraining, phase by phase, each on its blend of corpora."""


rule blend:
    """Give every shard its weight, in each split."""
    input:
        corpora=collect(
            "results/data/tokens/{tokenizer}/{corpus}.json",
            tokenizer=names.tokenizer,
            corpus=names.blended_corpora,
        ),
    output:
        blend="results/{run}/pretrain/{phase}/blend.json",
    log:
        "results/{run}/logs/blend-{phase}.log",
    params:
        spec=spec("blend"),
    shell:
        "python workflow/scripts/blend.py --spec {params.spec:q} --corpora {input.corpora}"
        " --output {output.blend} 2>&1 | tee {log:q}"


rule import_model:
    """Take an existing model in the place of the stages before a run's first."""
    output:
        model="results/{run}/init.json",
        parity="results/{run}/parity/init.json",
    log:
        "results/{run}/logs/import-model.log",
    resources:
        nodes=1,
        gres="",
    params:
        spec=spec("import_model"),
    shell:
        "python workflow/scripts/import_model.py --spec {params.spec:q} --output {output.model}"
        " --parity {output.parity} --log {log:q}"
        " --machine nodes={resources.nodes} gres={resources.gres:q} threads={threads}"


rule pretrain:
    """Train one phase on its blend, from the phase before it."""
    input:
        blend="results/{run}/pretrain/{phase}/blend.json",
        corpora=collect(
            "results/data/tokens/{tokenizer}/{corpus}.json",
            tokenizer=names.tokenizer,
            corpus=names.trained_corpora,
        ),
        init=collect(
            "results/{owner}/pretrain/{before}/checkpoint.json",
            owner=names.owner_of_phase_before,
            before=names.phase_before,
        ),
        merged=collect(
            "results/{owner}/pretrain/{before}/merged/{window}.json",
            owner=names.merger_before_phase,
            before=names.merged_before,
            window=names.window_before,
        ),
        imported=collect("results/{owner}/init.json", owner=names.importer_before_phase),
    output:
        checkpoint="results/{run}/pretrain/{phase}/checkpoint.json",
        curve="results/{run}/pretrain/{phase}/curve.csv",
    log:
        "results/{run}/logs/pretrain-{phase}.log",
    threads: 4
    resources:
        nodes=1,
        gres="",
    params:
        spec=spec("pretrain"),
    shell:
        "OMP_NUM_THREADS={threads} python workflow/scripts/pretrain.py --spec {params.spec:q}"
        " --blend {input.blend} --corpora {input.corpora}"
        " --init {input.init} {input.merged} {input.imported}"
        " --checkpoint {output.checkpoint} --curve {output.curve} --log {log:q}"
        " --machine nodes={resources.nodes} gres={resources.gres:q} threads={threads}"


rule merge:
    """Average a phase's last checkpoints."""
    input:
        checkpoint=collect(
            "results/{owner}/pretrain/{{phase}}/checkpoint.json",
            owner=names.owner_of_merged_phase,
        ),
        blend=collect(
            "results/{owner}/pretrain/{phase}/blend.json",
            owner=names.owner_of_merged_phase,
            phase=names.validated_phase,
        ),
        corpora=collect(
            "results/data/tokens/{tokenizer}/{corpus}.json",
            tokenizer=names.tokenizer,
            corpus=names.validated_corpora,
        ),
    output:
        model="results/{run}/pretrain/{phase}/merged/{window}.json",
    log:
        "results/{run}/logs/merge-{phase}-{window}.log",
    resources:
        nodes=1,
        gres="",
    params:
        spec=spec("merge"),
    shell:
        "python workflow/scripts/merge.py --spec {params.spec:q} --checkpoint {input.checkpoint}"
        " --blend {input.blend} --corpora {input.corpora} --output {output.model} --log {log:q}"
        " --machine nodes={resources.nodes} gres={resources.gres:q} threads={threads}"
