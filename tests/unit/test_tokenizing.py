"""Making shards with several processes: the same bytes, whoever does it and whatever happens."""

import gzip
import os
import signal

import pytest

import small_corpus
import small_encoders
from nemoflow import blocks, encoding, gate, tokenizer, tokenizing, tokens
from nemoflow.encoding import Gigatoken
from nemoflow.errors import UserError
from small_corpus import contents, documents, in_order, json_lines, texts

ODD = ["naïve café  \n\n", "a\ua7ceb", "</s> in it", "東京 は", "x" * 3000, "\u2028", "nul\0here"]


@pytest.fixture
def data(tmp_path):
    """A folder of two files with 67 rows."""
    values = texts(60)
    values[5:5] = ODD
    small_corpus.write(tmp_path / "data" / "a.jsonl", json_lines(values[:40]))
    small_corpus.write(tmp_path / "data" / "b.jsonl", json_lines(values[40:]))
    return tmp_path / "data"


@pytest.fixture
def build(tmp_path, data, fast_tokenizer):
    """Tokenizes the folder; returns the joined counts."""

    def run(name="out", parts=1, shards=1, workers=1, folder=fast_tokenizer, **settings):
        cache, out = tmp_path / "cache", tmp_path / name
        return small_corpus.tokenized(data, folder, out, cache, parts, shards, workers, **settings)

    return run


@pytest.fixture
def cut_small(monkeypatch):
    """Blocks of so many bytes."""

    def cut(size):
        for module in (blocks, tokenizing):
            monkeypatch.setattr(module, "BLOCK", size)

    return cut


def without_names(counts):
    """Counts without the folder that the shards lie in."""
    shards = [
        {**shard, "prefix": "/".join(shard["prefix"].split("/")[-2:])} for shard in counts["shards"]
    ]
    return {**counts, "shards": shards}


def expected(folder, values):
    loaded = tokenizer.load(folder)
    eos = [small_encoders.EOS]
    return [loaded.encode(text, add_special_tokens=False).ids + eos for text in values]


def test_ids_are_those_of_hugging_face_in_the_order_of_the_rows(build, fast_tokenizer, capsys):
    counts = build(splits={"valid": 0, "test": 0})
    values = texts(60)
    values[5:5] = [text for text in ODD if not text.isspace()]
    assert in_order(counts)["train"] == expected(fast_tokenizer, values)
    assert counts["noted"] == {"nul_character": 1, "special_token </s>": 1}
    assert "encoding with gigatoken" in capsys.readouterr().err


def test_bytes_follow_from_neither_workers_nor_blocks(build, tmp_path, cut_small):
    counts = build("one", 2, 2)
    for number, (workers, size) in enumerate([(2, 64), (5, 1000), (3, 5000)]):
        cut_small(size)
        name = str(number)
        assert without_names(build(name, 2, 2, workers)) == without_names(counts)
        for part in ("0000", "0001"):
            assert contents(tmp_path / name / part) == contents(tmp_path / "one" / part)


def test_documents_follow_from_neither_parts_nor_shards(build, cut_small):
    one = documents(build("one"))
    cut_small(500)
    for parts, shards, workers in ((1, 3, 2), (3, 1, 1), (4, 2, 3)):
        assert documents(build(f"{parts}-{shards}", parts, shards, workers)) == one


def test_more_workers_than_blocks_are_not_started(build, monkeypatch):
    started = []
    start = tokenizing.Crew.start

    def counting(crew, life, *given):
        started.append(life.__name__)
        return start(crew, life, *given)

    monkeypatch.setattr(tokenizing.Crew, "start", counting)
    build(workers=8)
    assert started.count("work") == 1


def test_an_encoder_that_lies_is_found_out(build, tmp_path, monkeypatch, capsys):
    build("honest")
    real = Gigatoken.encode

    def lying(self, texts):
        ids, lengths = real(self, texts)
        return ids - (ids > 250), lengths

    monkeypatch.setattr(Gigatoken, "encode", lying)
    build("caught", shards=3, workers=2)
    told = capsys.readouterr().err
    assert "not with gigatoken: it encodes" in told and "encoding with tokenizers" in told
    build("again", shards=3)
    assert contents(tmp_path / "again" / "0000") == contents(tmp_path / "caught" / "0000")
    monkeypatch.setattr(Gigatoken, "encode", real)
    build("true", shards=3)
    assert contents(tmp_path / "true" / "0000") == contents(tmp_path / "caught" / "0000")


