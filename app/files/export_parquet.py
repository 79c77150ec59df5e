"""Writes rows as a Parquet file with types that need no guessing. The only module that imports pyarrow, which
the extra `tallyhook[parquet]` brings.
"""

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import UserError
from app.views.export_rows import ColumnKind

ROW_GROUP_BYTES = 8 << 20
"""Of texts, held before they are written: 230 answers of 18 KB, each of which is in its row twice. The
writer keeps what it knows of each row group until the end of the file; 100,000 results make 430."""
ROW_BYTES = 256
"""What a row takes besides its texts, so that rows without any are bounded too."""
VALUES_BETWEEN_PAGE_CHECKS = 32
"""A page of 1 MB may be overrun by so many values: by 0.6 MB of 18 KB answers; the default 1,024 by 18 MB."""

TYPES = {
    ColumnKind.WHOLE: pa.int64(),
    # All that 64 bits hold: below 10^12 credits, to the millionth.
    ColumnKind.CREDITS: pa.decimal128(18, 6),
    ColumnKind.TIME: pa.timestamp("ms", tz="UTC"),
    ColumnKind.WORD: pa.dictionary(pa.int32(), pa.string()),
    ColumnKind.ID: pa.string(),
    ColumnKind.TEXT: pa.string(),
    ColumnKind.OWN: pa.string(),
    # 64-bit offsets: 32-bit ones end at 2 GB for a column that a reader joins together.
    ColumnKind.LONG_TEXT: pa.large_string(),
    ColumnKind.TEXTS: pa.list_(pa.string()),
}


class ParquetTable:
    """Keeps one row group's rows at a time."""

    def __init__(
        self, kinds: Mapping[str, ColumnKind], values_of: Callable[[Any], list[Any]], output: BinaryIO
    ) -> None:
        self._values_of = values_of
        self._schema = pa.schema([pa.field(name, TYPES[kind]) for name, kind in kinds.items()])
        ordered = (ColumnKind.WHOLE, ColumnKind.CREDITS, ColumnKind.TIME, ColumnKind.WORD, ColumnKind.ID)
        self._writer = pq.ParquetWriter(
            output,
            self._schema,
            compression="zstd",
            store_decimal_as_integer=True,
            use_dictionary=[name for name, kind in kinds.items() if kind is ColumnKind.WORD],
            write_statistics=[name for name, kind in kinds.items() if kind in ordered],
            write_batch_size=VALUES_BETWEEN_PAGE_CHECKS,
        )
        self._rows: list[list[Any]] = []
        self._bytes = 0

    @property
    def kept_bytes(self) -> int:
        """What is not written yet."""
        return self._bytes

    def write(self, row: Any) -> None:
        values = self._values_of(row)
        self._rows.append(values)
        self._bytes += ROW_BYTES + sum(len(value) for value in values if isinstance(value, str))
        if self._bytes >= ROW_GROUP_BYTES:
            self.write_group()

    def close(self) -> None:
        try:
            if self._rows:
                self.write_group()
        finally:
            self._writer.close()

    def abandon(self) -> None:
        """Of a file that is given up nothing more is written, its end neither."""
        self._writer.is_open = False

    def write_group(self) -> None:
        """Write what is kept, which must be something. Raises UserError."""
        rows, self._rows, self._bytes = self._rows, [], 0
        columns = [list(column) for column in zip(*rows, strict=True)]
        try:
            arrays = [
                pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)
            ]
        except pa.ArrowInvalid as error:
            raise UserError(
                "unwritable", f"a value does not fit its Parquet column: {error}", "choose jsonl or csv"
            ) from error
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=len(rows))
