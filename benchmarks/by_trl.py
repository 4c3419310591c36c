"""Conversations to packed Parquet by transformers, datasets and trl.

    python by_trl.py CHATS TOKENIZER_FOLDER TEMPLATE PACK_SIZE OUTPUT.parquet PROCESSES

As trl's SFTTrainer prepares conversations with assistant_only_loss and packing: datasets reads
the JSON lines, `apply_chat_template` with masks is called for each in a `map` of several
processes, and `pack_dataset` packs. A row in which an assistant reasons gives a sequence for each
user turn, as the template shows the reasoning of the last one alone.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from transformers import AutoTokenizer
from trl import pack_dataset

ROWS = 1000  # of a batch, datasets' own default


def sequences(messages: list[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], bool]]:
    """(messages, whether with thinking) of each sequence of a row."""
    for message in messages:
        for call in message.get("tool_calls") or ():
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    if not any((message.get("reasoning_content") or "").strip() for message in messages):
        yield messages, False
        return
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    for end in (*users[1:], len(messages)):
        yield messages[:end], True


def main(
    chats: str, folder: str, template: str, pack_size: str, output: str, processes: str
) -> None:
    """Write input_ids, assistant_masks and seq_lengths."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = Path(template).read_text()

    def tokenized(rows: dict[str, list]) -> dict[str, list]:
        made: dict[str, list] = {"input_ids": [], "assistant_masks": []}
        for messages, tools in zip(rows["messages"], rows["tools"], strict=True):
            for part, thinking in sequences(messages):
                found = tokenizer.apply_chat_template(
                    part,
                    tools=tools or None,
                    tokenize=True,
                    return_dict=True,
                    return_assistant_tokens_mask=True,
                    enable_thinking=thinking,
                )
                for column, values in made.items():
                    values.append(found[column])
        return made

    datasets.disable_progress_bars()
    cache = str(Path(output).with_suffix(".cache"))
    rows = datasets.load_dataset("json", data_files=chats, split="train", cache_dir=cache)
    number, columns = int(processes), rows.column_names
    made = rows.map(
        tokenized, batched=True, batch_size=ROWS, remove_columns=columns, num_proc=number
    )
    packed = pack_dataset(made, int(pack_size), "bfd", {"num_proc": number})
    packed.to_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
