"""What a target needs from the remote: no more than its jobs will read."""

import pytest

from nemoflow import fetching, manifest
from nemoflow.errors import UserError
from nemoflow.planning import Job
from small_results import Results, work_in

EVAL = "results/small/eval.json"
SFT = "results/small/sft/checkpoint.json"
EXPORT = "results/small/export/sft.json"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A finished run whose products have pointers and no bytes."""
    work_in(tmp_path, monkeypatch)
    made = Results()
    made.make()
    return made


def planned(monkeypatch, *jobs):
    """Let a dry run plan these jobs."""
    monkeypatch.setattr(fetching, "dry_run", lambda targets, profile, overrides: list(jobs))


def needed(*targets):
    return fetching.needed(list(targets), "profiles/local", None)


def test_a_product_that_is_up_to_date_needs_its_own_bytes(results, monkeypatch):
    planned(monkeypatch)
    assert needed(SFT) == [SFT]
    assert needed(EVAL) == []  # it has none


def test_a_product_to_be_built_needs_what_its_jobs_read(results, monkeypatch):
    first = results.checkpoints[1]
    planned(
        monkeypatch,
        Job("sft", [SFT, "results/small/sft/curve.csv"], "", {}, (first, EXPORT)),
        Job("eval", [EVAL], "", {}, (SFT, "results/small/eval/pretrain/sums.json")),
    )
    assert needed(EVAL) == sorted([first, EXPORT])


def test_a_report_needs_the_samples_of_scores_that_are_not_made_anew(results, monkeypatch):
    made = "results/small/eval/rl/sums.json"
    planned(
        monkeypatch,
        Job("eval_task", [made], "", {}, ()),
        Job("report", ["results/small/report.html"], "", {}, (EVAL,)),
    )
    found = needed("results/small/report.html")
    assert "results/small/eval/sft/sums.json" in found and made not in found
    assert all("/eval/" in path for path in found)


def test_a_folder_or_nothing_asks_for_every_pointer(results):
    for path in (SFT, EXPORT):
        manifest.write_pointer(path, manifest.read(path))
    assert needed("results/small/sft") == [SFT]
    assert needed() == [EXPORT, SFT]


def test_anything_else_is_refused(results):
    with pytest.raises(UserError, match="sft: name a product"):
        needed("sft")


def test_size_and_what_was_never_sealed_are_told_before_anything_is_pulled(results, monkeypatch):
    planned(monkeypatch)
    pulled = []
    monkeypatch.setattr(fetching, "pull", pulled.append)
    monkeypatch.setattr(fetching, "wrong_bytes", lambda path, content: "2 of 2 files are missing")
    manifest.write_pointer(SFT, manifest.read(SFT))
    lines = list(fetching.fetch([SFT, EXPORT], "profiles/local", None, told_only=True))
    assert any(line.endswith(" results/small/sft/checkpoint") for line in lines)
    assert "never sealed: results/small/export/sft" in "\n".join(lines)
    assert "to pull: 1 of 2 products" in lines[-1] and not pulled
    list(fetching.fetch([SFT], "profiles/local", None, told_only=False))
    assert [list(contents) for contents in pulled] == [[SFT]]
