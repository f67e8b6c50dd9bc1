"""The built-in data sources: seeded, with disjoint splits and one answer per source."""

import re
from collections import Counter, defaultdict
from datetime import date, timedelta

import pytest
from babel import Locale

from seq2seq.data import build_source
from seq2seq.data.sources.dates import ZEROS, date_patterns
from seq2seq.data.tokenizer import Normaliser
from seq2seq.errors import UserError

SPLITS = ("train", "val", "test")
COMMON = {"min_count": 1, "batch_size": 8, "max_epochs": 1, "num_workers": 0}
CHARACTERS = {"source_tokens": "characters", "target_tokens": "characters"}
REVERSE = COMMON | {
    "task": "reverse", "source_tokens": "spaces", "target_tokens": "spaces",
    "train_size": 300, "val_size": 50, "test_size": 60, "min_letters": 2, "max_letters": 5, "seed": 3,
}  # fmt: skip
DATES = COMMON | CHARACTERS | {
    "task": "dates", "train_size": 300, "val_size": 50, "test_size": 60,
    "locales": ["fr", "bn", "en_GB"], "first_year": 1990, "last_year": 1999, "seed": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def default_locales(compose):
    return list(compose("train").data.locales)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("settings", [REVERSE, DATES])
def test_a_split_is_the_same_every_time_and_differs_with_another_seed(settings, split):
    source, other = build_source(settings), build_source(settings | {"seed": 4})

    pairs = list(source.pairs(split))

    assert pairs == list(source.pairs(split))
    assert len(pairs) == settings[f"{split}_size"]
    assert pairs != list(other.pairs(split))


@pytest.mark.parametrize("settings", [REVERSE, DATES])
def test_a_source_can_be_rebuilt_from_plain_values(settings):
    source = build_source(settings)

    assert source.to_dict().items() >= settings.items()
    assert build_source(source.to_dict()) == source


@pytest.mark.parametrize("settings", [REVERSE, DATES])
def test_no_answer_occurs_in_two_splits(settings):
    answers = [{pair.target for pair in build_source(settings).pairs(split)} for split in SPLITS]

    assert not answers[0] & answers[1]
    assert not answers[0] & answers[2]
    assert not answers[1] & answers[2]


def test_the_target_is_the_source_reversed():
    for pair in build_source(REVERSE).pairs("val"):
        letters = pair.source.split(" ")
        assert pair.target.split(" ") == letters[::-1]
        assert all(re.fullmatch("[a-z]", letter) for letter in letters)
        assert 2 <= len(letters) <= 5


def test_dates_are_iso_8601_and_every_locale_occurs_equally_often():
    pairs = list(build_source(DATES).pairs("train"))

    assert all(1990 <= date.fromisoformat(pair.target).year <= 1999 for pair in pairs)
    assert Counter(pair.group for pair in pairs) == {"fr": 100, "bn": 100, "en_GB": 100}


@pytest.mark.parametrize(("locales", "words"), [(["de"], "1 locale;"), (["de", "ja"], "2 locales;")])
def test_dates_say_what_they_are(locales, words):
    about = build_source(DATES | {"locales": locales}).about

    assert about == f"Reads dates as written in {words} writes them as ISO 8601."


def test_dates_have_both_cases_and_a_languages_own_digits():
    texts = [pair.source for pair in build_source(DATES).pairs("train")]

    assert any(text.isupper() for text in texts)
    assert any(text.islower() for text in texts)
    assert any(ZEROS["beng"] in text for text in texts)
    assert "janvier" in " ".join(texts)
    assert "janv." in " ".join(texts)


def test_no_date_text_of_the_default_locales_has_two_readings(default_locales):
    readings = defaultdict(set)
    for name in default_locales:
        locale = Locale.parse(name)
        for pattern in date_patterns(locale):
            for number in range(366):
                day = date(2004, 1, 1) + timedelta(days=number)
                text = Normaliser()(pattern.apply(day, locale))
                for variant in (text, text.lower(), text.upper()):
                    readings[variant].add(day)

    assert len(readings) > 50_000
    assert all(len(days) == 1 for days in readings.values())


def test_every_default_locale_has_several_ways_to_write_a_day(default_locales):
    assert len(default_locales) == 40
    assert all(len(date_patterns(Locale.parse(name))) >= 3 for name in default_locales)


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        (DATES, {"locales": ["xx"]}, r"data\.locales: xx is no locale that Babel knows"),
        (DATES, {"locales": 5}, r"data\.locales=5 must be a list of at least one"),
        (REVERSE, {"max_letters": 200_000}, r"data\.max_letters=200000 must be .* at most 1000"),
        (DATES, {"locales": []}, r"data\.locales=\[\] must be a list of at least one"),
        (DATES, {"last_year": 1980}, r"data\.last_year=1980 must be a whole number of at least 1990 and at most 9999"),
        (
            DATES,
            {"last_year": 10000},
            r"data\.last_year=10000 must be a whole number of at least 1990 and at most 9999",
        ),
        (DATES, {"train_size": 0}, r"data\.train_size=0 must be a whole number of at least 1"),
        (DATES, {"seed": -1}, r"data\.seed=-1 must be a whole number of at least 0"),
        (DATES, {"batch_size": 0}, r"data\.batch_size=0 must be a whole number of at least 1"),
        (DATES, {"source_tokens": "bytes"}, r"data\.source_tokens=bytes must be one of characters, graphemes, spaces"),
        (REVERSE, {"max_letters": 1}, r"data\.max_letters=1 must be a whole number of at least 2"),
        (REVERSE, {"max_letters": 2}, r"data\.max_letters=2 gives 676 sequences, .* too few for 410"),
        (REVERSE, {"task": "revers"}, r"data\.task=revers must be one of dates, reverse, tsv"),
        (REVERSE, {"letters": 2}, r"data\.letters is unknown; the keys of data are batch_size, "),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused_by_key_and_value(settings, change, message):
    with pytest.raises(UserError, match=message):
        build_source(settings | change)


def test_a_missing_key_is_named():
    settings = dict(REVERSE)
    del settings["seed"]

    with pytest.raises(UserError, match=r"data\.seed is missing"):
        build_source(settings)
