"""JSON lines (https://jsonlines.org): objects, the types of their keys, record batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from .chunks import chunks

_REFUSED = (pa.ArrowException, ValueError, TypeError, OverflowError)


def parse_lines(lines: Iterable[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Yield the object of each line that is not blank; `ValueError` names the line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}, line {number} is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise ValueError(f"{name}, line {number} is {value!r:.40}: it must be an object")
        yield value


def infer_schema(objects: Iterable[dict[str, Any]], name: str) -> tuple[pa.Schema, int]:
    """Return the columns of all objects, of types that hold all their values, and their number.

    Integers go with floats, and null with everything.

    Raises
    ------
    ValueError
        If two values of a key have no type in common. The message names the row and the key.

    Examples
    --------
    >>> from headwise.corpus.jsonlines import infer_schema
    >>> infer_schema([{"text": "a", "score": 1}, {"text": "b", "score": 0.5}], "the input")[0]
    text: string
    score: double

    """
    kinds: dict[str, pa.DataType] = {}
    num_rows = 0
    for first, rows in chunks(objects):
        for key in dict.fromkeys(key for row in rows for key in row):
            values = [row.get(key) for row in rows]
            kinds[key] = _widened(kinds.get(key, pa.null()), values, f"{name}, row", first, key)
        num_rows = first + len(rows)
    return pa.schema(list(kinds.items())), num_rows


def read_objects(
    objects: Iterable[dict[str, Any]], name: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield objects as record batches of a schema; a key that an object lacks is null."""
    known = set(schema.names)
    for first, rows in chunks(objects):
        for number, row in enumerate(rows, first):
            if not row.keys() <= known:
                raise ValueError(
                    f"{name}, row {number} has the key {min(row.keys() - known)!r}, which no row "
                    "had that was looked at to tell the columns: give a file, where all are"
                )
        columns = [
            _as_array([row.get(field.name) for row in rows], field, f"{name}, row", first)
            for field in schema
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _widened(kind: pa.DataType, values: list[Any], where: str, first: int, key: str) -> pa.DataType:
    """Return the type that holds these values too; an error names the first that does not fit."""
    try:
        return _common(kind, pa.array(values).type)
    except _REFUSED:
        for number, value in enumerate(values, first):
            try:
                kind = _common(kind, pa.array([value]).type)
            except _REFUSED as error:
                raise _unfit(f"{where} {number}", key, value, kind, error) from None
        return kind


def _common(*kinds: pa.DataType) -> pa.DataType:
    schemas = [pa.schema([("value", kind)]) for kind in kinds]
    return pa.unify_schemas(schemas, promote_options="permissive").field(0).type


def _as_array(values: list[Any], field: pa.Field, where: str, first: int) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except _REFUSED as whole:
        for number, value in enumerate(values, first):
            try:
                pa.array([value], field.type)
            except _REFUSED as error:
                at = f"{where} {number}"
                raise _unfit(at, field.name, value, field.type, error) from None
        raise whole


def _unfit(where: str, key: str, value: object, kind: pa.DataType, error: Exception) -> ValueError:
    return ValueError(
        f"{where}: {key!r} is {value!r:.40}, which does not go with {kind}, "
        f"as the rows before have it: {error}"
    )
