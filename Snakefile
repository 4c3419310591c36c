"""Nemotron 3 from raw data to evaluated model; the stages in pipeline order."""

from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"
include: "rules/controllers.smk"
include: "rules/site.smk"
include: "rules/corpora.smk"
include: "rules/pretrain.smk"
include: "rules/sft.smk"
include: "rules/rl.smk"
include: "rules/eval.smk"
include: "rules/contamination.smk"
include: "rules/report.smk"
include: "rules/artifacts.smk"
include: "rules/preflight.smk"


onstart:
    refuse_orphans()
    check_jobs()
    attend()


onsuccess:
    provenance.export_records(records)


onerror:
    provenance.export_records(records)
    provenance.put_back(records)
    conclude()


check_profile()
