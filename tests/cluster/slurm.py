"""A real Slurm on this machine: a controller, and nodes of 8 CPUs and 8 GPU devices each.

Two, n1 and n2, are the partitions `gpu` and `cpu`. n3, the partition `spare`, is for what runs
while other tests have the two; n4, the partition `weak`, is there to fail.
"""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil

HERE = Path(__file__).parent
# The folder that the Slurm programs read unasked: in a job step SLURM_CONF is lost, since
# Snakemake's jobstep executor takes the SLURM_* variables away.
DEFAULT = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
LOCK = Path(tempfile.gettempdir()) / "nemoflow-slurm.lock"
PREFIX = "nemoflow-slurm-"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "gcc")
PACKAGES = ("slurm-wlm", "slurmctld", "slurmd", "slurm-client", "munge", "libslurm-dev", "gcc")
HEADER = Path("/usr/include/slurm/spank.h")
NODES = ("n1", "n2", "n3", "n4")
GPUS = 8

SLURM_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=1
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
PlugStackConfig={folder}/plugstack.conf
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/finished.txt
MinJobAge=300
DefMemPerCPU=100
KillWait=20
OverTimeLimit=0
SlurmdTimeout=60
InactiveLimit=0
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs=8 RealMemory=64000 Gres=gpu:8
NodeName=n1 NodeHostName={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=n2 NodeHostName={host} NodeAddr=127.0.0.1 Port={ports[2]}
NodeName=n3 NodeHostName={host} NodeAddr=127.0.0.1 Port={ports[3]}
NodeName=n4 NodeHostName={host} NodeAddr=127.0.0.1 Port={ports[4]}
PartitionName=gpu Nodes=n1,n2 Default=YES DefaultTime=60 MaxTime=INFINITE State=UP
PartitionName=cpu Nodes=n1,n2 MaxTime=INFINITE State=UP
PartitionName=spare Nodes=n3 MaxTime=INFINITE State=UP
PartitionName=weak Nodes=n4 MaxTime=INFINITE State=UP
"""


class Unavailable(Exception):
    """Why no Slurm can be started here."""


def install() -> None:
    """Install Slurm where it is missing and this machine lets us.

    Raises:
        Unavailable: no root, a slurm.conf of somebody else, or apt could not.
    """
    if os.geteuid() != 0:
        raise Unavailable("starting Slurm takes root")
    conf = DEFAULT / "slurm.conf"
    if os.path.lexists(conf) and not _left_by_us(conf):
        raise Unavailable(f"{conf} exists: this machine has a Slurm of its own")
    if all(map(shutil.which, PROGRAMS)) and HEADER.exists():
        return
    if shutil.which("apt-get") is None:
        raise Unavailable("Slurm is not installed, and there is no apt-get")
    if _apt("install", "--yes", "--no-install-recommends", *PACKAGES):
        _apt("update")  # a fresh container has no lists
        if error := _apt("install", "--yes", "--no-install-recommends", *PACKAGES):
            raise Unavailable(f"apt-get could not install Slurm: {error}")


def _apt(*arguments: str) -> str:
    """What apt-get says where it fails."""
    command = ["apt-get", "--quiet", "--option", "DPkg::Lock::Timeout=120", *arguments]
    silent = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=silent, capture_output=True, text=True)
    return (done.stderr.strip() or "failed")[-300:] if done.returncode else ""


def _left_by_us(path: Path) -> bool:
    """Whether a link was left by tests that were killed."""
    return path.is_symlink() and os.readlink(path).startswith(f"{tempfile.gettempdir()}/{PREFIX}")


class Slurm:
    """Start it, ask it, disturb it, stop it; one at a time on a machine."""

    def __init__(self):
        self.folder: Path
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Slurm":
        install()
        self._lock = open(LOCK, "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # another session of the tests has its turn
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with ExitStack() as failed:
            failed.callback(self.stop)
            self._prepare()
            self._start()
            failed.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints."""
        done = subprocess.run(command, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self, folder: Path | None = None) -> list[dict[str, str]]:
        """Jobs that wait or run, those of a working directory alone where one is given."""
        keys = ("id", "state", "comment", "folder", "node", "name")
        lines = self.run("squeue", "--noheader", "--format=%i|%T|%k|%Z|%N|%j").splitlines()
        found = [dict(zip(keys, line.split("|"), strict=True)) for line in lines]
        return [job for job in found if folder is None or Path(job["folder"]) == folder]

    def finished(self) -> list[dict[str, str]]:
        """One mapping per job that ended, by Slurm's own words (JobId, JobState, NodeList, …)."""
        path = self.folder / "finished.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def set_node(self, node: str, state: str) -> None:
        """Set a node's state: `down`, `resume`, …"""
        self.run("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=test")

    def stop(self) -> None:
        """End all jobs and daemons, and take our links away."""
        subprocess.run(["scancel", "--quiet", "--user=root"], capture_output=True)
        if self._daemons:
            eventually(lambda: not self.run("squeue", "--noheader", check=False))
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in self._daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for process in self._left():
            process.kill()
        for name in FILES:
            if _left_by_us(DEFAULT / name):
                (DEFAULT / name).unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _left(self) -> list[psutil.Process]:
        """What still works for jobs that did not end in time: it writes the log of their node."""
        stepds = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "slurmstepd"]
        mine = [p for p in stepds if any(str(self.folder) in f.path for f in p.open_files())]
        return [process for stepd in mine for process in (stepd, *stepd.children(recursive=True))]

    def _prepare(self) -> None:
        """Write the configuration, the devices and the plugin, and link what must be linked."""
        self.folder.chmod(0o755)
        for name in ("state", "dev", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        text = SLURM_CONF.format(
            host=socket.gethostname(), ports=_ports(1 + len(NODES)), folder=self.folder
        )
        (self.folder / "slurm.conf").write_text(text.lstrip())
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self._devices()}\n")
        plugin = self.folder / "pyxis_stand_in.so"
        self.run("gcc", "-shared", "-fPIC", "-o", str(plugin), str(HERE / "pyxis_stand_in.c"))
        (self.folder / "plugstack.conf").write_text(f"required {plugin}\n")
        DEFAULT.mkdir(exist_ok=True)
        for name in FILES:
            if _left_by_us(DEFAULT / name):
                (DEFAULT / name).unlink()
            (DEFAULT / name).symlink_to(self.folder / name)

    def _devices(self) -> str:
        """Eight character devices: copies of /dev/null, or terminals where none can be made."""
        try:
            for i in range(GPUS):
                os.mknod(self.folder / f"dev/gpu{i}", 0o666 | 0o020000, os.makedev(1, 3))
        except PermissionError:
            return f"/dev/tty[1-{GPUS}]"
        return f"{self.folder}/dev/gpu[0-{GPUS - 1}]"

    def _start(self) -> None:
        """Start the daemons; they end with us, whatever happens to us."""
        path = self.folder
        munge = [f"--{name}={path}/munge.{name}" for name in ("socket", "log-file", "pid-file")]
        more = [f"--key-file={path}/munge.key", f"--seed-file={path}/munge.seed"]
        self._daemon("munged", "--foreground", "--force", *munge, *more)
        eventually((path / "munge.socket").exists)
        self._daemon("slurmctld", "-D", "-f", f"{path}/slurm.conf")
        for node in NODES:
            self._daemon("slurmd", "-D", "-f", f"{path}/slurm.conf", "-N", node)
        eventually(self._ready)

    def _ready(self) -> bool:
        for daemon in self._daemons:
            assert daemon.poll() is None, f"ended at once: {' '.join(daemon.args)}"
        idle = ("sinfo", "--noheader", "--states=idle", "--Node", "--format=%N")
        return set(self.run(*idle, check=False).split()) == set(NODES)

    def _daemon(self, *command: str) -> None:
        with open(self.folder / f"{len(self._daemons)}-{command[0]}.txt", "wb") as output:
            dying = ("setpriv", "--pdeathsig", "TERM", *command)
            self._daemons.append(
                subprocess.Popen(dying, stdout=output, stderr=output, start_new_session=True)
            )


def _ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def eventually(true: Callable[[], object], seconds: float = 300):
    """What a condition gives once it holds.

    Raises:
        TimeoutError: it never did.
    """
    end = time.monotonic() + seconds
    while not (result := true()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {true}")
        time.sleep(0.2)
    return result
