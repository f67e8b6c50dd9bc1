"""Data sources: where the pairs of source and target text come from."""

from collections.abc import Mapping
from typing import Any

from seq2seq.data.sources.cmudict import CMUdict
from seq2seq.data.sources.dates import Dates
from seq2seq.data.sources.files import TextFiles
from seq2seq.data.sources.parallel import Parallel
from seq2seq.data.sources.reverse import Reverse
from seq2seq.data.sources.source import DataSource, Pair, Split
from seq2seq.data.sources.tsv import TSV
from seq2seq.settings import choose, read_settings

SOURCES: dict[str, type[DataSource]] = {kind.name: kind for kind in (Dates, Reverse, TSV, Parallel, CMUdict)}
"""Registry of data sources: value of ``data.task`` to class."""


def build_source(settings: Mapping[str, Any]) -> DataSource:
    """Build a data source from the section ``data`` of a config.

    Raises:
        UserError: If there is no source of that name, or a key is unknown, missing or not allowed.
    """
    kind = choose("data.task", settings.get("task"), SOURCES)
    return read_settings(kind, {key: value for key, value in settings.items() if key != "task"}, "data")


__all__ = ["SOURCES", "DataSource", "Pair", "Reverse", "Split", "TextFiles", "build_source"]
