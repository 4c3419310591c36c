"""One page about a run."""


rule report:
    """Draw the scores, caveats, graph, curves, data, answers and provenance of a run."""
    input:
        eval="results/{run}/eval.json",
        imported=collect("results/{owner}/init.json", owner=names.importer),
        blends=collect(
            "results/{owner}/pretrain/{phase}/blend.json",
            zip,
            owner=names.owners_of_phases,
            phase=names.own_phases,
        ),
        pretrain=collect(
            "results/{owner}/pretrain/{phase}/checkpoint.json",
            zip,
            owner=names.owners_of_phases,
            phase=names.own_phases,
        ),
        sft=collect("results/{owner}/sft/checkpoint.json", owner=names.owner_of_sft),
        rl=collect(
            "results/{owner}/rl/{step}/checkpoint.json",
            zip,
            owner=names.owners_of_steps,
            step=names.own_steps,
        ),
        data=collect("results/data/packed/{mixture}.json", mixture=names.sft_mixture),
        parity=collect(
            "results/{owner}/parity/{stage}.json",
            zip,
            owner=names.exporters,
            stage=names.evaluated,
        ),
        parity_of_imported=collect(
            "results/{owner}/parity/init.json", owner=names.importer
        ),
        contamination=collect(
            "results/{searched}/contamination.json", searched=names.searched
        ),
    output:
        page="results/{run}/report.html",
    log:
        "results/{run}/logs/report.log",
    params:
        spec=spec("report"),
    shell:
        "python workflow/scripts/report.py --spec {params.spec:q} --eval {input.eval}"
        " --imported {input.imported} --blends {input.blends}"
        " --checkpoints {input.pretrain} {input.sft} {input.rl}"
        " --packed {input.data} --parity {input.parity_of_imported} {input.parity}"
        " --contamination {input.contamination} --output {output.page} 2>&1 | tee {log:q}"
