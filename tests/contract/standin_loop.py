"""The megatron engine's own program, with a stand-in for Megatron-Bridge's training loop.

Reads jobs from standard input, one JSON object per line: {job, log, env, asked}; works on each in a
process of its own, forked since importing Megatron-Bridge takes half a minute; writes its number,
then its exit code. Stand-ins are the model (one vector), its data and the GPUs. The rest is
Megatron-Bridge's and megatron-core's own: ConfigContainer, GlobalState, TrainState, the callback
manager, when to save and to exit, the signal handler, which checkpoint is loaded, and the
checkpoints on disk, which are written in the order of its `save_checkpoint`.

`asked`: `seconds` per step, `bad` {step: loss}, `die` [step, moment], at which the process kills
itself.
"""

import importlib
import json
import os
import queue
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path

from nemoflow.engines.megatron import stubs

stubs.install()
stubs.stand_in("b200", 1)

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from megatron.bridge.training import callbacks as bridge_callbacks  # noqa: E402
from megatron.bridge.training import finetune, pretrain, train  # noqa: E402
from megatron.bridge.training.checkpointing import _resolve_checkpoint_iteration  # noqa: E402
from megatron.bridge.training.state import GlobalState, TrainState  # noqa: E402
from megatron.bridge.training.utils import checkpoint_utils as names  # noqa: E402
from megatron.core import dist_checkpointing  # noqa: E402
from megatron.core.dist_checkpointing import ShardedTensor  # noqa: E402
from megatron.core.dist_checkpointing.strategies import filesystem_async  # noqa: E402

from nemoflow.engines.megatron import recipe  # noqa: E402

torch.cuda.synchronize = lambda *_: None
torch.cuda.current_device = lambda: torch.device("cpu")  # what megatron-core saves from
filesystem_async._results_queue = queue.Queue()  # the real one is a process of its own
filesystem_async._process_memory = lambda: 0  # it asks psutil, for its log alone
torch.set_num_threads(1)
ASKED = {}
SIZE = 4096


class Loop:
    """What a training of Megatron-Bridge has in memory."""

    def __init__(self, config, callbacks):
        self.state = GlobalState()
        self.state.cfg = config
        self.state._train_state = TrainState()
        self.manager = bridge_callbacks.normalize_callbacks(callbacks)
        self.weights, self.moment = torch.zeros(SIZE), torch.zeros(SIZE)
        self.groups = [{"lr": 0.0, "is_decoupled_lr": False}]
        self.param_groups = self.groups
        self.load()

    def sharded(self):
        return {
            name: ShardedTensor.from_rank_offsets(name, tensor)
            for name, tensor in (("weights", self.weights), ("optimizer.moment", self.moment))
        }

    def load(self):
        """As `load_checkpoint`: own or continued ones whole, pretrained ones for their weights."""
        told = self.state.cfg.checkpoint
        source, whole = told.load, True
        if not names.checkpoint_exists(source):
            source, whole = told.pretrained_checkpoint, False
        if source is None:
            return
        step, _ = _resolve_checkpoint_iteration(source, told.ckpt_step)
        folder = names.get_checkpoint_name(source, step)
        found = dist_checkpointing.load(self.sharded(), folder)
        self.weights = found["weights"]
        assert "model" in names.read_run_config(names.get_checkpoint_run_config_filename(folder))
        if whole:
            self.moment = found["optimizer.moment"]
            own = names.get_checkpoint_train_state_filename(folder)
            self.state.train_state.load_state_dict(torch.load(own))

    def save(self, *_, **__):
        """Shards, train state, trackers, run_config.yaml: in the order of `save_checkpoint`."""
        step, root = self.state.train_state.step, self.state.cfg.checkpoint.save
        folder = names.get_checkpoint_name(root, step)
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.maybe_die(step, "begun")
        dist_checkpointing.save(self.sharded(), folder)
        self.maybe_die(step, "shards")
        own = names.get_checkpoint_train_state_filename(folder)
        torch.save(self.state.train_state.state_dict(), own)
        tracked = names.get_checkpoint_train_state_filename(root, prefix=names.TRACKER_PREFIX)
        shutil.copy(own, tracked)
        Path(names.get_checkpoint_tracker_filename(root)).write_text(str(step))
        self.maybe_die(step, "tracked")
        self.state.cfg.to_yaml(names.get_checkpoint_run_config_filename(folder))
        self.maybe_die(step, "saved")

    def maybe_die(self, step, moment):
        if ASKED.get("die") == [step, moment]:
            os.kill(os.getpid(), signal.SIGKILL)

    def fire(self, event, **more):
        context = bridge_callbacks.CallbackContext(
            state=self.state, model=[], optimizer=self, user_state=self.manager.user_state, **more
        )
        self.manager.fire(event, context)

    def update(self, step):
        """A step whose result follows from what is in memory and the step's number alone."""
        self.moment = 0.9 * self.moment + torch.sin(torch.arange(SIZE) + step)
        self.weights = self.weights - 0.01 * self.moment
        time.sleep(ASKED.get("seconds", 0))
        bad = {int(at): float(loss) for at, loss in ASKED.get("bad", {}).items()}
        return bad.get(step, 5 / (step + 1)), float(self.moment.norm())

    def run(self):
        """The loop of `train`, without all that needs a model."""
        cfg, now = self.state.cfg, self.state.train_state
        self.fire("on_train_start")
        while now.step < cfg.train.train_iters:
            self.groups[0]["lr"] = 1e-3 * (now.step + 1)
            self.fire("on_train_step_start")
            loss, norm = self.update(now.step + 1)
            self.groups[0]["lr"] = 1e-3 * (now.step + 2)  # the scheduler has moved on
            losses = {"lm loss": torch.tensor(loss)}
            self.fire("on_train_step_end", loss_dict=losses, grad_norm=norm, skipped_iter=False)
            now.step += 1
            now.consumed_train_samples += cfg.train.global_batch_size
            self.maybe_die(now.step, "trained")
            if train.checkpoint_and_decide_exit(self.state, [], self, None, 0, None, None):
                sys.exit(0)
        if now.step % cfg.checkpoint.save_interval:
            self.save()
        self.fire("on_train_end")


def stand_in(config, forward_step_func, callbacks=None):
    """In the place of Megatron-Bridge's `pretrain` and `finetune`."""
    dist.init_process_group("gloo", init_method="tcp://localhost:0", world_size=1, rank=0)
    try:
        loop = Loop(config, callbacks)
        train.save_checkpoint_and_time = loop.save
        train.barrier_and_log = print
        loop.run()
    finally:
        dist.destroy_process_group()


pretrain.pretrain = finetune.finetune = stand_in


def work(told):
    """Run the program on a job in this process; ends it."""
    log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(told["env"])
    ASKED.update(told["asked"])
    sys.argv = ["nemoflow.engines.megatron", told["job"]]
    runpy.run_module(sys.argv[0], run_name="__main__")


def main():
    """Work on jobs until standard input ends; what they import is imported once."""
    for module in ("nemoflow.engines.megatron.train", f"{recipe.RECIPES}.nemotron_3_super"):
        importlib.import_module(module)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            work(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
