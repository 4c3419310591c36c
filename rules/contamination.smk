"""Whether items of the evaluated tasks stand in what a run trains on."""


rule eval_items:
    """Write down the texts of a task's items."""
    input:
        prompts=collect(
            "results/data/prompts/{prompts}.json", prompts=names.task_prompts
        ),
    output:
        texts="results/data/items/{task}.json",
    log:
        "results/data/logs/eval-items-{task}.log",
    params:
        spec=spec("eval_items"),
    shell:
        "python workflow/scripts/eval_items.py --spec {params.spec:q}"
        " --sources results/data/sources --prompts {input.prompts} --output {output.texts}"
        " 2>&1 | tee {log:q}"


def cores_of_search(wildcards):
    """The cores of this machine, shared by what is searched; on a cluster the profile says."""
    return shared_cores(len(names.checked_data(wildcards)) or 1)


rule overlap:
    """Look for items of the evaluated tasks in what a stage trains on."""
    input:
        tasks=collect("results/data/items/{task}.json", task=names.checked_tasks),
        corpus=collect(
            "results/data/tokens/{tokenizer}/{corpus}.json",
            tokenizer=names.tokenizer,
            corpus=names.checked_corpus,
        ),
        packed=collect(
            "results/data/packed/{mixture}.json", mixture=names.checked_mixture
        ),
        prompts=collect(
            "results/data/prompts/{prompts}.json", prompts=names.checked_prompts
        ),
        tokenizer=collect(
            "results/data/tokenizers/{tokenizer}.json", tokenizer=names.decoder
        ),
    output:
        overlap="results/{run}/contamination/{kind}/{data}.json",
    log:
        "results/{run}/logs/overlap-{kind}-{data}.log",
    threads: cores_of_search
    params:
        spec=spec("overlap"),
    shell:
        "python workflow/scripts/overlap.py --spec {params.spec:q} --items {input.tasks}"
        " --data {input.corpus} {input.packed} {input.prompts} --tokenizer {input.tokenizer}"
        " --workers {threads} --output {output.overlap} 2>&1 | tee {log:q}"


rule contamination:
    """Gather how many items of each task a run's training data holds."""
    input:
        overlaps=collect(
            "results/{owner}/contamination/{kind}/{data}.json",
            zip,
            owner=names.checkers,
            kind=names.checked_kinds,
            data=names.checked_data,
        ),
    output:
        contamination="results/{run}/contamination.json",
    log:
        "results/{run}/logs/contamination.log",
    params:
        spec=spec("contamination"),
    shell:
        "python workflow/scripts/contamination.py --spec {params.spec:q}"
        " --run {wildcards.run} --overlaps {input.overlaps} --output {output.contamination}"
        " 2>&1 | tee {log:q}"
