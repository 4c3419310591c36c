"""Runs engines and dry runs of the tests in forks of one process that has their libraries loaded.

    python server.py SOCKET

Importing torch, transformers and lm-eval takes an engine five seconds of processor time, importing
pandas and SQLAlchemy a dry run of Snakemake more than one, and the tests start hundreds of them.
The process that is started (sitecustomize.py beside this file) hands its command, environment and
output over, waits, and ends as the fork ends; what it is told by a signal is told to the fork, and
its death is the fork's.
"""

import atexit
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress

SIZE = 8  # bytes that tell the length of what follows


def preload() -> None:
    """Import what the engines import, but for our own code, which a test may have edited."""
    import accelerate
    import datasets
    import lm_eval
    import lm_eval.models.huggingface
    import lm_eval.tasks
    import peft
    import pyarrow.parquet
    import smart_open
    import snakemake.cli
    import torch
    import transformers
    import transformers.models.nemotron_h.modeling_nemotron_h

    known = accelerate, datasets, lm_eval, peft, pyarrow, smart_open, snakemake, torch, transformers
    assert all(known)
    gc.freeze()  # forks share these pages


def receive(connection: socket.socket) -> tuple[dict, list[int]]:
    """A command {module, argv, cwd, env}, and the file descriptors of its input and output."""
    head, files, *_ = socket.recv_fds(connection, SIZE, 3)
    size, told = int.from_bytes(head), b""
    while len(told) < size:
        told += connection.recv(size - len(told))
    return json.loads(told), files


def work(told: dict, files: list[int]) -> int:
    """Be the command; its exit code."""
    for place, file in enumerate(files):
        os.dup2(file, place)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])
    own = os.path.dirname(os.path.abspath(__file__))
    given = [place for place in told["env"].get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.path[:] = [told["cwd"], *given, *(place for place in sys.path if place not in ("", own))]
    sys.argv = ["-m", *told["argv"]]
    code = 0
    try:
        runpy.run_module(told["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    atexit._run_exitfuncs()
    return code


class Server:
    """Connections and the forks that work for them."""

    def __init__(self, path: str):
        self.selector = selectors.DefaultSelector()
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(path)
        self.listening.listen(64)
        self.selector.register(self.listening, selectors.EVENT_READ, None)
        self.parent = os.getppid()

    def serve(self) -> None:
        """Work until the process that started this one is gone."""
        while os.getppid() == self.parent:
            for key, _ in self.selector.select(timeout=2):
                if key.fileobj is self.listening:
                    self.begin(self.listening.accept()[0])
                else:
                    self.look(key)

    def begin(self, connection: socket.socket) -> None:
        """Fork for a command."""
        told, files = receive(connection)
        pid = os.fork()
        if pid == 0:
            for key in list(self.selector.get_map().values()):
                os.close(key.fd)
            connection.close()
            code = 1
            try:
                code = work(told, files)
            finally:
                if sys.exc_info()[0]:
                    traceback.print_exc()
                with suppress(OSError, ValueError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        for file in files:
            os.close(file)
        connection.sendall(pid.to_bytes(SIZE))
        ends = os.pidfd_open(pid)
        self.selector.register(connection, selectors.EVENT_READ, (pid, connection, ends))
        self.selector.register(ends, selectors.EVENT_READ, (pid, connection, ends))

    def look(self, key: selectors.SelectorKey) -> None:
        """A fork has ended: say how. Or the process that it stands for has: end it."""
        pid, connection, ends = key.data
        if key.fileobj is connection:
            self.selector.unregister(connection)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        _, status = os.waitpid(pid, 0)
        self.selector.unregister(ends)
        if connection in [other.fileobj for other in self.selector.get_map().values()]:
            self.selector.unregister(connection)
            with suppress(OSError):
                connection.sendall((os.waitstatus_to_exitcode(status) + 256).to_bytes(SIZE))
        os.close(ends)
        connection.close()


if __name__ == "__main__":
    server = Server(sys.argv[1])
    preload()
    server.serve()
