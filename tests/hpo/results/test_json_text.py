"""JSON as commands print it: what any parser reads, with long lists of records a line each."""

import json
import math

import pytest

from hpo.results.json_text import LONG, json_text


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


def test_a_long_list_has_a_record_a_line():
    trials = [{"number": n} for n in range(LONG + 1)]
    text = json_text({"sweep": "x", "trials": trials})
    assert json.loads(text) == {"sweep": "x", "trials": trials}
    assert text.splitlines()[3] == '    {"number": 0},'
