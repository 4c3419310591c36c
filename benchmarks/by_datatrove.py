"""Tokenize JSON lines by datatrove, one task for each file of a folder.

    python by_datatrove.py FOLDER TOKENIZER.json EOS OUTPUT TASKS

Its shuffling, and the merging of the tasks' files into one, are left out: both would only add.
"""

import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer


def main(folder: str, tokenizer: str, eos: str, output: str, tasks: str) -> None:
    """Write OUTPUT/00000_….ds and so on: 32-bit ids."""
    steps = [
        JsonlReader(folder, glob_pattern="*.jsonl"),
        DocumentTokenizer(
            f"{output}/tokens",
            tokenizer_name_or_path=tokenizer,
            eos_token=eos,
            shuffle_documents=False,
        ),
    ]
    number = int(tasks)
    LocalPipelineExecutor(
        steps, tasks=number, workers=number, logging_dir=f"{output}/logs", skip_completed=False
    ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
