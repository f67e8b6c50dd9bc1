"""The tasks: where pairs of source and target text come from."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from seq2seq.data.sources.dates import Dates
from seq2seq.data.sources.reverse import Reverse
from seq2seq.data.sources.source import Pair, Split, Task
from seq2seq.data.sources.tsv import TSV
from seq2seq.errors import check_choice, check_keys

TASKS: dict[str, type[Task]] = {"dates": Dates, "reverse": Reverse, "tsv": TSV}
"""The tasks by the word that stands for them in a config (``data.task``)."""


def build_task(settings: Mapping[str, Any]) -> Task:
    """Build the task that the plain values of ``data`` in a config describe.

    Raises:
        UserError: If there is none of that name, or it has no such setting.
    """
    kind = TASKS[check_choice("data.task", settings.get("task"), TASKS)]
    check_keys("data", settings, ["task", *(field.name for field in fields(kind))])
    values = {key: value for key, value in settings.items() if key != "task"}
    return kind(**values)


__all__ = ["TASKS", "TSV", "Dates", "Pair", "Reverse", "Split", "Task", "build_task"]
