"""The lineage of a real run is whole, at a revision as here, and two equal builds are equal."""

import json

from workflow.checkout import TARGET


def test_a_run_is_whole_and_equal_to_what_was_committed_of_it(copy):
    copy.commit_all()
    told = json.loads(copy.nemoflow("lineage", "--rev", "HEAD", "--json", TARGET))
    products = told["products"]
    assert not [path for path, entry in products.items() if entry["doubts"]]
    assert told["totals"]["recorded"] == told["totals"]["products"] == len(products)
    assert all(entry["sources"] for path, entry in products.items() if "/plans/" in path)
    lines = copy.nemoflow("compare", "HEAD", "micro").splitlines()
    assert "no key and no product differs" in lines
    verdicts = {line.split()[-1] for line in lines if "micro_facts" in line}
    assert verdicts == {"same"}
