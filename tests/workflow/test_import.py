"""A run that begins with an existing model: nothing before it, and everything after as ever."""

import shutil
from collections import Counter

RUN = "extends: micro\nstart: sft\ninit: {import: results/micro/export/pretrain}\n"
SFT = "results/imported/sft/checkpoint.json"


def test_an_imported_model_stands_in_the_place_of_pretraining(copy):
    (copy.folder / "config/imported.yaml").write_text(RUN)
    assert copy.planned("results/imported/eval.json") == Counter(
        import_model=1, sft=1, rl=2, export=4, eval_task=6, eval=1
    )
    copy.build(SFT)
    assert copy.json("results/imported/init.json")["model"]["format"] == "huggingface"
    ours, theirs = copy.json(SFT), copy.json("results/micro/sft/checkpoint.json")
    assert ours["files"] == theirs["files"]  # the same weights came to the same SFT
    assert "results/imported/init.json" in ours["inputs"]
    shutil.rmtree(copy.folder / "results/micro/export/pretrain")
    assert copy.planned(SFT) == Counter()
    assert "results/micro/export/pretrain (imported) → sft" in copy.nemoflow("check", "imported")
    parity = copy.json("results/imported/parity/init.json")
    assert parity["values"] == "equal" and parity["verdict"] == "passed"
