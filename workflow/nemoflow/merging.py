"""Which checkpoints an average is made of.

Weights of the last checkpoints of pretraining, averaged, score as if the learning rate had decayed
(WSD's readout, arXiv 2507.17634; Nemotron 3 Super, arXiv 2512.20856: windows of 125B, 250B and
500B tokens).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemoflow import manifest
from nemoflow.checkpoint import step_of, window_steps
from nemoflow.errors import UserError
from nemoflow.need import need


def checkpoints(checkpoint: str, content: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """The folders to average, the oldest first: those kept of the window, and the last checkpoint.

    `content` is the manifest of `checkpoint`; `asked` has the window's `iterations`, back from the
    last step, and `every` so many of which there is a checkpoint.

    Raises:
        UserError: one of them was not kept, or its bytes are not here.
    """
    steps = window_steps(asked, content["step"])
    kept = Path(checkpoint).with_name("window.json")
    found = manifest.read(kept)["steps"] if kept.exists() else []
    if missing := [step for step in steps if step not in found]:
        raise UserError(
            f"{checkpoint}: no checkpoint of step {missing[0]} was kept"
            f" ({len(steps) - len(missing)} of {len(steps)} are in {kept.with_suffix('')}/); set"
            " options.window of the phase before it trains, or a shorter window in"
            " pretrain.merge.windows"
        )
    need([str(kept)])
    folders = {step_of(path): path for path in kept.with_suffix("").iterdir()}
    return [*(str(folders[step]) for step in steps), str(manifest.payload(checkpoint))]
