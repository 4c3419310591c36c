"""Sequences of tokens as text, what is trained apart from what is not."""

from itertools import pairwise

import numpy as np

from nemoflow.vocabulary import Folder

TRAINED, OTHER, RESET = "\033[1;32m", "\033[2m", "\033[0m"


def legend(colour: bool) -> str:
    """How trained text can be told."""
    return f"{TRAINED}green{RESET}" if colour else "in ⟦brackets⟧"


def marked(folder: Folder, ids: np.ndarray, mask: np.ndarray, colour: bool) -> str:
    """The text of ids int[n], with that of the tokens whose mask is 1 in colour or brackets."""
    decode = folder.huggingface.decode
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)]
    found = []
    for start, end in pairwise(edges):
        text = decode(ids[start:end].tolist(), skip_special_tokens=False)
        if colour:
            found.append(f"{TRAINED if mask[start] else OTHER}{text}{RESET}")
        else:
            found.append(f"⟦{text}⟧" if mask[start] else text)
    return "".join(found)
