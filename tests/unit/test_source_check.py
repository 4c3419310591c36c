"""What is said of sources before anything is built."""

import yaml

from nemoflow.config import Config
from nemoflow.source_check import notes


def test_the_hub_and_what_is_missing_here_are_told(config_folder, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    runs = Config(config_folder)
    assert list(notes(runs, "micro")) == []
    found = list(notes(runs, "super3"))
    assert found[0].startswith("super3: rows of ")
    assert found[0].endswith("each pinned to a commit; without HF_TOKEN gated ones are refused")
    monkeypatch.setenv("HF_TOKEN", "x")
    assert "HF_TOKEN" not in list(notes(runs, "super3"))[0]
    path = config_folder / "corpora/tiny-facts.yaml"
    for source, told in (
        ({"local": str(tmp_path / "nowhere")}, "nowhere: no such file or folder yet"),
        ({"local": f"{tmp_path}/**/*.jsonl"}, None),
        ({"url": "gs://lake/web"}, "url gs://lake/web: pip install gcsfs"),
        ({"url": "s3://lake/web"}, None),
    ):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"source": source}))
        found = list(notes(Config(config_folder), "super3-tiny"))
        if told:
            assert len(found) == 1 and found[0].endswith(told)
            assert found[0].startswith(f"config/corpora/{path.stem}.yaml: ")
        else:
            assert not found
