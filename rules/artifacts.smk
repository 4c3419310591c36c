"""Finished work in DVC's cache and on its remote."""


rule seal:
    """Put what led to a checkpoint into DVC's cache, with pointers; nothing waits for it."""
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
    output:
        mark="results/{run}/.sealed/{stage}",
    log:
        "results/{run}/logs/seal-{stage}.log",
    priority: -1
    shell:
        "python workflow/scripts/seal.py --checkpoint {input.pretrain} {input.sft} {input.rl}"
        " --output {output.mark} 2>&1 | tee {log:q}"


rule publish:
    """Push a run and all that it was made from, and say what to commit."""
    input:
        eval="results/{run}/eval.json",
        sealed=collect("results/{{run}}/.sealed/{stage}", stage=names.own_stages),
    output:
        mark="results/{run}/publish",
    log:
        "results/{run}/logs/publish.log",
    params:
        remote=remote,
    shell:
        "python workflow/scripts/publish.py --run {wildcards.run} --eval {input.eval}"
        " --output {output.mark} 2>&1 | tee {log:q}"
