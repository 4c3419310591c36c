"""A heavy process: its output is kept and shown, its end told, its locks inherited."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemoflow import running
from nemoflow.errors import UserError
from nemoflow.launch import Line


def python(code):
    return [sys.executable, "-c", code]


@pytest.fixture(autouse=True)
def handlers():
    """Give pytest its signal handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_output_is_appended_to_the_log_and_shown(tmp_path, capfdbinary):
    log = tmp_path / "logs" / "sft.log"
    code = "import os; os.write(1, b'out \\xff\\n'); os.write(2, b'err\\n')"
    running.run(Line(python(code)), log)
    running.run(Line(python("print('again')")), log, shown=False)
    assert log.read_bytes() == b"out \xff\nerr\nagain\n"
    assert capfdbinary.readouterr().err == b"out \xff\nerr\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "raise SystemExit(3)",
            "training stopped itself; why, and what to do, stands above and in",
        ),
        ("raise SystemExit(75)", "saved a checkpoint and ended early; the same command goes on"),
        ("raise SystemExit(7)", "failed with exit code 7 (log: "),
        (
            "import os; os.kill(os.getpid(), 9)",
            "was ended by SIGKILL; the same command goes on from",
        ),
    ],
)
def test_a_failure_is_told_with_its_log(tmp_path, code, said):
    with pytest.raises(UserError) as error:
        running.run(Line(python(code)), tmp_path / "x.log")
    assert said in str(error.value) and str(tmp_path / "x.log") in str(error.value)


def test_a_hidden_command_says_its_own_error(tmp_path):
    code = "print('loading'); raise SystemExit('error: no items:\\n nothing to score')"
    with pytest.raises(UserError, match=r"^no items:\n nothing to score \(log: .*x.log\)$"):
        running.run(Line(python(code)), tmp_path / "x.log", shown=False)
    with pytest.raises(UserError, match="failed with exit code 1"):
        running.run(Line(python("raise ValueError('error: x')")), tmp_path / "x.log", shown=False)


def test_locks_are_inherited(tmp_path):
    with open(tmp_path / "lock", "w") as lock:
        line = Line(python(f"import os; os.fstat({lock.fileno()})"))
        running.run(line, tmp_path / "x.log", [lock.fileno()])
        with pytest.raises(UserError, match="exit code 1"):
            running.run(line, tmp_path / "x.log")


def test_a_signal_is_passed_on_and_waited_for(tmp_path):
    """What Slurm or Ctrl-C sends to the script reaches the trainer, whose last words are kept."""
    trainer = tmp_path / "trainer.py"
    trainer.write_text(
        "import signal, sys, time\n"
        "def last(*_):\n    time.sleep(0.2); print('last words', flush=True); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, last)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    code = (
        "import sys; from pathlib import Path; from nemoflow import launch, running;"
        f"line = launch.Line([sys.executable, {str(trainer)!r}]);"
        f"running.run(line, Path({str(tmp_path / 'x.log')!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(running.__file__).parents[1])}
    job = subprocess.Popen(python(code), stderr=subprocess.PIPE, text=True, env=environment)
    assert job.stderr.readline() == "ready\n"
    started = time.monotonic()
    job.send_signal(signal.SIGTERM)
    assert "exit code 5" in job.communicate(timeout=30)[1] and job.returncode == 1
    assert (tmp_path / "x.log").read_text() == "ready\nlast words\n"
    assert time.monotonic() - started < 30


def test_a_process_does_not_spin_nor_reach_for_the_network(monkeypatch):
    for name in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    told = running.environment(Line([], {"MASTER_ADDR": "n1"}))
    assert told["OMP_NUM_THREADS"] == told["HF_HUB_OFFLINE"] == "1"
    assert told["GOMP_SPINCOUNT"] == "1000" and told["MASTER_ADDR"] == "n1"
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert running.environment(Line([]))["OMP_NUM_THREADS"] == "4"


def test_a_service_runs_beside_the_work_and_ends_with_it(tmp_path):
    """Its words go to a log of its own; a failure of the work ends it too."""
    forever = "import time; print('serving', flush=True); open('up', 'w'); time.sleep(60)"
    wait = "import os, time\nwhile not os.path.exists('up'): time.sleep(0.05)\n"
    service = Line(python(f"import os; os.chdir({str(tmp_path)!r}); {forever}"))
    started = time.monotonic()
    with pytest.raises(UserError, match="exit code 7"):
        code = f"import os; os.chdir({str(tmp_path)!r})\n{wait}raise SystemExit(7)"
        running.run(Line(python(code), beside=service), tmp_path / "rl.log")
    assert (tmp_path / "rl.service.log").read_text() == "serving\n"
    assert time.monotonic() - started < 30


def test_srun_outside_of_a_slurm_job_would_ask_for_another(tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match="inside a Slurm job.*profiles/b200"):
        running.run(Line(["srun", "x"]), tmp_path / "x.log")


def test_srun_is_spared_the_signal_that_its_tasks_get(tmp_path):
    """At SIGTERM srun kills its tasks; scancel lets them save."""
    for name, script in (
        (
            "srun",
            "trap 'exit 9' TERM; echo ready; while [ ! -e asked ]; do sleep 0.05; done; exit 75",
        ),
        ("scancel", 'echo "$@" > asked.new && mv asked.new asked'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    code = (
        "from pathlib import Path; from nemoflow import launch, running;"
        "running.run(launch.Line(['srun', 'x']), Path('x.log'))"
    )
    told = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    told["PYTHONPATH"] = str(Path(running.__file__).parents[1])
    job = subprocess.Popen(
        python(code), stderr=subprocess.PIPE, text=True, env={**os.environ, **told}, cwd=tmp_path
    )
    assert job.stderr.readline() == "ready\n"
    job.send_signal(signal.SIGTERM)
    assert "saved a checkpoint and ended early" in job.communicate(timeout=30)[1]
    assert (tmp_path / "asked").read_text() == "--signal=TERM 17\n"
