"""The graph of products: what is folded, where it stands, and in which state it is."""

from pathlib import Path

import pytest

from nemoflow import lineage_drawing, products
from small_results import Results, work_in


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    work_in(tmp_path, monkeypatch)


def graph_of(results):
    eval_path, blends, checkpoints, packed, _ = results.make()
    return drawn(results, [eval_path, *blends, *checkpoints, packed], checkpoints)


def drawn(results, paths, checkpoints):
    graph = lineage_drawing.draw(products.trace(paths), checkpoints, results.run)
    return {(lineage_drawing.TITLES[node.column], node.title): node for node in graph.nodes}, graph


def test_corpora_of_the_same_blends_are_one_box():
    nodes, _ = graph_of(Results())
    assert len(nodes["sources", "2 corpora"].members) == 2
    assert nodes["sources", "2 corpora"].facts == "12.8k tokens"
    assert nodes["scores", "rl"].facts == "2 tasks"


def test_rows_follow_the_training():
    nodes, graph = graph_of(Results())
    stages = ("phase1", "phase2", "sft", "rlvr1", "rlvr2")
    tops = [nodes["checkpoint", stage].y for stage in stages]
    assert tops == sorted(tops)
    assert nodes["data", "sums"].y == nodes["checkpoint", "rlvr1"].y
    assert nodes["scores", "eval"].y == max(node.y for node in graph.nodes)


def test_boxes_do_not_lie_upon_each_other():
    _, graph = graph_of(Results())
    places = [(node.x, node.y) for node in graph.nodes]
    assert len(places) == len(set(places))
    assert all(y + lineage_drawing.BOX[1] <= graph.height for _, y in places)


def test_what_a_parent_run_holds_is_shared():
    nodes, _ = graph_of(Results(run="child", parent="small"))
    states = {
        title: node.state for (column, title), node in nodes.items() if column == "checkpoint"
    }
    assert states == {
        "phase1": "shared",
        "phase2": "shared",
        "sft": "shared",
        "rlvr1": "built",
        "rlvr2": "built",
    }


def test_an_input_that_is_gone_is_missing():
    results = Results()
    eval_path, blends, checkpoints, packed, _ = results.make()
    Path("results/small/export/rl.json").unlink()
    nodes, _ = drawn(results, [eval_path, *blends, *checkpoints, packed], checkpoints)
    assert nodes["export", "rl"].state == nodes["export", "rl"].facts == "missing"


def test_an_average_stands_below_its_phase_and_what_goes_on_passes_it():
    results = Results()
    eval_path, blends, checkpoints, packed, _ = results.make()
    path = "results/small/pretrain/phase2/merged/500b.json"
    results.put(path, {"stage": "merge"}, [checkpoints[1]], {"a": "b"}, steps=[150, 200])
    rows = [*checkpoints[:2], path, *checkpoints[2:]]
    nodes, graph = drawn(results, [eval_path, *blends, *rows, packed], rows)
    phase, average, sft = (nodes["checkpoint", n] for n in ("phase2", "merged 500b", "sft"))
    assert phase.y < average.y < sft.y and average.facts == "2 checkpoints"
    (around,) = [edge for edge in graph.edges if edge.endswith(f"V{sft.y}") and "H" in edge]
    left = float(around.split("H")[1].partition("V")[0])
    assert left < average.x  # not through the box


def test_scores_stand_beside_the_model_though_their_items_trained_an_earlier_one():
    results = Results()
    eval_path, blends, checkpoints, packed, _ = results.make()
    path = "results/small/eval/rl/sums.json"
    inputs = ["results/small/export/rl.json", "results/data/prompts/sums.json"]
    results.put(path, {"stage": "eval_task"}, inputs, metric="acc", value=0.5, stderr=0.1, n=2)
    nodes, _ = drawn(results, [eval_path, *blends, *checkpoints, packed], checkpoints)
    assert nodes["scores", "rl"].y == nodes["export", "rl"].y == nodes["checkpoint", "rlvr2"].y


def test_bytes_that_are_elsewhere():
    results = Results()
    eval_path, blends, checkpoints, packed, _ = results.make()
    Path("results/small/sft/checkpoint/model.safetensors").unlink()
    Path("results/small/sft/checkpoint").rmdir()
    nodes, _ = drawn(results, [eval_path, *blends, *checkpoints, packed], checkpoints)
    assert nodes["checkpoint", "sft"].away and not nodes["checkpoint", "rlvr1"].away
