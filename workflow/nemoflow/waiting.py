"""Slurm jobs that wait for what never comes: said at once, cancelled after a stated time.

Slurm lets a job pend for ever that no node can take, and the controller would wait as long.
"""

import getpass
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemoflow import journal, reasons, squeue
from nemoflow.allocation import ask
from nemoflow.errors import UserError
from nemoflow.progress import say

ROUND = 30.0  # seconds between two looks at the queue, at most


@dataclass
class Watch:
    """Looks at the queue every half minute, in a thread of the controller.

    `minutes` is how long a job may wait for what never comes: an administrator may be changing a
    partition just now. A job that Snakemake retries is cancelled at once.
    """

    minutes: float
    since: dict[str, float] = field(default_factory=dict)  # job number → when it was told of
    given_up: dict[str, str] = field(default_factory=dict)  # comment of the job → what was said

    def start(self) -> None:
        """Watch until the controller ends."""
        threading.Thread(target=self.keep_looking, name="waiting", daemon=True).start()

    def keep_looking(self) -> None:
        """Look again and again."""
        while True:
            self.look(squeue.jobs() or [], time.monotonic())
            time.sleep(min(ROUND, 30 * self.minutes))

    def look(self, jobs: Iterable[squeue.Job], now: float) -> None:
        """Tell of the jobs that can never start, and cancel those that were told of long ago.

        Slurm gives "Priority" as the reason of such a job at times: the clock goes on meanwhile.
        """
        waiting = {job.number: job for job in jobs if job.rule and job.waits}
        known = {number: told for number, told in self.since.items() if number in waiting}
        self.since = dict(known)
        for number, job in waiting.items():
            if (why := reasons.never(job)) is None:
                continue
            told = self.since.setdefault(number, now)
            if job.comment in self.given_up or now - told >= 60 * self.minutes:
                self.give_up(job, why)
            elif number not in known:
                say(
                    f"waiting: Slurm job {number} ({job.title}) can never start: {why}. It is"
                    f" cancelled in {self.minutes:g} minutes, unless that passes"
                )

    def give_up(self, job: squeue.Job, why: str) -> None:
        """Cancel a job; its logs say why."""
        text = f"Slurm job {job.number} ({job.title}) was cancelled, it could never start: {why}"
        self.given_up[job.comment] = text
        for log in logs(job):
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"error: {text}\n")
        done = subprocess.run(["scancel", job.number], capture_output=True, text=True)
        say(f"waiting: {text}" + (f" (scancel: {done.stderr.strip()})" if done.returncode else ""))


def logs(job: squeue.Job) -> list[Path]:
    """The logs of a job: its rule's, and what Slurm writes."""
    known = [found.logs for found in journal.read().values() if found.slurm == job.number]
    own = squeue.log_of(job)
    found = [
        Path(log).absolute() for log in (*(known[0] if known else []), *([own] if own else []))
    ]
    return list(dict.fromkeys(found))


def refuse_unknown(asked: Mapping[str, Iterable[tuple[str | None, str | None]]]) -> None:
    """Partitions and accounts that do not exist here are an error before the first submission.

    `asked` is, per rule, the (partition, account) of its jobs. The executor would submit, fail, and
    tell of an account with a traceback.

    Raises:
        UserError: names the rules, what they ask for, and what there is.
    """
    pairs = [(rule, *pair) for rule, asked_for in asked.items() for pair in asked_for]
    partitions = {(rule, name) for rule, p, _ in pairs for name in str(p or "").split(",") if name}
    accounts = {(rule, a) for rule, _, a in pairs if a}
    known = listed("sinfo", "--all", "--noheader", "--format=%R")
    refuse(partitions, known, "partition", "partition in profiles/site.yaml")
    if accounts:
        user = getpass.getuser()
        known = listed("sacctmgr", "-n", "-s", "list", "user", user, "format=account%256")
        refuse(accounts, known, "account", "account in profiles/site.yaml")


def refuse(asked: set[tuple[str, str]], known: set[str], what: str, place: str) -> None:
    """Raise for the (rule, name) whose name is not among the known, if any are known."""
    lost = sorted({name for _, name in asked if name.lower() not in {k.lower() for k in known}})
    if not known or not lost:
        return
    rules = sorted({rule for rule, name in asked if name == lost[0]})
    raise UserError(
        f"there is no {what} {lost[0]} on this cluster for you (asked for by {', '.join(rules)});"
        f" there are: {', '.join(sorted(known))}. Change {place}, or slurm_{what} in the profile"
    )


def listed(*command: str) -> set[str]:
    """The lines that a command of Slurm prints; none where it cannot answer."""
    try:
        told = ask(*command)
    except UserError:
        return set()
    return {line.strip() for line in told.splitlines() if line.strip()}
