"""What is particular to a site: account, partitions, and its files of container images."""

from snakemake.resources import Resource, Resources

from nemoflow import site

# Those that start an engine; a test compares them with the rules.
GPU_RULES = (
    "import_model",
    "pretrain",
    "merge",
    "sft",
    "rl",
    "export",
    "eval_task",
)


@politely
def apply_site():
    """Account and partitions of the site, where a profile's rule does not name its own.

    Jobs get the same site by their environment: what is changed later is for later jobs.
    """
    site.freeze()
    here, asked = site.load(), workflow.resource_settings
    usual = {"slurm_account": here.account}
    usual["slurm_partition"] = here.cpu_partition or here.partition
    if asked.default_resources is None:  # one machine
        return
    for name, value in usual.items():
        if value:
            asked.default_resources[name] = Resource.from_cli_expression(
                name, repr(value)
            )
    for rule in GPU_RULES if here.partition else ():
        own = asked.overwrite_resources.setdefault(rule, Resources({}))
        if "slurm_partition" not in own:
            own["slurm_partition"] = Resource.from_cli_expression(
                "slurm_partition", repr(here.partition)
            )


apply_site()


rule image:
    """Bring a container image into the site's folder of images; no job waits for it."""
    output:
        image="results/images/{image}.json",
    log:
        "results/images/logs/image-{image}.log",
    params:
        spec=spec("image"),
    shell:
        "python workflow/scripts/image.py --spec {params.spec:q} --output {output.image}"
        " 2>&1 | tee {log:q}"
