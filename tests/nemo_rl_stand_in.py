"""A stand-in for NeMo-RL's driver: its files and its manners, no model.

It reads the config that it is given, resumes from the highest step_N, logs for TensorBoard, saves
by tmp_step_N and rename, and ends at checkpoint_must_save_by. NEMO_RL_STAND_IN is JSON of how it
shall behave: seconds (per step), nan_at, crash_at, swallow_at (an error that is passed over, as in
the asynchronous loop).
"""

import json
import os
import re
import struct
import sys
import time
from pathlib import Path

import yaml

SOURCE = "num_gpu_nodes penalize_invalid_tool_call"  # the signs of super-v3


def install(root: Path) -> None:
    """Lay out what the engine looks for in NeMo-RL's folder."""
    for path, text in {
        "nemo_rl/algorithms/grpo.py": SOURCE,
        "examples/nemo_gym/run_grpo_nemo_gym.py": Path(__file__).read_text(),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def varint(number: int) -> bytes:
    """A protocol buffer's number."""
    head, rest = number & 127, number >> 7
    return bytes([head | 128]) + varint(rest) if rest else bytes([head])


def message(number: int, value: bytes) -> bytes:
    """A field that holds bytes."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def record(step: int, tag: str, value: float) -> bytes:
    """A TensorBoard record of one scalar; checksums are nil."""
    scalar = message(1, tag.encode()) + varint(2 << 3 | 5) + struct.pack("<f", value)
    time_field = varint(1 << 3 | 1) + struct.pack("<d", 0.0)
    event = time_field + varint(2 << 3) + varint(step) + message(5, message(1, scalar))
    return struct.pack("<Q", len(event)) + b"\0" * 4 + event + b"\0" * 4


def loss(step: int) -> float:
    """The loss of a step: the same whenever it is trained."""
    return 1.0 / step


def log(file: Path, step: int, value: float) -> None:
    """One step's scalars, the timing last."""
    scalars = {
        "train/loss": value,
        "train/reward": step / 10,
        "train/lr": 3e-6,
        "train/grad_norm": 0.5,
        "train/global_valid_toks": 1000.0,
        "timing/train/total_step_time": 2.0,
    }
    with open(file, "ab") as out:
        for tag, number in scalars.items():
            out.write(record(step, tag, number))


def save(folder: Path, step: int) -> None:
    """A checkpoint, as NeMo-RL makes it appear."""
    new = folder / f"tmp_step_{step}"
    (new / "policy" / "weights" / "iter_0000000").mkdir(parents=True)
    (new / "policy" / "weights" / "iter_0000000" / "w").write_text(f"weights of {step}")
    state = {"current_step": step, "total_valid_tokens": 1000 * step}
    (new / "training_info.json").write_text(json.dumps(state))
    (new / "train_dataloader.pt").write_text(str(step))
    (new / "config.yaml").write_text(f"checkpoint_dir: {folder}\n")
    new.rename(folder / f"step_{step}")


def main() -> int:
    """Train."""
    config = yaml.safe_load(Path(sys.argv[2]).read_text())
    how = json.loads(os.environ.get("NEMO_RL_STAND_IN", "{}"))
    told, began = config["checkpointing"], time.time()
    folder = Path(told["checkpoint_dir"])
    limit = told["checkpoint_must_save_by"]
    days, hours, minutes, seconds = map(int, (limit or "99:00:00:00").split(":"))
    limit = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    found = [int(m[1]) for p in folder.glob("step_*") if (m := re.fullmatch(r"step_(\d+)", p.name))]
    logs = Path(config["logger"]["log_dir"])
    events = logs / f"exp_{len(list(logs.glob('exp_*'))) + 1:03d}" / "tensorboard"
    events.mkdir(parents=True)
    for step in range(max(found, default=0) + 1, config["grpo"]["max_num_steps"] + 1):
        print(f"Step {step}", flush=True)
        time.sleep(how.get("seconds", 0))
        if how.get("crash_at") == step:
            return 9
        if how.get("swallow_at") == step:
            print("❌ Error in async loop: nothing in the buffer", flush=True)
            return 0
        late = time.time() - began > limit
        last = step == config["grpo"]["max_num_steps"]
        if last or late or step % told["save_period"] == 0:
            save(folder, step)
        value = float("nan") if how.get("nan_at") == step else loss(step)
        log(events / "events.out.tfevents.1.node.1.0", step, value)
        if late:
            print("Timeout has been reached, stopping training early", flush=True)
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
