"""Several Snakemake processes in one checkout: what one works on, no other may touch."""

import shutil

import snakemake.exceptions
from snakemake.logging import logger
from snakemake.persistence.file import FilePersistence

from nemoflow import journal, site, squeue, waiting


def refuse_collision():
    """Snakemake's own text advises --unlock, after which two controllers write the same files."""
    sys.exit(f"error: {controllers.collision()}")


def unlock(persistence):
    """Remove a controller's own locks, or all of them for --unlock, which comes without any.

    Snakemake's own removes the folder, so that controllers which go on are without locks.
    """
    if not persistence._lockfile:
        shutil.rmtree(persistence._lockdir, ignore_errors=True)
    for path in persistence._lockfile.values():
        Path(path).unlink(missing_ok=True)
    persistence._lockfile.clear()


# Snakemake looks both up when they are due (snakemake/persistence, 9.27).
snakemake.exceptions.LockException = refuse_collision
FilePersistence._delete_locks = unlock


def refuse_orphans():
    """Slurm jobs of a killed controller still write here; a second set would write the same.

    Those of a controller that lives are its own: it holds the locks of what they make.
    """
    watched = set().union(*map(journal.submitted, controllers.beside()))
    orphans = [
        f"{job.number} ({job.state}, {job.comment})"
        for job in squeue.jobs() or []
        if job.rule and job.number not in watched
    ]
    if orphans:
        sys.exit(
            f"error: Slurm jobs of an earlier controller still run here: {', '.join(orphans)}."
            " Wait for them, or scancel them; then give the same command again."
        )


@politely
def attend():
    """Note what becomes of each job; on Slurm, do not wait for what can never start."""
    notes.drop_oldest()
    logger.addHandler(notes)
    if workflow.executor_plugin.name != "slurm":
        return
    asked = {}
    for job in workflow.dag.needrun_jobs():
        told = (job.resources.get(f"slurm_{what}") for what in ("partition", "account"))
        asked.setdefault(job.rule.name, set()).add(tuple(told))
    waiting.refuse_unknown(asked)
    watch.start()


def conclude():
    """Say again, at the end of a failed run, which jobs Slurm refused or would never have begun."""
    for text in [*watch.given_up.values(), *notes.refused]:
        print(f"error: {text}", file=sys.stderr)


notes = journal.Journal()
watch = waiting.Watch(politely(site.load)().hopeless_minutes)
