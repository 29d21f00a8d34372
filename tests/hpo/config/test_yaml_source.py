"""YAML as a person writes it: values, lines and every way a file can be wrong."""

import pytest

from hpo.config.yaml_source import load
from hpo.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "a.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return read


@pytest.fixture
def refused(read, tmp_path):
    """The problems of a text, one line each, without the folder in front."""

    def refused(text):
        with pytest.raises(ConfigError) as caught:
            read(text)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return refused


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1E3", 1000.0), ("-2e4", -20000.0), ("+3e+2", 300.0), ("5.e1", 50.0), ("1.5e-3", 0.0015)],
)
def test_exponents_need_no_dot(read, text, value):
    found = read(f"a: {text}").raw("a")
    assert found == value
    assert isinstance(found, float)


@pytest.mark.parametrize("text", ["1e", "e5", "12e3x", "'1e-6'", "v1e-6"])
def test_what_only_looks_like_an_exponent_stays_text(read, text):
    assert read(f"a: {text}").raw("a") == text.strip("'")


def test_plain_values_keep_their_types(read):
    section = read("a: 3\nb: true\nc: [1, x]\nd:\ne: 0.5\n")
    assert [section.raw(key) for key in "abcde"] == [3, True, [1, "x"], None, 0.5]


def test_a_byte_order_mark_is_no_part_of_the_first_key(read):
    assert read("\ufeffa: 1").names() == ["a"]


def test_an_alias_has_its_anchor_s_value(read):
    assert read("a: &x {b: 1}\nc: *x\n").raw("c") == {"b": 1}


# --- lines ---------------------------------------------------------------------------------------------


def test_where_names_file_line_and_path(read):
    section = read("a: 1\n\nb:\n  c:\n    d: 2\n")
    assert section.where("b").endswith("a.yaml:3: b")
    assert section.section("b").section("c").where("d").endswith("a.yaml:5: b.c.d")


def test_where_of_a_missing_key_is_its_parent_s_line(read):
    section = read("a: 1\nb:\n  c: 1\n")
    assert section.section("b").where("x").endswith("a.yaml:2: b.x")
    assert section.where("x").endswith("a.yaml:1: x")


# --- files that are refused ----------------------------------------------------------------------------


def test_a_key_given_twice_is_refused_at_its_second_line(refused):
    assert refused("a: 1\nb: 2\na: 3\n") == ["a.yaml:3: a: is given twice"]


def test_nested_keys_given_twice_are_all_reported(refused):
    problems = refused("a:\n  b: 1\n  b: 2\nc: {d: 1, d: 2}\n")
    assert problems == ["a.yaml:3: a.b: is given twice", "a.yaml:4: c.d: is given twice"]


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: [1, 2\nc: 3\n", 3), ("a: 1\n\tb: 2\n", 2), ("a: *nothing\n", 1), ("a: 1\n---\nb: 2\n", 2)],
)
def test_broken_yaml_is_refused_with_its_line(refused, text, line):
    [problem] = refused(text)
    assert problem.startswith(f"a.yaml:{line}: is not YAML: ")


def test_control_characters_are_refused(refused):
    [problem] = refused("a: \x00")
    assert "is not YAML" in problem


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "text", "null", "3"])
def test_what_is_not_a_mapping_is_refused(refused, text):
    [problem] = refused(text)
    assert problem == "a.yaml: is not a mapping; expected keys such as task, model and data"


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read: No such file"):
        load(tmp_path / "no.yaml")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_bytes_that_are_no_utf8_are_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        load(path)


# --- odd scalars ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["2020-01-01", "2020-13-41", "0b_", "1:30", "1_000", "on", "off", "yes", "No", "="])
def test_what_only_yaml_1_1_takes_for_something_else_is_text(read, text):
    assert read(f"a: {text}\n").text("a") == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("020", 20), ("0o17", 15), ("0x1F", 31), ("+7", 7), (".5", 0.5), ("True", True), ("FALSE", False), ("~", None)],
)
def test_the_core_rules_of_yaml_1_2(read, text, value):
    found = read(f"a: {text}\n").raw("a")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "!!int abc",
        "!!float abc",
        "!!python/object:os.system x",
        "!unknown x",
        "9" * 5000,  # more digits than Python turns into an int
        "!!int ''",
        "!!bool maybe",
        "!!timestamp abc",
    ],
)
def test_a_scalar_that_cannot_be_read_is_a_problem_with_its_line(refused, value):
    [problem] = refused(f"a: 1\nb:\n  c: {value}\n")
    assert problem.startswith("a.yaml:3: b.c: cannot be read: ")


def test_what_is_wrong_with_the_whole_file_has_its_line_alone(refused):
    assert refused("{[a]: 1}\n") == ["a.yaml:1: has a key that is not text; expected name: value"]


@pytest.mark.parametrize("text", ["a: &x {b: *x}\n", "a: &x [*x]\n"])
def test_a_value_that_contains_itself_is_refused(refused, text):
    assert refused(text)


# --- reading values ------------------------------------------------------------------------------------


def test_numbers(read):
    section = read("a: 3\nb: true\nc: x\nd: -1\n")

    def number(key):
        return section.number(key, 7, lambda v: v > 0, "a number above 0")

    assert [number(key) for key in ("a", "none")] == [3, 7]
    assert not section.problems
    assert [number(key) for key in "bcd"] == [7, 7, 7]
    assert [p.found for p in section.problems] == ["got True", "got 'x'", "got -1"]


@pytest.mark.parametrize(
    "value",
    [".inf", "-.inf", ".nan"],
)
def test_whole_numbers_are_finite(read, value):
    section = read(f"a: {value}\n")
    assert section.number("a", 7, lambda v: v >= 0 and v == int(v), "a whole number") == 7
    assert len(section.problems) == 1


def test_flags(read):
    section = read("a: true\nb: 1\n")
    assert [section.flag(key, default=False) for key in ("a", "b", "none")] == [True, False, False]
    assert [str(p).rpartition("/")[2] for p in section.problems] == ["a.yaml:2: b: got 1; expected true or false"]


@pytest.mark.parametrize("choices", [("red", "blue"), {"red": 1, "blue": 2}])
def test_choices(read, choices):
    section = read("a: red\nb: bleu\nc: [red]\nd: {red: 1}\ne: 3\n")
    assert section.one_of("a", choices, "blue") == "red"
    assert section.one_of("none", choices, "blue") == "blue"
    assert not section.problems
    assert [section.one_of(key, choices, "blue") for key in "bcde"] == ["blue"] * 4
    assert len(section.problems) == 4
    assert section.problems[0].expected == "did you mean 'blue'?"


def test_a_section_that_is_no_mapping(read):
    section = read("a: 3\n")
    assert section.section("a").names() == []
    assert [p.expected for p in section.problems] == ["expected a mapping"]


def test_what_nobody_asked_for_is_unknown(read):
    section = read("a: 1\nmethdo: 2\n")
    section.raw("a")
    section.raw("method")
    section.finish()
    assert [str(p).rpartition("/")[2] for p in section.problems] == [
        "a.yaml:2: methdo: unknown key; did you mean 'method'?"
    ]
