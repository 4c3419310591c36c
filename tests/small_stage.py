"""A stage of one small spec, as the tests of `nemoflow.build` need it."""

from nemoflow import files

IDENTITY = {"stage": "sft", "version": 1, "engine": "local", "seed": 3}
SFT = ("results/x/sft/checkpoint.json", "results/x/sft/curve.csv")


def spec(options=None, **identity):
    """Write a spec; its path."""
    told = {
        "stage": "sft",
        "run": "x",
        "identity": {**IDENTITY, **identity},
        "options": options or {"keep": 2},
    }
    files.write_json("spec.json", told)
    return "spec.json"
