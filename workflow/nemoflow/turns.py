"""How processes share out the blocks of a shard, and keep their order.

Blocks are claimed in order, one at a time, by whoever is free. Where a block's tokens go in the
shard's files follows from the sizes of all blocks before it, so they take turns to say them; the
writing itself needs no turn.
"""

from multiprocessing.context import ForkContext

from nemoflow.errors import UserError


class Turns:
    """The claims and the turn of one shard; made before the processes that share it.

    `sizes` and offsets are bytes of each of the shard's `files` files. UserError where this machine
    lets processes share no memory.
    """

    def __init__(self, context: ForkContext, files: int):
        try:
            self._claims = context.Value("q", 0)
            self._changed = context.Condition()
            self._number = context.RawValue("q", 0)
            self._offsets = context.RawArray("q", files)
        except OSError as error:
            raise UserError(
                f"/dev/shm: {error.strerror}; processes share a few bytes there: give it some room"
            ) from error

    def claim(self) -> int:
        """The number of the next block that nobody has."""
        with self._claims.get_lock():
            number = self._claims.value
            self._claims.value += 1
        return number

    def place(self, number: int, sizes: list[int], wait: bool) -> list[int] | None:
        """The offsets at which a block of these sizes goes; then it is the next block's turn.

        None where blocks before it have not said theirs, and one is not to wait for them.
        """
        with self._changed:
            while self._number.value != number:
                if not wait:
                    return None
                self._changed.wait()
            offsets = list(self._offsets)
            for file, size in enumerate(sizes):
                self._offsets[file] += size
            self._number.value += 1
            self._changed.notify_all()
        return offsets
