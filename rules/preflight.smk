"""Before anything is submitted: the profile, and every GPU job of the DAG."""

from nemoflow import preflight, profile


def profiles():
    """The profiles of this command. Snakemake keeps only what it has read in them."""
    import argparse
    from snakemake.cli import get_profile_dir

    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--profile", nargs="+", default=[])
    options.add_argument("--workflow-profile", nargs=1, default=[])
    told, _ = options.parse_known_args(sys.argv[1:])
    named = told.profile or [os.environ.get("SNAKEMAKE_PROFILE", "none")]
    found = [get_profile_dir(name) for name in (*named, *told.workflow_profile)]
    folders = [
        folder for folder, file in filter(None, found) if file.name == "config.yaml"
    ]
    return [profile.Profile(os.path.relpath(folder)) for folder in folders]


@politely
def check_profile():
    """Snakemake ignores resources of a rule that does not exist, and hands wrong ones on."""
    if not workflow.is_main_process:
        return
    known = {rule.name for rule in workflow.rules}
    wrong = [text for each in profiles() for text in each.problems(known)]
    for asked in ("overwrite_resources", "overwrite_threads"):
        if unknown := sorted(set(getattr(workflow.resource_settings, asked)) - known):
            wrong.append(
                f"resources are set for {', '.join(unknown)}, which is no rule; rules:"
                f" {', '.join(sorted(known))}"
            )
    wrong += [text for each in profiles() for text in each.miscounted(settings)]
    preflight.refuse(wrong)


@politely
def check_jobs():
    """Whether the GPU jobs that are going to be submitted fit what they get."""
    if workflow.local_exec:
        return
    found = [
        (
            job.rule.name,
            dict(job.wildcards_dict),
            dict(job.resources.items()),
            job.threads,
        )
        for job in workflow.dag.needrun_jobs()
        if job.rule.name in preflight.RULES
    ]
    hardware = [each.hardware for each in profiles() if each.hardware]
    made = {str(path) for job in workflow.dag.needrun_jobs() for path in job.output}
    preflight.check(settings, found, hardware[-1] if hardware else None, made)
