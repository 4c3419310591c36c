"""Why a Slurm job waits, in words, and which reasons never pass.

The names are Slurm's own (`job_reason_codes` in its manual, "resource_limits" and "squeue").
"""

import re

from nemoflow.squeue import Job

PER_JOB = "a limit of the account or QOS on every single job, which this one exceeds"
SIZES = "nodes, gres, threads, mem_mb or slurm_partition"

# Reasons that only another request, or an administrator, can end: what is wrong, what to change.
NEVER = {
    "PartitionConfig": ("no nodes of partition {job.partition} can ever give {job.asks}", SIZES),
    "PartitionNodeLimit": (
        "partition {job.partition} does not allow so many or so few nodes ({job.nodes})",
        "nodes or slurm_partition",
    ),
    "PartitionTimeLimit": (
        "partition {job.partition} does not allow {job.limit} of time",
        "runtime (minutes) or slurm_partition",
    ),
    "BadConstraints": ("no nodes have what it asks for: {job.asks}", f"constraint, {SIZES}"),
    "InvalidAccount": ("its account does not exist any more", "slurm_account"),
    "InvalidQOS": ("its QOS does not exist, or is not for this account", "qos"),
    "AccountNotAllowed": (
        "its account may not use partition {job.partition}",
        "slurm_account or slurm_partition",
    ),
    "QOSNotAllowed": ("its QOS may not be used here", "qos or slurm_partition"),
    "DependencyNeverSatisfied": ("it depends on a job that failed", "slurm_extra"),
    "DeadLine": ("it cannot end before its deadline", "runtime or slurm_extra"),
}

# Reasons that pass by themselves or with the help of whoever is named.
PASSING = {
    "Priority": "other jobs come first",
    "Resources": "for nodes to become free",
    "BeginTime": "until the time at which it may begin",
    "Dependency": "for another job to end",
    "None": "to be looked at by Slurm",
    "Prolog": "for the nodes to be made ready",
    "Cleaning": "for its former attempt to be cleared away",
    "Licenses": "for a licence to become free",
    "Reservation": "for its reservation to begin",
    "NodeDown": "for a node that is down to come back",
    "PartitionDown": "partition {job.partition} is switched off; ask its administrator",
    "PartitionInactive": "partition {job.partition} is switched off; ask its administrator",
    "JobHeldUser": "it is held; scontrol release {job.number}",
    "JobHeldAdmin": "it is held by an administrator, or failed to launch; scontrol release"
    " {job.number}, or ask",
    "JobArrayTaskLimit": "for other tasks of its array to end",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved ({job.reason})",
    "Nodes required for job are DOWN": "nodes that it needs are down, drained or reserved",
    "JobHoldMaxRequeue": "it was requeued too often; scontrol release {job.number}",
    "launch failed requeued held": "it failed to launch; scontrol release {job.number}, or ask",
}


def key(job: Job) -> str:
    """The reason's name, without what Slurm adds to it in some of them."""
    return job.reason.strip("()").partition(",")[0].strip()


def per_job(name: str) -> bool:
    """Whether a reason is a limit on a single job, or the least that a job must ask for.

    Limits on what all jobs of a user or an account have together pass when others end.
    """
    single = ("PerJob" in name or "PerNode" in name) and name.startswith(("QOS", "Assoc"))
    return single or name.startswith("QOSMin") or name in ("QOSTimeLimit", "AssociationTimeLimit")


def never(job: Job) -> str | None:
    """Why a waiting job can never start, and what to change; None where it may yet.

    That the nodes which it needs are down or reserved is no such reason.
    """
    name = key(job)
    if not job.waits:
        return None
    if name in NEVER:
        wrong, change = NEVER[name]
    elif per_job(name):
        wrong, change = PER_JOB, f"qos, slurm_account, runtime, {SIZES}"
    else:
        return None
    rule = f" of {job.rule}" if job.rule else ""
    return f"{name}: {wrong.format(job=job)}. Change {change}{rule} in the profile"


def words(job: Job) -> str:
    """Why a job waits, for people."""
    if hopeless := never(job):
        return hopeless
    name = key(job)
    if name in PASSING:
        return PASSING[name].format(job=job)
    if name.startswith(("QOS", "Assoc")):
        budget = "Minutes" in name
        return (
            f"the account's or QOS's budget is used up ({name})"
            if budget
            else f"for other jobs of the same account or QOS to end ({name})"
        )
    return job.reason or "no reason given"


# What sbatch says when it refuses a job at once: what to change.
REFUSED = {
    "node configuration is not available": f"no node has what it asks for; change {SIZES}",
    "Node count specification invalid": "the partition has not so many nodes; change nodes",
    "partition": "change slurm_partition",
    "account": "change slurm_account",
    "qos": "change qos",
    "feature": "change constraint",
    "time limit": "change runtime",
    "Unable to contact slurm controller": "Slurm was away; give the same command again",
}


def refusal(message: str) -> str | None:
    """What the executor's message about a failed sbatch says, in one line; None for another."""
    found = re.match(r"SLURM sbatch failed\. The error message was '(.*?)'\.\n", message, re.S)
    if found is None:
        return None
    said = " ".join(found[1].replace("sbatch: error: ", "").split())
    hints = [hint for part, hint in REFUSED.items() if part.lower() in said.lower()]
    return f"Slurm refused the job: {said}" + (f" ({hints[0]})" if hints else "")
