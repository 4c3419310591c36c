"""Reinforcement learning, step by step."""


rule resolve:
    """Make the rows of a set of prompts whole, and split off validation."""
    output:
        prompts="results/data/prompts/{prompts}.json",
    log:
        "results/data/logs/resolve-{prompts}.log",
    params:
        spec=spec("resolve"),
    shell:
        "python workflow/scripts/resolve.py --spec {params.spec:q} --sources results/data/sources"
        " --output {output.prompts} 2>&1 | tee {log:q}"


rule rl:
    """Train one step on its prompts, from the export of the stage before it."""
    input:
        init=collect(
            "results/{owner}/export/{before}.json",
            owner=names.exporter_before_step,
            before=names.stage_before_step,
        ),
        prompts=collect(
            "results/data/prompts/{prompts}.json", prompts=names.step_prompts
        ),
    output:
        checkpoint="results/{run}/rl/{step}/checkpoint.json",
        curve="results/{run}/rl/{step}/curve.csv",
    log:
        "results/{run}/logs/rl-{step}.log",
    threads: 4
    resources:
        nodes=1,
        gres="",
        generate_nodes=0,
        environment_nodes=0,
    params:
        spec=spec("rl"),
    shell:
        "OMP_NUM_THREADS={threads} python workflow/scripts/rl.py --spec {params.spec:q}"
        " --init {input.init} --prompts {input.prompts}"
        " --checkpoint {output.checkpoint} --curve {output.curve} --log {log:q}"
        " --machine nodes={resources.nodes} gres={resources.gres:q} threads={threads}"
        " generate_nodes={resources.generate_nodes}"
        " environment_nodes={resources.environment_nodes}"
