"""JSON as commands print it: what any parser reads, with long lists of records a line each."""

import json
import math
import random

import numpy as np
import pytest

from hpo.results.json_text import COMPACT, INDENTED, LONG, ON_ONE_LINE, json_text, laid_out


@pytest.mark.parametrize(
    "value",
    [
        {"nights": [{"value": math.nan}]},
        [{"value": math.inf, "name": "a"}],
        {"trials": [{"number": n, "value": -math.inf if n else 0.5} for n in range(LONG + 1)]},
    ],
)
def test_numbers_that_json_does_not_have_are_null(value):
    def refuse(name):
        raise AssertionError(name)

    read = json.loads(json_text(value), parse_constant=refuse)
    assert json.dumps(read) == json.dumps(value).replace("NaN", "null").replace("-Infinity", "null").replace(
        "Infinity", "null"
    )


@pytest.mark.parametrize("layout", [COMPACT, ON_ONE_LINE, INDENTED])
@pytest.mark.parametrize(
    "text", ["plain", 'a "quoted" \\ line\n', "é 日本 😀 \u2028", "half of a pair: \ud83d", "<script>", ""]
)
def test_any_text_is_json_in_ascii_in_every_layout(text, layout):
    found = laid_out({text: [text, {}]}, layout)
    assert json.loads(found) == {text: [text, {}]}
    assert found.isascii()
    assert found.count("\n") == (5 if layout == INDENTED else 0)


def test_numbers_of_numpy_are_numbers():
    given = {"value": np.float64(0.1), "none": np.float64(math.nan)}
    assert json.loads(json_text(given)) == {"value": 0.1, "none": None}


def test_a_float_is_read_back_as_it_was():
    rng = random.Random(0)
    values = [rng.uniform(-1, 1) * 10.0 ** rng.randint(-320, 308) for _ in range(1000)]
    assert json.loads(json_text(values)) == values


def test_a_long_list_has_a_record_a_line():
    trials = [{"number": n} for n in range(LONG + 1)]
    text = json_text({"sweep": "x", "trials": trials})
    assert json.loads(text) == {"sweep": "x", "trials": trials}
    assert text.splitlines()[3] == '    {"number": 0},'
