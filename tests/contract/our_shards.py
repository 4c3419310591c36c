"""Shards of a corpus, made as the rules make them.

    python our_shards.py FOLDER

tokenizes FOLDER/corpus.jsonl by FOLDER/tokenizer in FOLDER/settings.json's way into
FOLDER/tokens, and writes the shards of all parts into FOLDER/shards.json. Run by the main
environment's Python, which has gigatoken.
"""

import os
import sys
from pathlib import Path

from nemoflow.corpus import list_files
from nemoflow.files import read_json, write_json
from nemoflow.plan import make_plan
from nemoflow.tokens import tokenize_part

PARTS, SHARDS = 2, 2


def main() -> None:
    """Tokenize every part."""
    os.chdir(sys.argv[1])
    settings = read_json("settings.json")
    plan = make_plan(list_files(settings["source"], Path("cache")), PARTS, SHARDS)
    shards = []
    for part in range(PARTS):
        folder = Path("tokens") / f"{part:04d}"
        made = tokenize_part(plan, part, Path("tokenizer"), folder, settings, Path("cache"), 2)
        shards += made["shards"]
    write_json("shards.json", shards)


if __name__ == "__main__":
    main()
