"""Python runs this first: a test's engine or dry run is handed to server.py, where there is one.

Everything else goes on as if this file were not there.
"""

import os
import sys

ENGINES = tuple(f"nemoflow.engines.{name}" for name in ("local", "harness", "answering"))
DRY = {"-n", "--dry-run"}
PLACE = "TESTS_PRELOADED"  # the server's socket
SIZE = 8


def is_served(words: list[str]) -> bool:
    """Whether a command line is one of those whose libraries the server has loaded."""
    if words[1:2] != ["-m"]:
        return False
    return words[2] in ENGINES or (words[2] == "snakemake" and bool(DRY & {*words}))


def hand_over() -> None:
    """Let the server do this command's work; returns where there is no server."""
    import json
    import signal
    import socket

    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.environ[PLACE])
    except OSError:
        return
    told = {"module": sys.orig_argv[2], "argv": sys.orig_argv[3:], "cwd": os.getcwd()}
    body = json.dumps(told | {"env": dict(os.environ)}).encode()
    socket.send_fds(connection, [len(body).to_bytes(SIZE)], [0, 1, 2])
    connection.sendall(body)
    if not (told := connection.recv(SIZE)):
        return
    pid = int.from_bytes(told)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: os.kill(pid, received))
    said = connection.recv(SIZE)
    code = int.from_bytes(said) - 256 if said else 1
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if PLACE in os.environ and is_served(sys.orig_argv):
    hand_over()
