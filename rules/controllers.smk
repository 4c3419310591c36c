"""Several Snakemake processes in one checkout: what one works on, no other may touch."""

import snakemake.exceptions
from snakemake.persistence.file import FilePersistence


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
