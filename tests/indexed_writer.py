"""Writes small bin/idx pairs for tests, document by document."""

from pathlib import Path

import numpy as np

from nemoflow.errors import UserError
from nemoflow.indexed import check_fits, publish, token_dtype


class IndexedWriter:
    """Writes one `prefix.bin` and `prefix.idx`, whole or not at all; a context manager.

    Bytes go to temporary names in the same folder; leaving the block without an exception
    fsyncs and renames them, the index last. A writer that was given nothing leaves no files.
    The names are fixed, so two writers must not share a prefix at the same time.
    """

    def __init__(self, prefix: str | Path, dtype: str = "int32") -> None:
        self.prefix = Path(prefix)
        self.dtype_name = dtype
        self.dtype = token_dtype(dtype)
        self._lengths: list[np.ndarray] = []
        name = self.prefix.name
        self._final = [self.prefix.with_name(f"{name}.{end}") for end in ("bin", "idx")]
        self._temporary = [self.prefix.with_name(f".{name}.{end}.tmp") for end in ("bin", "idx")]

    def __enter__(self) -> "IndexedWriter":
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        self._bin = open(self._temporary[0], "wb")
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._bin.close()
            for temporary in self._temporary:
                temporary.unlink(missing_ok=True)

    def add(self, tokens: np.ndarray) -> None:
        """Append one sequence of token ids (integers, shape [n], n > 0)."""
        self.add_many(tokens, np.array([len(tokens)]))

    def add_many(self, flat: np.ndarray, lengths: np.ndarray) -> None:
        """Append sequences that lie end to end in `flat` (integers, shape [sum of lengths]).

        UserError when an id does not fit the dtype; ValueError when the lengths do not add up
        or one of them is zero (Megatron counts on sequences that hold something).
        """
        flat, lengths = np.asarray(flat), np.asarray(lengths)
        if int(lengths.sum()) != len(flat) or (len(lengths) and lengths.min() <= 0):
            raise ValueError("lengths must be positive and add up to the number of ids")
        if not len(flat):
            return
        check_fits(int(flat.max()), self.dtype_name)
        if flat.min() < np.iinfo(self.dtype).min:
            raise UserError(f"token id {int(flat.min())} does not fit dtype {self.dtype_name}")
        self._bin.write(np.ascontiguousarray(flat, self.dtype).data)
        self._lengths.append(lengths.astype("<i4"))

    def _publish(self) -> None:
        for final in reversed(self._final):  # the index first: never an old one beside a new .bin
            final.unlink(missing_ok=True)
        if self._lengths:
            self._bin.flush()
            lengths = np.concatenate(self._lengths)
            publish(self._temporary[0], self.prefix, lengths, self.dtype_name)
