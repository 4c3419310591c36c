"""metrics.jsonl of a step, from what NeMo-RL writes for TensorBoard while it trains."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from nemoflow.engines.nemo_rl.events import Events
from nemoflow.metrics import Metrics

# NeMo-RL's names (algorithms/grpo.py and dpo.py, `logger.log_metrics`) and ours.
NAMES = {
    "train/loss": "loss",
    "train/lr": "lr",
    "train/grad_norm": "grad_norm",
    "train/reward": "reward",
    "train/gen_kl_error": "gen_kl_error",
    "train/token_mult_prob_error": "token_mult_prob_error",
    "train/mean_gen_tokens_per_sample": "completion_tokens",
    "train/avg_trajectory_age": "trajectory_age",
    "train/sft_loss": "sft_loss",
    "train/preference_loss": "preference_loss",
    "train/accuracy": "accuracy",
    "validation/accuracy": "valid_reward",
    "validation-default/loss": "valid_loss",
}
TOKENS = "train/global_valid_toks"
SECONDS = "timing/train/total_step_time"  # of a step's scalars the last but one group
FILES = "tensorboard/events.out.tfevents.*"


class Record:
    """Carries finished steps over into metrics.jsonl; `step` and `tokens` are the checkpoint's."""

    def __init__(self, progress: Path, logs: Path, step: int, tokens: int):
        self.metrics = Metrics(progress / "metrics.jsonl", step)
        self.logs, self.step, self.tokens = logs, step, tokens
        self.former = set(logs.glob(f"exp_*/{FILES}"))  # what earlier starts have left
        self.files: dict[Path, Events] = {}
        self.scalars: dict[int, dict[str, float]] = defaultdict(dict)

    def update(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Read on; (step, what was written) of every step that is finished now, one by one."""
        for path in sorted(set(self.logs.glob(f"exp_*/{FILES}")) - self.former - set(self.files)):
            self.files[path] = Events(path)
        for file in self.files.values():
            for step, tag, value in file.scalars():
                self.scalars[step][tag] = value
        whole = [s for s, told in self.scalars.items() if s > self.step and SECONDS in told]
        for step in sorted(whole):
            yield step, self.write(step)

    def write(self, step: int) -> dict[str, float]:
        """Write one step's line."""
        told = self.scalars.pop(step)
        tokens, seconds = int(told.get(TOKENS, 0)), told[SECONDS]
        self.step, self.tokens = step, self.tokens + tokens
        self.metrics.seconds += seconds
        values = {ours: told[name] for name, ours in NAMES.items() if name in told} | {
            "tokens": self.tokens,
            "tokens_per_second": tokens / seconds if seconds else 0.0,
            "seconds": self.metrics.seconds,
        }
        self.metrics.write(step, values)
        return values

    def close(self) -> None:
        """Put the lines on disk."""
        self.metrics.sync()
        self.metrics.close()
