"""Steps of the released recipes as NeMo-RL gets them."""

from nemoflow import specs
from nemoflow.config import Config
from nemoflow.engines.nemo_rl import releases, settings
from nemoflow.machine import Machine

CONFIG = Config("config")
NODES = {  # all, that generate, that serve environments: cluster.num_nodes and so on of the files
    ("super3", "rlvr1"): (109, 72, 5),
    ("super3", "rlvr2"): (109, 72, 5),
    ("super3", "rlvr3"): (109, 72, 5),
    ("super3", "swe1"): (64, 32, 0),
    ("super3", "swe2"): (64, 32, 0),
    ("super3", "rlhf"): (72, 32, 8),
    ("nano3", "rlvr"): (32, 0, 0),
    ("nano3", "rlhf"): (40, 0, 8),
    ("nano3", "dpo"): (4, 0, 0),
}
SAVE_BY = {"swe2": "00:11:30:00", "rlvr": "00:03:40:00"}


def machine(run, step):
    """What upstream gives a step."""
    nodes, generate, environment = NODES[run, step]
    return Machine(nodes, 8, 12, generate, environment)


def told_of(run, step, **changed):
    """Identity and options of a step, keys of it changed."""
    told, options = specs.rl(CONFIG, run, step)
    return {**told, **changed}, options


def generated(run, step, rows=100_000, validation="VALIDATION", nodes=None, **changed):
    """The config of a step, dotted."""
    told, options = told_of(run, step, **changed)
    save_by = SAVE_BY.get(step, "00:03:30:00")
    places = settings.Places("MODEL", "TRAIN", validation, rows, "WORK", save_by)
    return releases.flat(settings.of(told, options, nodes or machine(run, step), places))
