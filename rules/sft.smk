"""Supervised fine-tuning on packed conversations."""


def cores_of_source(wildcards):
    """The cores of this machine, shared by a mixture's sources; on a cluster the profile says."""
    return shared_cores(len(names.mixture_sources(wildcards)))


rule render:
    """Turn conversations into tokens and a mask of what to learn."""
    input:
        tokenizer=collect(
            "results/data/tokenizers/{tokenizer}.json",
            tokenizer=names.mixture_tokenizer,
        ),
    output:
        rendered="results/data/rendered/{mixture}/{source}.json",
    log:
        "results/data/logs/render-{mixture}-{source}.log",
    threads: cores_of_source
    params:
        spec=spec("render"),
    shell:
        "python workflow/scripts/render.py --spec {params.spec:q} --sources results/data/sources"
        " --tokenizer {input.tokenizer} --workers {threads} --output {output.rendered}"
        " 2>&1 | tee {log:q}"


rule pack:
    """Pack rendered conversations into rows of equal length, or import rows that exist."""
    input:
        rendered=collect(
            "results/data/rendered/{{mixture}}/{source}.json",
            source=names.mixture_sources,
        ),
        tokenizer=collect(
            "results/data/tokenizers/{tokenizer}.json",
            tokenizer=names.tokenizer_of_packed,
        ),
    output:
        packed="results/data/packed/{mixture}.json",
    log:
        "results/data/logs/pack-{mixture}.log",
    params:
        spec=spec("pack"),
    shell:
        "python workflow/scripts/pack.py --spec {params.spec:q} --rendered {input.rendered}"
        " --tokenizer {input.tokenizer} --output {output.packed} 2>&1 | tee {log:q}"


rule sft:
    """Fine-tune the last pretrained model on packed conversations."""
    input:
        init=collect(
            "results/{owner}/pretrain/{phase}/checkpoint.json",
            owner=names.owner_of_last_phase,
            phase=names.last_phase,
        ),
        imported=collect("results/{owner}/init.json", owner=names.importer_before_sft),
        data=collect("results/data/packed/{mixture}.json", mixture=names.sft_mixture),
    output:
        checkpoint="results/{run}/sft/checkpoint.json",
        curve="results/{run}/sft/curve.csv",
    log:
        "results/{run}/logs/sft.log",
    threads: 4
    resources:
        nodes=1,
        gres="",
    params:
        spec=spec("sft"),
    shell:
        "OMP_NUM_THREADS={threads} python workflow/scripts/sft.py --spec {params.spec:q}"
        " --init {input.init} {input.imported} --data {input.data}"
        " --checkpoint {output.checkpoint} --curve {output.curve} --log {log:q}"
        " --machine nodes={resources.nodes} gres={resources.gres:q} threads={threads}"
