"""One way of packing, alone in its process: bins, seconds and memory as JSON.

    python packers.py ours|first_fit_shuffle|trl|bridge LENGTHS.npy PACK_SIZE

Timed is what puts lengths into bins: no token is moved, and nothing is imported meanwhile. Memory
is the peak of the whole process.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np


def ours(lengths: np.ndarray, pack_size: int, algorithm: str = "best_fit") -> dict:
    """nemoflow.bins; `sorted` is how bins' order and their longest sequence correlate, 0 to 1."""
    from nemoflow.bins import pack

    began = time.perf_counter()
    bins = pack(lengths, pack_size, 1, algorithm)
    seconds = time.perf_counter() - began
    packed = lengths[bins.members]
    assert np.add.reduceat(packed, bins.offsets[:-1]).max() <= pack_size
    assert np.array_equal(np.sort(bins.members), np.arange(len(lengths)))
    longest = np.maximum.reduceat(packed, bins.offsets[:-1])
    order = abs(float(np.corrcoef(longest, np.arange(len(bins)))[0, 1]))
    return {"seconds": seconds, "bins": len(bins), "sorted": order}


class Reached(Exception):
    """The end of trl's loop: seconds since its beginning, and bins."""


def trl(lengths: np.ndarray, pack_size: int) -> dict:
    """The loop of trl's `_pack_bfd`: from the making of its tree to the first move of tokens.

    Its tokens are nulls, which take no memory; nothing is longer than a row, so nothing is cut.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from trl import data_utils

    began, tree = [0.0], data_utils._SegmentTree

    class Compute:
        def __getattr__(self, name: str) -> Callable:
            return getattr(pc, name)

        def list_slice(self, column: pa.Array, *_: int) -> pa.Array:
            return column

        def filter(self, column: pa.Array, _: pa.Array) -> pa.Array:
            return column

        def take(self, *_: object) -> None:
            seconds = time.perf_counter() - began[0]
            raise Reached(seconds, len(sys._getframe(1).f_locals["bins"]))

    def beginning(size: int) -> object:
        began[0] = time.perf_counter()
        return tree(size)

    data_utils.pc, data_utils._SegmentTree = Compute(), beginning
    edges = np.append(0, np.cumsum(lengths))
    rows = pa.LargeListArray.from_arrays(pa.array(edges), pa.nulls(int(edges[-1])))
    try:
        data_utils._pack_bfd(pa.table([rows], names=["input_ids"]), pack_size)
    except Reached as end:
        return {"seconds": end.args[0], "bins": end.args[1], "version": version("trl")}
    raise AssertionError("trl's loop was not seen")


def bridge(lengths: np.ndarray, pack_size: int) -> dict:
    """Megatron-Bridge's first-fit-decreasing, on a list of lengths as it is called there."""
    from nemoflow.engines.megatron import stubs

    stubs.install()
    from megatron.bridge.data.packing.algorithms import first_fit_decreasing

    given = lengths.tolist()
    began = time.perf_counter()
    bins = len(first_fit_decreasing(given, pack_size))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "bins": bins, "version": version("megatron-bridge")}


def main(name: str, path: str, pack_size: str) -> None:
    """Pack, and print what it took."""
    lengths, size = np.load(path), int(pack_size)
    found = {"trl": trl, "bridge": bridge}.get(name)
    asked = "best_fit" if name == "ours" else name
    told = found(lengths, size) if found else ours(lengths, size, asked)
    told["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
