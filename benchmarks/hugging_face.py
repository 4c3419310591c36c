"""Tokenize JSON lines as Megatron-LM's preprocess_data does, without torch.

    python hugging_face.py CORPUS TOKENIZER_FOLDER PREFIX WORKERS

A pool of processes takes 32 lines at a time, parses each and gives it to a tokenizer of
transformers; the main process writes the ids of one document after the other (tools/
preprocess_data.py: Encoder.encode and Partition.process_json_file, with --append-eod).
"""

import json
import multiprocessing
import struct
import sys

import numpy as np
from transformers import AutoTokenizer

LINES = 32
INT32 = 4  # megatron-core's code of the type (datasets/indexed_dataset.py: DType)
tokenizer = None


def load(folder: str) -> None:
    """Load the tokenizer once in each process."""
    global tokenizer
    tokenizer = AutoTokenizer.from_pretrained(folder)


def encode(line: str) -> list[int]:
    """The ids of a row's text, and the end of the document."""
    ids = tokenizer(json.loads(line)["text"]).input_ids
    return [*ids, tokenizer.eos_token_id] if ids else ids


def main(corpus: str, folder: str, prefix: str, workers: str) -> None:
    """Write PREFIX.bin and PREFIX.idx."""
    lengths = []
    with (
        open(corpus, encoding="utf-8") as lines,
        open(f"{prefix}.bin", "wb") as output,
        multiprocessing.Pool(int(workers), load, [folder]) as pool,
    ):
        for ids in pool.imap(encode, lines, LINES):
            output.write(np.array(ids, np.int32).tobytes())
            lengths.append(len(ids))
    sizes = np.array(lengths, np.int32)
    starts = np.concatenate([[0], np.cumsum(sizes[:-1], dtype=np.int64) * 4]).astype(np.int64)
    with open(f"{prefix}.idx", "wb") as index:
        index.write(b"MMIDIDX\x00\x00" + struct.pack("<QB", 1, INT32))
        index.write(struct.pack("<QQ", len(sizes), len(sizes) + 1))
        for array in (sizes, starts, np.arange(len(sizes) + 1, dtype=np.int64)):
            index.write(array.tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