def test_the_rows_themselves_are_compared_though_the_first_shards_are_empty(
    build, data, monkeypatch, capsys, tmp_path
):
    for path in data.iterdir():
        path.unlink()
    lines = "".join(line + "\n" for line in json_lines(["only here: fox", *texts(30)]))
    (data / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    real = Gigatoken.encode

    def lying(self, texts):
        ids, lengths = real(self, texts)
        return ids - any(b"only here" in text for text in texts) * (ids > 250), lengths

    build("true", shards=4)  # a compressed file goes whole to the shard of its middle
    monkeypatch.setattr(Gigatoken, "encode", lying)
    build("caught", shards=4)
    assert "not with gigatoken: it encodes" in capsys.readouterr().err
    assert contents(tmp_path / "true" / "0000") == contents(tmp_path / "caught" / "0000")


def test_texts_are_compared_as_they_are_encoded(build, data, monkeypatch):
    """Many at once, which awkward texts that hold the EOS must not prevent."""
    small_corpus.write(data / "a.jsonl", json_lines(texts(30)))
    together = Gigatoken._together
    found = []

    def spying(self, joined, count):
        encoded = together(self, joined, count)
        found.append((count, encoded is not None))  # what workers do is not seen here
        return encoded

    monkeypatch.setattr(Gigatoken, "_together", spying)
    build()
    assert found == [(30, True), (gate.STRESS, False)]


def test_a_regex_that_gigatoken_does_not_know_is_no_error(build, tmp_path, capsys):
    folder = small_encoders.byte_level(tmp_path / "other", regex=r"\w+|\W")
    assert encoding.refusal(encoding.Folder(folder)) is None
    counts = build(folder=folder, splits={"valid": 0, "test": 0})
    assert "not with gigatoken: Unknown pre_tokenizer" in capsys.readouterr().err
    values = texts(60)
    values[5:5] = [text for text in ODD if not text.isspace()]
    assert in_order(counts)["train"] == expected(folder, values)


def killing(monkeypatch, word):
    """Let the process that encodes a text with that word die."""
    real, parent = Gigatoken.encode, os.getpid()

    def dying(self, texts):
        if os.getpid() != parent and any(word in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, texts)

    monkeypatch.setattr(Gigatoken, "encode", dying)
    return real


def test_a_killed_worker_is_told_and_mended_by_the_next_run(
    build, tmp_path, cut_small, monkeypatch
):
    cut_small(300)
    build("undisturbed", shards=3)
    real = killing(monkeypatch, b"document 58")
    with pytest.raises(UserError, match="a process that tokenizes was killed: most often for want"):
        build(shards=3, workers=2)
    left = {path.name for path in (tmp_path / "out" / "0000").iterdir()}
    assert "receipt_00002.json" not in left
    monkeypatch.setattr(Gigatoken, "encode", real)
    build(shards=3, workers=2)
    assert contents(tmp_path / "out" / "0000") == contents(tmp_path / "undisturbed" / "0000")


def test_no_process_outlives_a_failure(build, cut_small, monkeypatch):
    cut_small(300)
    crews = []
    made = tokenizing.Crew.__init__
    monkeypatch.setattr(
        tokenizing.Crew, "__init__", lambda crew: (made(crew), crews.append(crew))[0]
    )
    killing(monkeypatch, b"document 30")
    with pytest.raises(UserError):
        build(workers=3)
    assert len(crews) == 1 and not any(process.is_alive() for process in crews[0]._processes)


def test_the_process_that_encodes_the_sample_may_be_killed_too(build, monkeypatch):
    monkeypatch.setattr(tokenizing, "encode_samples", lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(UserError, match="was killed"):
        build()


def test_a_file_that_changes_while_it_is_read_is_an_error(build, data, tmp_path, monkeypatch):
    collect = tokenizing.collect

    def changing(*given):
        with open(data / "b.jsonl", "a") as file:
            file.write('{"text": "more"}\n')
        collect(*given)

    monkeypatch.setattr(tokenizing, "collect", changing)
    with pytest.raises(UserError, match=r"b\.jsonl has .* it was changed after the plan"):
        build()
    assert not list((tmp_path / "out" / "0000").glob("*.json"))


def test_a_truncated_file_is_an_error_of_one_line(build, data):
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(9999)))
    (data / "c.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"c\.jsonl\.gz is not a whole gzip file"):
        build(workers=2)


def test_a_sample_is_the_first_kept_documents_and_no_file_behind_them(
    data, tmp_path, fast_tokenizer
):
    source, plan = small_corpus.planned(data, tmp_path / "cache")
    (data / "b.jsonl").unlink()  # 27 rows, behind 40
    told = {"source": source, "sample": 20, "min_doc_chars": 20, "corpus": "web-sample20"}
    given = small_corpus.SETTINGS | told
    part = tokens.tokenize_part(plan, 0, fast_tokenizer, tmp_path / "out", given, tmp_path, 3)
    made = tokens.join_parts([part], "web-sample20")
    kept = [text for text in [*texts(5), *ODD, *texts(60)[5:]] if len(text) >= 20][:20]
    found = documents(made)
    assert sorted(sum(found.values(), [])) == sorted(expected(fast_tokenizer, kept))
    assert {split: len(ids) for split, ids in found.items()} == {"train": 16, "valid": 2, "test": 2}
    assert made["rows"]["in"] == 20 + sum(len(text) < 20 for text in ODD)
