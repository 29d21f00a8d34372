"""The cut: every row in one split, strata spread evenly, nothing held out that was trained on."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trainers.data.splits import Keyed, cut, drop_alike, drop_duplicates, repeats_within, shared_with

rows_of = st.lists(st.sampled_from("abc"), min_size=1, max_size=60).map(
    lambda strata: [Keyed(i, i, s) for i, s in enumerate(strata)]
)


@given(rows_of, st.one_of(st.floats(0.05, 0.95), st.integers(1, 80)), st.integers(0, 5))
def test_a_cut_keeps_every_row_once_in_order(rows, size, seed):
    rest, taken = cut(rows, size, seed)
    assert sorted(r.example for r in rest + taken) == [r.example for r in rows]
    assert [r.example for r in taken] == sorted(r.example for r in taken)
    wanted = min(len(rows), round(size * len(rows)) if size < 1 else size)
    strata = len({r.stratum for r in rows})
    assert len(taken) == (wanted if wanted == len(rows) else min(wanted, len(rows) - strata))
    assert wanted == len(rows) or {r.stratum for r in rest} == {r.stratum for r in rows}


many_of_each = st.lists(st.integers(10, 30), min_size=1, max_size=4).map(
    lambda sizes: [Keyed((s, i), (s, i), s) for s, size in enumerate(sizes) for i in range(size)]
)


@given(many_of_each, st.floats(0.1, 0.9), st.integers(0, 5))
def test_each_stratum_gives_its_share_to_within_one_row(rows, size, seed):
    _, taken = cut(rows, size, seed)
    counts, all_counts = Counter(r.stratum for r in taken), Counter(r.stratum for r in rows)
    share = len(taken) / len(rows)
    assert all(abs(counts[s] - n * share) < 1 + 1e-9 for s, n in all_counts.items())


def test_the_cut_depends_on_the_seed_and_on_nothing_else():
    rows = [Keyed(i, i, i % 2) for i in range(50)]
    assert cut(rows, 0.2, 1) == cut(rows, 0.2, 1) != cut(rows, 0.2, 2)


def test_a_row_shared_with_the_test_set_is_taken_out_of_training():
    splits = {"train": [Keyed(1, "x", None), Keyed(2, "y", None), Keyed(3, "y", None)], "test": [Keyed(4, "x", None)]}
    kept, dropped = drop_duplicates(splits)
    assert [(r.split, r.row.example, r.kept_split, r.kept.example) for r in dropped] == [
        ("train", 1, "test", 4), ("train", 3, "train", 2),
    ]  # fmt: skip
    assert [r.example for r in kept["train"]] == [2]
    assert [r.example for r in kept["test"]] == [4]


def test_the_only_row_of_a_label_is_left_for_training():
    rows = [Keyed(i, i, f"label{i}") for i in range(10)] + [Keyed(i, i, "many") for i in range(10, 100)]
    rest, taken = cut(rows, 0.1, 0)
    assert len(taken) == 10
    assert {r.stratum for r in rest} == {r.stratum for r in rows}


keyed = st.lists(st.integers(0, 8)).map(lambda keys: [Keyed(n, key, None) for n, key in enumerate(keys)])


@given(keyed, keyed)
def test_repeats_are_told_with_the_row_that_came_first(rows, others):
    keys = [row.key for row in rows]
    assert [(row.example, first.example) for row, first in repeats_within(rows)] == [
        (n, keys.index(key)) for n, key in enumerate(keys) if key in keys[:n]
    ]
    theirs = [row.key for row in others]
    assert [(row.example, other.example) for row, other in shared_with(rows, others)] == [
        (keys.index(key), theirs.index(key)) for key in dict.fromkeys(keys) if key in theirs
    ]


def test_rows_that_are_read_alike_are_kept_once():
    splits = {
        "train": [Keyed(1, "A", None), Keyed(2, ("B", ("c",)), None), Keyed(3, None, None), Keyed(4, None, None)],
        "test": [Keyed(5, "a", None), Keyed(6, ("b", ("C",)), None)],
    }
    kept, dropped = drop_alike(splits, str.lower)
    assert {name: [row.example for row in rows] for name, rows in kept.items()} == {
        "test": [5, 6], "validation": [], "train": [3, 4],
    }  # fmt: skip
    assert [(r.split, r.row.example, r.kept_split, r.kept.example) for r in dropped] == [
        ("train", 1, "test", 5), ("train", 2, "test", 6),
    ]  # fmt: skip
