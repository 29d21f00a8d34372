"""Slices mean what `datasets` means by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.protocol.slices import Slice, parse_slice

bounds = st.one_of(st.none(), st.integers(-120, 120))
percents = st.one_of(st.none(), st.integers(-100, 100).map(lambda n: f"{n}%"))


def written(pair):
    return f"train[{':'.join('' if bound is None else str(bound) for bound in pair)}]"


slices = st.one_of(st.tuples(bounds, bounds), st.tuples(percents, percents)).map(written)


@given(slices, st.integers(0, 150))
def test_a_slice_takes_the_rows_that_datasets_takes(text, rows):
    from datasets import ReadInstruction

    (wanted,) = ReadInstruction.from_spec(text).to_absolute({"train": rows})
    assert list(parse_slice(text).take(range(rows))) == list(range(wanted.from_, wanted.to))


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("train", Slice("train")),
        ("train[:4_096]", Slice("train", 0, 4096)),
        ("validation[-100:]", Slice("validation", -100)),
        ("train.clean[80%:]", Slice("train.clean", 80, None, is_percent=True)),
    ],
)
def test_what_is_written_is_what_is_read(text, parsed):
    assert parse_slice(text) == parsed


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("", "expected e.g. train, train"),
        ("train[", "expected e.g."),
        ("train[]", "expected e.g."),
        ("train[5]", "expected e.g."),
        ("train[:0.5]", "expected e.g."),
        ("train[1:2:3]", "expected e.g."),
        ("train[:4__096]", "expected e.g."),
        ("[:5]", "expected e.g."),
        ("train [:5]", "expected e.g."),
        ("train[:5] ", "expected e.g."),
        ("train[10%:20]", "expected both ends in percent, or both in rows"),
        ("train[10:20%]", "expected both ends in percent, or both in rows"),
        ("train[:101%]", "expected percents from -100% to 100%"),
        ("train[-200%:]", "expected percents from -100% to 100%"),
    ],
)
def test_what_is_no_slice_is_refused_with_what_would_be(text, right):
    with pytest.raises(ValueError) as refused:
        parse_slice(text)
    assert str(refused.value).startswith(right)
