"""Ray on the nodes of one job: a head on the first node, a worker on each other one.

Resources and ports are those of NeMo-RL's ray.sub: all lie below the ports that the kernel gives
away (32768 and up) and beside those of NeMo-RL's own servers (11001-15000) and NeMo-Gym's
(15001-20000). Each node brings a resource of its rank, by which the head knows who is missing.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from nemoflow.errors import UserError
from nemoflow.machine import Machine
from nemoflow.progress import say

READY = 600.0  # seconds in which all nodes must be there; NEMOFLOW_RAY_SECONDS overrides
PORTS = {
    "node-manager-port": 53001,
    "object-manager-port": 53003,
    "runtime-env-agent-port": 53005,
    "dashboard-agent-grpc-port": 53007,
    "metrics-export-port": 53009,
    "min-worker-port": 10002,
    "max-worker-port": 11000,
}
TOTAL = re.compile(r"[\d.]+/([\d.]+) (\S+)")  # a line of `ray status`: used/total resource
RANK = "nemoflow_rank_{}"


@dataclass(frozen=True)
class Node:
    """One node among those of the job; `hosts` are named in the order of their ranks."""

    rank: int
    hosts: tuple[str, ...]
    machine: Machine

    @classmethod
    def here(cls, machine: Machine) -> "Node":
        """From what the launch has put into the environment.

        Raises:
            UserError: there is not one process for each node.
        """
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if world != machine.nodes:
            raise UserError(
                f"{world} processes for {machine.nodes} nodes; this engine takes one for each"
            )
        named = os.environ.get("NEMOFLOW_HOSTS", "").split(",")
        hosts = named if len(named) == world else [f"node {n}" for n in range(world)]
        return cls(rank, tuple(hosts), machine)

    @property
    def address(self) -> str:
        """The head's address:port."""
        head = os.environ.get("MASTER_ADDR", "127.0.0.1")
        return f"{socket.gethostbyname(head)}:{os.environ.get('MASTER_PORT', '9900')}"

    @property
    def common(self) -> list[str]:
        """What every `ray start` is told."""
        own = {"worker_units": self.machine.gpus, "slurm_managed_ray_cluster": 1}
        resources = json.dumps(own | {RANK.format(self.rank): 1})
        ports = [f"--{name}={port}" for name, port in PORTS.items()]
        return ["--disable-usage-stats", f"--resources={resources}", *ports]


def seconds() -> float:
    """How long the nodes may take."""
    return float(os.environ.get("NEMOFLOW_RAY_SECONDS", READY))


@contextmanager
def head(node: Node) -> Iterator[None]:
    """Ray with all its nodes, from the first one; it ends with the block.

    Raises:
        UserError: it does not start, or nodes or GPUs are missing when the time is over.
    """
    ip, _, port = node.address.partition(":")
    dashboard = [f"--dashboard-host={ip}", "--include-dashboard=true"]  # grpo.py lists its nodes
    place = [f"--node-ip-address={ip}", f"--port={port}", *dashboard]
    try:
        done = subprocess.run(["ray", "start", "--head", *place, *node.common])
        if done.returncode:
            raise UserError(f"ray start --head failed with exit code {done.returncode}; see above")
        wait_for_all(node)
        yield
    finally:
        subprocess.run(["ray", "stop", "--force"])


def wait_for_all(node: Node) -> None:
    """Return when every node and its GPUs are there.

    Raises:
        UserError: naming the hosts that are missing.
    """
    deadline = time.monotonic() + seconds()
    while True:
        told = subprocess.run(["ray", "status"], capture_output=True, text=True).stdout
        totals = {name: float(total) for total, name in TOTAL.findall(told)}
        missing = [h for rank, h in enumerate(node.hosts) if RANK.format(rank) not in totals]
        gpus = int(totals.get("GPU", 0))
        if not missing and gpus >= node.machine.total:
            say(f"Ray: {node.machine.nodes} nodes, {gpus} GPUs")
            return
        if time.monotonic() > deadline:
            break
        time.sleep(min(5.0, seconds() / 10))
    lacking = f"without {', '.join(missing)}" if missing else "with all nodes"
    raise UserError(
        f"Ray: after {seconds():.0f} s {lacking}, {gpus} of {node.machine.total} GPUs; look at"
        " these nodes' lines above, or exclude them"
    )


def worker(node: Node) -> int:
    """Join the head, serve it until it is gone, and return 0: the first node tells how it ended.

    SIGTERM reaches all nodes at once; the head ends first, since what runs here is its.

    Raises:
        UserError: this node could not join.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    deadline = time.monotonic() + seconds()
    argv = ["ray", "start", "--address", node.address, *node.common, "--block"]
    while True:
        joined = subprocess.Popen(argv)
        try:
            began = time.monotonic()
            followed = follow(joined, partial(listening, node.address))
        finally:
            joined.terminate()
            joined.wait()
        if followed:
            return 0
        if time.monotonic() > deadline:
            raise UserError(
                f"{node.hosts[node.rank]}: could not join Ray at {node.address} ({node.hosts[0]})"
                f" within {seconds():.0f} s"
            )
        time.sleep(max(0.0, min(5.0, seconds() / 10) - (time.monotonic() - began)))


def follow(joined: subprocess.Popen, alive: partial) -> bool:
    """Wait for a worker's end; whether it had joined, and so the head's end was the reason."""
    met = False
    while joined.poll() is None:
        here = alive()
        if met and not here:
            return True
        met = met or here
        time.sleep(min(2.0, seconds() / 200))
    return met and not alive()


def listening(address: str) -> bool:
    """Whether the head still answers."""
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError:
        return False
    return True
