"""Many rows in one statement, as a table-valued expression: one bound parameter per column (arrays of
PostgreSQL), or one in all (JSON, on SQLite). May not know any table.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

Rows = Sequence[Mapping[str, Any]]
Types = Mapping[str, Any]
"""Column name -> SQLAlchemy type, class or instance."""


class Batch:
    """The columns of rows that travel in one statement, as `table`, and the parameters that hold the rows. So
    a statement can be made once: to make it anew costs several times as much as to run it."""

    def __init__(self, dialect: sa.Dialect, name: str, types: Types) -> None:
        self._dialect, self._name, self._types = dialect, name, types
        self._is_sqlite = dialect.name == "sqlite"

    @functools.cached_property
    def table(self) -> Any:
        """Without rows: the statement is executed with `parameters`."""
        return self._table({})

    def filled(self, rows: Rows) -> Any:
        """With its rows, for a statement that is used once."""
        return self._table(self.parameters(rows))

    def parameters(self, rows: Rows) -> dict[str, Any]:
        """Each row has every column."""
        if self._is_sqlite:
            return {f"{self._name}_rows": self._json(rows)}
        return {f"{self._name}_{key}": _column(key, rows) for key in self._types}

    def _table(self, values: Mapping[str, Any]) -> Any:
        return self._json_table(values) if self._is_sqlite else self._unnested(values)

    def _unnested(self, values: Mapping[str, Any]) -> Any:
        arrays = [_array(f"{self._name}_{key}", type_, values) for key, type_ in self._types.items()]
        columns = [sa.column(key, type_) for key, type_ in self._types.items()]
        return sa.func.unnest(*arrays).table_valued(*columns, name=self._name).render_derived()

    def _json_table(self, values: Mapping[str, Any]) -> Any:
        each = sa.func.json_each(_bound(f"{self._name}_rows", sa.Text(), values))
        value = each.table_valued("value", name=f"{self._name}_each").c.value
        return sa.select(
            *(
                sa.type_coerce(sa.func.json_extract(value, f"$[{i}]"), type_).label(key)
                for i, (key, type_) in enumerate(self._types.items())
            )
        ).subquery(self._name)

    def _json(self, rows: Rows) -> str:
        columns = [_converted(bind, [row[key] for row in rows]) for key, bind in self._binders.items()]
        return msgspec.json.encode(list(zip(*columns, strict=True))).decode()

    @functools.cached_property
    def _binders(self) -> dict[str, Callable[[Any], Any] | None]:
        return {
            key: sa.types.to_instance(type_).dialect_impl(self._dialect).bind_processor(self._dialect)
            for key, type_ in self._types.items()
        }


def _column(key: str, rows: Rows) -> list[Any] | None:
    """The array of a column. None where no row says anything of it: unnest pads what is shorter than others,
    and the driver takes half a microsecond for each value that it encodes."""
    values = [row[key] for row in rows]
    return None if values and values.count(None) == len(values) else values


def _converted(bind: Callable[[Any], Any] | None, values: list[Any]) -> list[Any]:
    return values if bind is None else [None if value is None else bind(value) for value in values]


def _bound(name: str, type_: Any, values: Mapping[str, Any]) -> Any:
    return sa.bindparam(name, values[name], type_=type_) if values else sa.bindparam(name, type_=type_)


def _array(name: str, type_: Any, values: Mapping[str, Any]) -> Any:
    from sqlalchemy.dialects import postgresql  # by whoever uses it: a small command on SQLite does not

    if isinstance(type_, sa.Uuid):
        # As text, which the database reads faster than Python makes objects of them.
        return sa.cast(_bound(name, postgresql.ARRAY(sa.Text()), values), postgresql.ARRAY(type_))
    return _bound(name, postgresql.ARRAY(type_), values)
