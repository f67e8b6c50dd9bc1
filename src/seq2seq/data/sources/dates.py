"""Written dates in many languages to ISO 8601.

Month names, weekdays, abbreviations and their order come from the Unicode CLDR, through Babel. The model is not told
the language.
"""

import random
import re
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import cycle, islice
from typing import Annotated, ClassVar, Self

from babel import Locale, UnknownLocaleError
from babel.dates import DateTimePattern, get_date_format, parse_pattern
from pydantic import Field, model_validator

from seq2seq.data.sources.source import DataSource, Pair, Split
from seq2seq.errors import UserError
from seq2seq.settings import Count, Natural

STYLES = ("full", "long", "medium")
"""CLDR's date styles, without "short", which is all digits, often has a two-digit year, and is ambiguous."""

SKELETONS = ("yMMMd", "yMMMEd", "yMMMMd", "yMMMMEEEEd")
"""CLDR's skeletons for a day: with an abbreviated or a full month, with and without a weekday."""

ZEROS = {"arab": "٠", "arabext": "۰", "beng": "০", "deva": "०", "mymr": "၀", "tibt": "༠"}
"""The digit zero of CLDR's numbering systems; in Unicode, the other nine digits follow it."""

DOTLESS = ("tr", "az")
"""Languages in which the capital of i is not I. Python's ``upper`` and ``lower`` would misspell them."""

HELD_OUT = 0.1
"""Share of all days that is kept for validation, and the same for test."""


def is_unambiguous(pattern: str) -> bool:
    """Return whether a date pattern has one reading only, whichever the language.

    A pattern with the month's name is unambiguous, and ``3/4/2005`` is not. A pattern of numbers is unambiguous if the
    year comes first, because the month always follows it, or if it contains dots or words, because these are used only
    where the day comes first.

    Example:
        >>> [is_unambiguous(pattern) for pattern in ("d MMM y", "y/MM/dd", "dd.MM.y", "dd/MM/y", "d.M.yy")]
        [True, True, True, False, False]
    """
    literals = "".join(re.findall(r"'([^']*)'", pattern))
    fields = re.findall(r"y+|[ML]+|d+", re.sub(r"'[^']*'", "", pattern))
    if "yy" in fields or sorted(field[0].replace("L", "M") for field in fields) != ["M", "d", "y"]:
        return False
    has_name = any(field[0] in "ML" and len(field) > 2 for field in fields)
    day_first = "." in pattern or any(character.isalpha() for character in literals)
    return has_name or fields[0][0] == "y" or day_first


def date_patterns(locale: Locale) -> list[DateTimePattern]:
    """Return the unambiguous date patterns of a locale, each once."""
    patterns = [get_date_format(style, locale).pattern for style in STYLES]
    skeletons = locale.datetime_skeletons
    patterns += [str(skeletons[name].pattern) for name in SKELETONS if name in skeletons]
    return [parse_pattern(pattern) for pattern in dict.fromkeys(patterns) if is_unambiguous(pattern)]


class Dates(DataSource):
    """``jeudi 2 janvier 2003`` to ``2003-01-02``. No day occurs in two splits; locales are equally frequent in each."""

    name: ClassVar[str] = "dates"

    train_size: Count
    val_size: Count
    test_size: Count
    locales: Annotated[list[str], Field(min_length=1)]
    first_year: Annotated[int, Field(ge=1000, le=9999)]
    last_year: int
    seed: Natural

    @property
    def group_name(self) -> str | None:
        """The locale of a date."""
        return "locale"

    @property
    def about(self) -> str:
        """How dates are written."""
        locales = f"{len(self.locales)} locale{'s' * (len(self.locales) > 1)}"
        return f"Reads dates as written in {locales}; writes them as ISO 8601."

    @model_validator(mode="after")
    def _check_years_and_locales(self) -> Self:
        first, last = self.first_year, self.last_year
        if not first <= last <= 9999:
            raise UserError(f"data.last_year={last} must be a whole number of at least {first} and at most 9999")
        for name in self.locales:
            try:
                Locale.parse(name)
            except (ValueError, TypeError, UnknownLocaleError) as error:
                problem = "is no locale that Babel knows; names look like de, en_GB, zh_Hant"
                raise UserError(f"data.locales: {name} {problem}") from error
        return self

    def pairs(self, split: Split) -> Iterator[Pair]:
        """Yield the pairs of a split; the locales take turns. Its days depend on the seed and the years only."""
        first, last = date(self.first_year, 1, 1), date(self.last_year, 12, 31)
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        random.Random(self.seed).shuffle(days)
        held_out = int(len(days) * HELD_OUT)
        days = {"val": days[:held_out], "test": days[held_out : 2 * held_out], "train": days[2 * held_out :]}[split]
        generator = random.Random(f"{self.seed} {split}")  # a string gives the same numbers on every platform
        locales = [Locale.parse(name) for name in self.locales]
        turns = cycle(
            [(name, locale, date_patterns(locale)) for name, locale in zip(self.locales, locales, strict=True)]
        )
        for name, locale, patterns in islice(turns, getattr(self, f"{split}_size")):
            day = generator.choice(days)
            yield Pair(format_day(day, generator.choice(patterns), locale, generator), day.isoformat(), name)


def format_day(day: date, pattern: DateTimePattern, locale: Locale, generator: random.Random) -> str:
    """Return a day as text, at random with the language's own digits and in lower, upper or unchanged case."""
    text = pattern.apply(day, locale)
    zero = ZEROS.get(locale.default_numbering_system)
    if zero and generator.random() < 0.5:
        text = text.translate({ord("0") + digit: chr(ord(zero) + digit) for digit in range(10)})
    casing = generator.random()
    if locale.language not in DOTLESS:
        text = text.lower() if casing < 0.25 else text.upper() if casing < 0.5 else text
    return text
