"""Characters that gigatoken's Unicode tables know and those of Hugging Face's tokenizers do not.

The first is of Unicode 17 (gigatoken 0.10.0), the other of 16 (tokenizers 0.23): to a split by
classes of characters a new letter is a letter in one and a symbol in the other. The ranges are all
that Unicode 17 and 18 have added.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

ADDED = """
    558 58B-58C 5C8-5C9 88F B53-B54 C5C CDC 1ACF-1AF0 208F 209D-209F 20C1-20C4 2B96 2E60-2E63
    A7CE-A7CF A7D2 A7D4 A7DD A7E2 A7F1 AB6C-AB6D FBC3-FBD2 FD90-FD91 FDC8-FDCE 107BB-107BF
    10940-10959 10EC5-10EC7 10EC9-10EEE 10EF0-10EFB 11B0A 11B60-11B67 11DB0-11DDB 11DE0-11DE9
    11DF0-11DF1 1246F 12475-1247F 12550-12686 16EA0-16EB8 16EBB-16ED3 16FF2-16FF6 187F8-187FF
    18CD6-18CDA 18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2 1B123-1B128 1B168 1CCFA-1CCFC
    1CEBA-1CED0 1CED2-1CED4 1CEDD-1CEFD 1D127-1D128 1D1EB-1D1FF 1D250-1D281 1D6A6 1DB00-1DB1C
    1DF1F-1DF24 1DF2B-1DF81 1DF90-1DF96 1DFCD-1DFFF 1E6C0-1E6DE 1E6E0-1E6F5 1E6FE-1E6FF 1F1AE
    1F6D8-1F6D9 1F777-1F77A 1F7DA-1F7DB 1F7F1-1F7FF 1F8D0-1F8D8 1FA54-1FA57 1FA8A-1FA8E 1FAC8
    1FACC-1FACD 1FADD 1FAEA-1FAEB 1FAEF 1FAF9-1FAFA 1FBFA 2B73A-2B73F 2B81E 2CEA2-2CEAD
    323B0-33479 3D000-3FC3F
"""
RANGES = [
    (int(first, 16), int(last or first, 16))
    for first, _, last in (entry.partition("-") for entry in ADDED.split())
]
FIRSTS = [first for first, _ in RANGES]
LEAST = min(chr(first).encode()[0] for first, _ in RANGES)  # no such character begins below


def _prefixes() -> np.ndarray:
    """bool[2**14]: whether first byte << 6 | six bits of the second begin such a character."""
    table = np.zeros(1 << 14, bool)
    for first, last in RANGES:
        for code in (*range(first, last, 64), last):
            lead, second = chr(code).encode()[:2]
            table[lead << 6 | second & 63] = True
    return table


PREFIXES = _prefixes()


def texts_with_newer(joined: bytes, ends: Sequence[int] | np.ndarray) -> list[int]:
    """The places of texts that hold a newer character, of texts end to end in UTF-8.

    `ends` int64[texts] are the bytes after each.
    """
    if joined.isascii():
        return []
    content = np.frombuffer(joined, np.uint8)
    leads = np.flatnonzero(content >= LEAST)
    seconds = content.take(leads + 1, mode="clip") & 63
    leads = leads[PREFIXES[content[leads].astype(np.int32) << 6 | seconds]]
    places = [
        place
        for place in leads.tolist()
        if is_newer(ord(joined[place : place + 4].decode(errors="ignore")[0]))
    ]
    return np.unique(np.searchsorted(ends, places, "right")).tolist()


def is_newer(code: int) -> bool:
    """Whether a code point is one of them."""
    place = bisect_right(FIRSTS, code) - 1
    return place >= 0 and code <= RANGES[place][1]
