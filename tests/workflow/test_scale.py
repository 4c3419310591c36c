"""Thousands of jobs: how long it takes to see what is to do."""

PARTS = 3000
LIMIT = 40  # processor seconds, which other tests beside this one hardly change


def test_a_dry_run_with_thousands_of_parts(fresh):
    fresh.edit("config/corpora/micro-equations.yaml", "parts: 2", f"parts: {PARTS}")
    command = fresh.snakemake("-n", "--quiet", "rules", "--", "results/micro/eval.json")
    done, seconds = fresh.timed(*command)
    assert done.returncode == 0, done.stdout
    print(f"a dry run with {PARTS} parts: {seconds:.1f} s")
    assert f"tokens {PARTS + 2} " in " ".join(done.stdout.split())  # two are another corpus's
    assert seconds < LIMIT
