"""A packing that is killed at any moment: the next one ends with the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import token_jobs
from nemoflow import files, manifest, specs
from nemoflow.spool import SpoolWriter, conversation

OUTPUT = "data/packed/mixed.json"
ASKED = {
    "pack_size": 2048,
    "pad_multiple": 4,
    "valid_fraction": 0.02,
    "seed": 3,
    "weigh_by": "tokens",
    "too_long": "split",
}


class PackJob:
    """pack.py on two rendered sources of a test's own, in one folder."""

    def __init__(self, folder, rows):
        self.folder, packed = folder, folder / "data/packed"
        self.made, self.making = packed / "mixed", packed / ".mixed.new"
        drawn = np.random.default_rng(rows)
        for name, share in (("chat", 0.6), ("code", 0.4)):
            path = folder / f"data/rendered/mixed/{name}"
            with SpoolWriter(path, 7) as spool:
                for length in drawn.lognormal(5, 0.9, int(rows * share)).astype(int) + 3:
                    ids, mask = drawn.integers(8, 400, length), np.ones(length, np.uint8)
                    mask[: length // 3] = 0
                    spool.add(conversation([(ids, mask)]))
            manifest.write(path.with_suffix(".json"), {"stage": "render"})
        told = {"stage": "pack", "version": specs.VERSIONS["pack"], **ASKED}
        told["weights"] = {"chat": 2.0, "code": 1.0}
        spec = {"stage": "pack", "run": None, "identity": told, "options": {}}
        files.write_json(folder / "pack.spec.json", spec)
        rendered = [f"data/rendered/mixed/{name}.json" for name in ("chat", "code")]
        script = str(token_jobs.SCRIPTS / "pack.py")
        self.command = [sys.executable, script, "--spec", "pack.spec.json", "--rendered", *rendered]
        self.command += ["--output", OUTPUT]

    def start(self):
        """Start the job in a session of its own."""
        with open(self.folder / "said.txt", "wb") as said:
            return subprocess.Popen(
                self.command, cwd=self.folder, stdout=said, stderr=said, start_new_session=True
            )

    def finish(self):
        """Run the job to its end; the digests of what it made."""
        process = self.start()
        assert process.wait() == 0, (self.folder / "said.txt").read_text()
        made = sorted(p for p in (self.folder / "data/packed").rglob("*") if p.is_file())
        given = {str(p): files.sha256_of(p) for p in made if p.suffix in (".json", ".parquet")}
        assert not [path for path in given if ".new/" in path or ".former/" in path]
        return given

    def killed(self, size):
        """Start the job and kill it once it wrote so many bytes; whether it was still alive."""
        process = self.start()
        while process.poll() is None and token_jobs.written(self.making) < size:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert "Traceback" not in (self.folder / "said.txt").read_text()
        return process.returncode != 0


def kills(folder, rows, moments):
    """Kill at so many moments, each followed by a run to the end; how many met a living job."""
    job = PackJob(folder, rows)
    expected = job.finish()
    size, drawn, met = token_jobs.written(job.made), random.Random(7), 0
    for moment in range(moments):
        if moment % 2:  # else the former build stands while the next one is made
            shutil.rmtree(folder / "data/packed")
        met += job.killed(size * drawn.random())
        assert job.finish() == expected
    return met


def test_kills_change_no_byte(tmp_path):
    assert kills(tmp_path, 10_000, 2)


@pytest.mark.long
def test_kills_at_ten_moments_of_200_000_rows(tmp_path):
    assert kills(tmp_path, 200_000, 10) >= 8
