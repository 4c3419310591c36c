"""Snakemake whose Slurm executor looks at its jobs every two seconds, not after 3, 13, 23, 33…"""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 2.0, lambda self, seconds: None)

if __name__ == "__main__":
    main()
