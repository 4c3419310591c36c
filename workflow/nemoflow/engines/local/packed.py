"""Packed conversations out of Parquet, unpacked again.

transformers keeps packed sequences apart only with CUDA kernels, so each sub-sequence becomes a
row of a padded batch: the same losses exactly.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from nemoflow.errors import UserError

COLUMNS = ["input_ids", "loss_mask", "seq_start_id"]


class PackedRows:
    """All rows of a folder of packed Parquet files, in the order of names.

    Raises UserError for a folder without rows, or a file without the three columns.
    """

    def __init__(self, folder: str | Path):
        files = sorted(Path(folder).glob("*.parquet"))
        self.rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for path in files:
            if lacking := set(COLUMNS) - set(pq.read_schema(path).names):
                raise UserError(
                    f"{path}: column {sorted(lacking)[0]} is absent; pack the data again"
                )
            columns = [column.to_numpy() for column in pq.read_table(path, columns=COLUMNS)]
            self.rows += zip(*columns, strict=True)
        if not self.rows:
            raise UserError(f"{folder}: no packed rows; pack the data again")

    def __len__(self) -> int:
        return len(self.rows)

    def order(self, epoch: int, seed: int) -> np.ndarray:
        """The order of the rows in one epoch."""
        return np.random.default_rng([seed, epoch]).permutation(len(self.rows))

    def chosen(self, start: int, size: int, seed: int) -> list[int]:
        """Rows `start` to `start + size` of the endless shuffled sequence."""
        epochs = {place // len(self.rows) for place in range(start, start + size)}
        orders = {epoch: self.order(epoch, seed) for epoch in epochs}
        return [
            int(orders[place // len(self.rows)][place % len(self.rows)])
            for place in range(start, start + size)
        ]

    def batch(self, chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The sub-sequences of some rows: tokens int64 [n, length + 1], mask bool [n, length].

        Padded on the right with 0 that never counts; a sub-sequence of one token yields nothing.
        """
        pieces = []
        for ids, mask, starts in (self.rows[index] for index in chosen):
            for begin, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                if end - begin > 1:
                    pieces.append((ids[begin:end], mask[begin : end - 1]))
        longest = max((len(ids) for ids, _ in pieces), default=2)
        tokens = torch.zeros(len(pieces), longest, dtype=torch.int64)
        counts = torch.zeros(len(pieces), longest - 1, dtype=torch.bool)
        for row, (ids, mask) in enumerate(pieces):
            tokens[row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
            counts[row, : len(mask)] = torch.from_numpy(mask.astype(bool))
        return tokens, counts
