"""metrics.jsonl is cut back on resume; the curve has no timings and no more than 2,000 rows."""

import csv

from nemoflow.metrics import Metrics, curve, read

TIMES = {"seconds": 1.0, "tokens_per_second": 10.0}


def write_steps(path, steps, resumed_at=0, **extra):
    metrics = Metrics(path, resumed_at)
    for step in steps:
        metrics.write(step, {"loss": 1 / step, "tokens": step * 100} | extra | TIMES)
    metrics.close()


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_resuming_cuts_back_and_continues(tmp_path):
    write_steps(tmp_path / "m", [10, 20, 30])
    write_steps(tmp_path / "m", [30, 40], resumed_at=20)
    assert [line["step"] for line in read(tmp_path / "m")] == [10, 20, 30, 40]


def test_a_torn_last_line_is_dropped(tmp_path):
    write_steps(tmp_path / "m", [10])
    with open(tmp_path / "m", "a") as file:
        file.write('{"step": 20, "lo')
    assert [line["step"] for line in read(tmp_path / "m")] == [10]
    write_steps(tmp_path / "m", [20], resumed_at=10)
    assert [line["step"] for line in read(tmp_path / "m")] == [10, 20]


def test_time_goes_on_where_the_kept_lines_end(tmp_path):
    write_steps(tmp_path / "m", [10])
    metrics = Metrics(tmp_path / "m", 10)
    metrics.close()
    assert metrics.seconds == 1.0


def test_curve_has_no_timings_and_holes_where_a_step_lacks_a_key(tmp_path):
    write_steps(tmp_path / "m", [10])
    write_steps(tmp_path / "m", [20], resumed_at=10, valid_loss=0.5)
    curve(tmp_path / "m", tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text() == (
        "step,loss,tokens,valid_loss\n10,0.1,1000,\n20,0.05,2000,0.5\n"
    )


def test_long_curve_is_thinned_and_keeps_both_ends(tmp_path):
    write_steps(tmp_path / "m", range(1, 5002))
    curve(tmp_path / "m", tmp_path / "c.csv")
    steps = [int(row["step"]) for row in table(tmp_path / "c.csv")]
    assert len(steps) == 2000 and steps[0] == 1 and steps[-1] == 5001
    assert steps == sorted(set(steps))
