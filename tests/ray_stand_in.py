"""A stand-in for the command `ray` of one machine: nodes are files in the folder RAY_STAND_IN.

The head's port is really listened on, since that is how workers know of its end. RAY_STAND_IN_GPUS
is what each node has; RAY_STAND_IN_LOST names a rank that never joins.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

LISTENER = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    server.accept()[0].close()
"""


def install(folder: Path) -> None:
    """Put a command `ray` into a folder that is to be on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ray"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    path.chmod(0o755)


def told(argv: list[str], name: str) -> str:
    """The value of --name=value or --name value."""
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
        if word == f"--{name}":
            return following
    raise SystemExit(f"ray stand-in: --{name} is missing")


def answers(host: str, port: str) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def start(argv: list[str], folder: Path) -> int:
    """Register this node; a worker stays."""
    resources = json.loads(told(argv, "resources"))
    rank = next(name.rpartition("_")[2] for name in resources if name.startswith("nemoflow_rank_"))
    if "--head" in argv:
        place = told(argv, "node-ip-address"), told(argv, "port")
        listener = subprocess.Popen([sys.executable, "-c", LISTENER, *place])
        (folder / "head.pid").write_text(str(listener.pid))
        while not answers(*place):
            time.sleep(0.02)
    else:
        place = tuple(told(argv, "address").split(":"))
        if os.environ.get("RAY_STAND_IN_LOST") == rank or not answers(*place):
            return 1
    node = folder / f"node{rank}.json"
    node.write_text(json.dumps({**resources, "GPU": int(os.environ["RAY_STAND_IN_GPUS"])}))
    while "--block" in argv and answers(*place):
        time.sleep(0.1)
    return 0


def main(argv: list[str]) -> int:
    """Act as `ray` would."""
    folder = Path(os.environ["RAY_STAND_IN"])
    with open(folder / "calls.jsonl", "a") as calls:
        calls.write(json.dumps(argv) + "\n")
    if argv[0] == "start":
        return start(argv[1:], folder)
    if argv[0] == "status":
        totals: dict[str, float] = {}
        for path in folder.glob("node*.json"):
            for name, amount in json.loads(path.read_text()).items():
                totals[name] = totals.get(name, 0.0) + amount
        print("Total Usage:", *(f" 0.0/{t} {n}" for n, t in totals.items()), sep="\n")
    elif argv[0] == "stop" and (folder / "head.pid").exists():
        os.kill(int((folder / "head.pid").read_text()), signal.SIGKILL)
        (folder / "head.pid").unlink()
        for path in folder.glob("node*.json"):
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
