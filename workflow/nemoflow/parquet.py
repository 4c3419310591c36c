"""Parquet files: which row groups lie in a range of bytes, and their rows.

A file is cut anywhere, like JSON lines: a row group belongs to the range in which its first byte
lies. So a plan needs the file's size alone, and no footer is read before the rows are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from nemoflow.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS = 1000  # rows decoded at a time
READ = 4 << 20  # bytes of a column read at a time


def row_groups(file: BinaryIO, span: tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """(row group, number of its first row) of the row groups whose first byte lies in the span.

    Only the footer is read. UserError when it is not a whole Parquet file.
    """
    with naming(file):
        return _groups(opened(file).metadata, span)


def rows(
    file: BinaryIO, span: tuple[int, int] | None = None
) -> Iterator[tuple[int, dict[str, Any] | UnicodeDecodeError]]:
    """(number, row) of the row groups in the span; text that is not UTF-8 gives the error.

    One row group is in memory at a time.
    """
    with naming(file):
        reader = opened(file)
        groups = _groups(reader.metadata, span)
    for group, first in groups:
        with naming(file):
            for batch in reader.iter_batches(ROWS, row_groups=[group]):
                yield from enumerate(_rows(batch), start=first)
                first += batch.num_rows


def opened(file: BinaryIO) -> "pq.ParquetFile":
    """The reader of a Parquet file; it has read the footer."""
    import pyarrow.parquet as pq  # only where there is Parquet

    return pq.ParquetFile(file, pre_buffer=True)  # one request for columns that lie side by side


@contextmanager
def naming(file: BinaryIO) -> Iterator[None]:
    """Turn what pyarrow says of a damaged file into a UserError that names it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the machine's, not the file's
        name = getattr(file, "name", "the file")
        raise UserError(f"{name} is not a whole Parquet file: {error}; fetch it again") from error


def _groups(metadata: Any, span: tuple[int, int] | None) -> list[tuple[int, int]]:
    groups, row = [], 0
    for group in range(metadata.num_row_groups):
        described = metadata.row_group(group)
        if span is None or span[0] <= _first_byte(described) < span[1]:
            groups.append((group, row))
        row += described.num_rows
    return groups


def _rows(batch: "pa.RecordBatch") -> list[dict[str, Any] | UnicodeDecodeError]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return [_row(batch, number) for number in range(batch.num_rows)]


def _row(batch: "pa.RecordBatch", number: int) -> dict[str, Any] | UnicodeDecodeError:
    try:
        return batch.slice(number, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        return error


def _first_byte(group: Any) -> int:
    """Where a row group begins: at the first page of its columns, dictionaries included."""
    pages = []
    for column in (group.column(i) for i in range(group.num_columns)):
        pages.append(column.data_page_offset)
        if column.has_dictionary_page:
            pages.append(column.dictionary_page_offset)
    return min(pages, default=0)


class TextColumn:
    """The column of texts of a Parquet file, read a part at a time.

    Raises:
        UserError: there is no such column, or it holds no text.
    """

    def __init__(self, file: BinaryIO, path: str, name: str):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._name, self._file = name, file
        with naming(file):
            # Page by page: a row group can be larger than the memory.
            self._reader = pq.ParquetFile(file, pre_buffer=False, buffer_size=READ)
        schema = self._reader.schema_arrow
        if name not in schema.names:
            raise UserError(
                f"{path}: there is no column {name} (text_field); its columns:"
                f" {', '.join(schema.names)}"
            )
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        if not any(test(kind) for test in (*tests, pa.types.is_binary, pa.types.is_large_binary)):
            raise UserError(f"{path}: column {name} (text_field) holds {kind}, not text")
        leaves = self._reader.metadata.schema  # nested columns can have leaves of that name
        self._place = next(i for i in range(len(leaves)) if leaves.column(i).path == name)

    def rows(self, group: int) -> int:
        """The number of rows of a row group."""
        return self._reader.metadata.row_group(group).num_rows

    def bytes(self, group: int) -> int:
        """The size of its texts, as far as its footer tells."""
        return self._reader.metadata.row_group(group).column(self._place).total_uncompressed_size

    def batches(self, group: int, size: int) -> "Iterator[pa.Array]":
        """The texts of a row group, at most `size` at a time."""
        with naming(self._file):
            for batch in self._reader.iter_batches(
                size, row_groups=[group], columns=[self._name], use_threads=False
            ):
                yield batch.column(0)
