"""Shared data of pretraining: tokenizers, and corpora as bin/idx shards."""


rule tokenizer:
    """Fetch a tokenizer at its pinned revision, or train a tiny one."""
    output:
        tokenizer="results/data/tokenizers/{tokenizer}.json",
    log:
        "results/data/logs/tokenizer-{tokenizer}.log",
    params:
        spec=spec("tokenizer"),
    shell:
        "python workflow/scripts/tokenizer.py --spec {params.spec:q} --sources results/data/sources"
        " --output {output.tokenizer} 2>&1 | tee {log:q}"


rule plan:
    """List a corpus' files at a pinned revision, with sizes and digests, and cut them into parts."""
    output:
        plan="results/data/plans/{corpus}.json",
    log:
        "results/data/logs/plan-{corpus}.log",
    params:
        spec=spec("plan"),
    shell:
        "python workflow/scripts/plan.py --spec {params.spec:q} --sources results/data/sources"
        " --output {output.plan} 2>&1 | tee {log:q}"


def cores_of_part(wildcards):
    """The cores of this machine, shared by a corpus' parts; on a cluster the profile says."""
    return shared_cores(len(names.parts(wildcards)))


rule tokens:
    """Tokenize one part of a corpus into shards."""
    input:
        plan="results/data/plans/{corpus}.json",
        tokenizer="results/data/tokenizers/{tokenizer}.json",
    output:
        part=temp("results/data/tokens/{tokenizer}/{corpus}.parts/{part}.json"),
    log:
        "results/data/logs/tokens-{tokenizer}-{corpus}-{part}.log",
    threads: cores_of_part
    params:
        spec=spec("tokens"),
    shell:
        "python workflow/scripts/tokens.py --spec {params.spec:q} --sources results/data/sources"
        " --plan {input.plan} --tokenizer {input.tokenizer} --part {wildcards.part}"
        " --workers {threads} --output {output.part} 2>&1 | tee {log:q}"


rule corpus:
    """Join the parts of a corpus into one product, or import existing shards as one."""
    input:
        parts=collect(
            "results/data/tokens/{{tokenizer}}/{{corpus}}.parts/{part}.json",
            part=names.parts,
        ),
        tokenizer=collect(
            "results/data/tokenizers/{tokenizer}.json",
            tokenizer=names.tokenizer_of_import,
        ),
    output:
        corpus="results/data/tokens/{tokenizer}/{corpus}.json",
    log:
        "results/data/logs/corpus-{tokenizer}-{corpus}.log",
    params:
        spec=spec("corpus"),
    shell:
        "python workflow/scripts/corpus.py --spec {params.spec:q} --parts {input.parts}"
        " --tokenizer {input.tokenizer} --output {output.corpus} 2>&1 | tee {log:q}"
