"""The house rules: floors and rooms, what start-up imports, and that docs, YAMLs and options are true."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from tests import grammar
from tests.bench import __main__ as bench
from tests.conftest import ByFileWithFixtures
from tests.maps import MAP, file_map

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "search_spaces").glob("*.yaml"))
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "mlflow",
    "optuna",
    "onnxruntime",
    "numpy",
    "rich",
    "yaml",
    "fastapi",
)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout


def test_floors_and_rooms_are_kept():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


BORDER = {"trainers.protocol", "trainers.metrics", "trainers.runtime"}
"""What hpo may see of trainers."""


def test_the_border_is_closed_to_all_else_of_trainers():
    """The contract has to name what is forbidden: a new wing is none that it names."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["name"] == "hpo sees only the border of trainers"]
    entries = [*(ROOT / "trainers").glob("[a-z]*.py"), *(p.parent for p in (ROOT / "trainers").glob("*/__init__.py"))]
    wings = {f"trainers.{entry.stem}" for entry in entries}
    assert wings - BORDER == set(contract["forbidden_modules"])


def test_no_file_is_long_without_its_reason_on_top():
    files = [p for room in ("hpo", "trainers") for p in (ROOT / room).rglob("*.py")]
    long = [p for p in files if len(p.read_text().splitlines()) > 350]
    assert not [p for p in long if "why it is long" not in p.read_text()[:1000]]


@pytest.mark.parametrize("room", ["hpo", "trainers"])
def test_a_wing_s_init_is_empty_or_one_sentence(room):
    for file in (ROOT / room).rglob("*/__init__.py"):
        text = file.read_text().strip()
        assert not text or (text.count('"""') == 2 and text.endswith('."""') and ". " not in text), file


def test_help_imports_nothing_heavy():
    loaded = python(
        "import sys; from hpo.cli.main import cli\n"
        "try: cli(['--help'], standalone_mode=False)\n"
        "finally: print('\\nLOADED', *sorted({m.split('.')[0] for m in sys.modules}))"
    ).split("LOADED")[1]
    assert not set(loaded.split()) & set(HEAVY)


def test_who_reads_a_sweep_imports_little():
    """Most of what a person waits for at `hpo show` of a usual sweep is imports."""
    late = {"scipy", "jinja2", "yaml", "sqlalchemy", "optuna", "importlib.metadata", "http.client"}
    late |= {"hpo.config.nightly", "trainers.protocol.requests", "subprocess"}
    reading = "import sys, hpo.terminal\nfrom hpo.commands import show, ui_link\n"
    loaded = python(f"{reading}print(*sys.modules)").split()
    assert not set(loaded) & {*late, "numpy"}
    loaded = python("import sys\nfrom hpo.commands import report\nprint(*sys.modules)").split()
    assert not set(loaded) & {*late - {"subprocess"}, "rich"}


def test_the_sweep_process_never_loads_torch():
    rooms = (
        "hpo.commands.sweep, hpo.commands.predict, hpo.tracking.mlflow_tracker, hpo.tracking.tensorboard,"
        "hpo.release.registry"
    )
    loaded = python(f"import sys, {rooms}; print(*{{m.split('.')[0] for m in sys.modules}})")
    assert not set(loaded.split()) & {"torch", "transformers", "peft", "datasets", "bitsandbytes"}


def test_commands_that_write_no_run_do_without_mlflow():
    """It takes two seconds to import: `hpo show` and every error of a file come before it."""
    loaded = python(
        "import sys\nfrom hpo.commands import sweep, plan, check, stop, sync\n"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert "optuna" in loaded.split()
    assert "mlflow" not in loaded.split()


def test_readers_do_without_optuna_and_the_libraries_of_servers():
    """Each would take longer to import than ten thousand trials to read."""
    loaded = python(
        "import sys\nfrom hpo.commands import query, report, show\nimport hpo.terminal\n"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    assert not set(loaded.split()) & {"mlflow", "optuna", "sqlalchemy", "psycopg"}


def test_the_serving_process_loads_neither_torch_nor_mlflow():
    loaded = python("import sys, hpo.serving.process\nprint(*{m.split('.')[0] for m in sys.modules})").split()
    assert "uvicorn" in loaded
    assert not set(loaded) & {"torch", "transformers", "peft", "datasets", "mlflow", "optuna", "yaml"}


def test_the_border_is_standard_library_only():
    loaded = python(
        "import sys, trainers.protocol.messages, trainers.protocol.catalog, trainers.host.fake, trainers.host.host\n"
        "print(*{m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names))"
    )
    foreign = {name for name in loaded.split() if not name.startswith(("_", "trainers", "sitecustomize"))}
    assert not foreign


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.name)
def test_a_shipped_sweep_loads_and_names_its_command_first(path, tmp_path, monkeypatch):
    from hpo.config import model_and_data as inputs
    from hpo.config.file import load_config
    from hpo.paths import Home

    model, data = tmp_path / "model", tmp_path / "d.jsonl"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").touch()
    data.touch()

    def fetched(name: str, home: Path) -> Path:
        from hpo.demo.assets import ASSETS

        return model if ASSETS[name].kind == "model" else data

    monkeypatch.setattr(inputs, "fetched_path", fetched)
    loaded = load_config(path, Home(tmp_path))
    assert loaded.name == path.stem
    assert path.read_text().splitlines()[0] == f"# hpo sweep search_spaces/{path.name}"


def test_every_yaml_in_the_grammar_page_is_a_valid_sweep(tmp_path, monkeypatch):
    test = test_a_shipped_sweep_loads_and_names_its_command_first
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "search_spaces/README.md").read_text(), re.S)
    assert blocks
    for number, block in enumerate(blocks):
        name = yaml.safe_load(block).get("name", "sweep")
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"# hpo sweep search_spaces/{name}.yaml\n{block}")
        with monkeypatch.context() as patch:
            (tmp_path / str(number)).mkdir()
            test(path, tmp_path / str(number), patch)


def test_every_setting_metric_and_method_is_documented():
    from trainers.protocol.catalog import METHODS, METRICS, TASKS
    from trainers.protocol.settings import ALIASES, FIELDS, UNNEEDED

    page = (ROOT / "search_spaces/README.md").read_text()
    names = [*FIELDS, *ALIASES, *UNNEEDED, *METHODS, *METRICS, *TASKS]
    assert not [name for name in names if f"`{name}`" not in page]


def test_the_tables_of_the_grammar_page_are_the_declarations():
    """`python -m tests.grammar` writes them."""
    text = grammar.PAGE.read_text()
    assert [name for name, *_ in grammar.TABLE.findall(text)] == list(grammar.TABLES)
    assert grammar.page(text) == text


def test_documented_defaults_are_the_catalogs():
    """Rows of the settings table: | `name` | default | ... |"""
    from trainers.protocol.settings import FIELDS

    page = (ROOT / "search_spaces/README.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| ([^|]+?) \|", page, re.M))
    for name, field in FIELDS.items():
        default = "-" if field.default is None else str(field.default).lower()
        if field.type in (int, float) and field.default is not None:
            default = f"{field.default:g}"
        assert rows[name] == default, name


def every_command(group, before=""):
    """Each command by its words; a group's own commands follow it."""
    for name, command in group.commands.items():
        yield before + name, command
        if isinstance(command, click.Group):
            yield from every_command(command, f"{before}{name} ")


def test_every_command_and_option_is_in_the_page_of_commands():
    from hpo.cli.main import cli

    readme = (ROOT / "hpo/cli/README.md").read_text()
    for name, command in every_command(cli):
        assert f"hpo {name}" in readme, name
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}" in readme or f" {option}" in readme, option


@pytest.mark.parametrize(
    "page", sorted(str(p.relative_to(ROOT)) for p in [ROOT / "README.md", *ROOT.glob("hpo/*/README.md")])
)
def test_every_command_in_a_page_exists(page):
    """Lines of code blocks that start with `hpo` or `make` name real commands, targets, options and files."""
    from hpo.cli.main import cli

    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    text = (ROOT / page).read_text()
    lines = [
        line.strip() for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.S) for line in block.splitlines()
    ]
    commands = [line.split("#")[0].split() for line in lines if line.startswith(("hpo ", "make "))]
    assert len(commands) >= 6 or page != "README.md"
    for words in commands:
        if words[0] == "make":
            assert words[1] in targets, words
            continue
        names = dict(every_command(cli))
        command = names.get(" ".join(words[1:3])) or names[words[1]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options | {"--home"}, words
        assert all((ROOT / word).exists() for word in words if word.startswith("search_spaces/")), words


@pytest.mark.parametrize("room", ["hpo", "trainers"])
def test_the_maps_name_every_wing_and_file(room):
    """`python -m tests.maps` writes them; a wing says what it is in its `__init__.py`."""
    (found,) = MAP.findall((ROOT / room / "README.md").read_text())
    assert found == file_map(room)
    assert not re.findall(rf"^\| `{room}/\w*/?` \| +\|$", found, re.M)


def test_every_bench_is_listed_and_starts():
    assert bench.__doc__ is not None
    listed = set(re.findall(r"^python -m tests\.bench (\S+)", bench.__doc__, re.MULTILINE))
    assert listed == set(bench.TABLES)
    for name in bench.TABLES:
        assert bench.arguments().parse_args([name]).what == [name]


def test_no_name_means_the_tables_of_make_bench(monkeypatch):
    begun = []

    def run(command):
        begun.append(command[3])
        return subprocess.CompletedProcess(command, returncode=0)

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["bench"])
    with pytest.raises(SystemExit, match=r"^0$"):
        bench.main()
    assert tuple(begun) == bench.USUAL


def test_a_table_that_fails_loses_no_other(monkeypatch, capsys):
    """Each is made by a process of its own, with the options that were given."""
    given = bench.arguments().parse_args(["race", "serve", "nights", "--years", "3", "--llama-server", "llama -server"])
    begun = []

    def run(command):
        begun.append(bench.arguments().parse_args(command[3:]))
        return subprocess.CompletedProcess(command, returncode=1 if "serve" in command else 0)

    monkeypatch.setattr(bench.subprocess, "run", run)
    assert bench.shown_in_turn(given.what, given) == ["serve"]
    assert [each.what for each in begun] == [["race"], ["serve"], ["nights"]]
    assert all({**vars(each), "what": given.what} == vars(given) for each in begun)
    assert capsys.readouterr().out.split() == given.what

    monkeypatch.setattr(sys, "argv", ["bench", "race", "serve"])
    with pytest.raises(SystemExit, match="failed: serve"):  # a text: the exit code is 1
        bench.main()


def test_what_a_message_or_page_says_to_install_is_what_the_project_asks_for():
    """And never hpo by its own name: no package index has this project, and what has its name there is another one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())}
    files = [*(p for room in ("hpo", "trainers") for p in (ROOT / room).rglob("*.py")), *ROOT.glob("hpo/*/README.md")]
    named = {name for file in files for name in re.findall(r"pip install '([^']+)'", file.read_text())}
    assert len(named) > 1
    assert named - {"mlflow[auth]"} <= wanted  # on the server of a team, which need not have hpo


def test_the_lock_pins_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[<>=\[]", line)[0].lower() for line in wanted}
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^ ]+", line) for line in lines)
    assert not names - {line.split("==")[0].lower() for line in lines}


@pytest.mark.xdist_group("its-group")
def test_tests_of_a_group_stay_in_one_process_and_in_their_order(pytestconfig, request):
    """A group's tests share a server; with xdist's own order, the test that takes minutes would not begin first. What
    tells the groups apart is what xdist adds to the id of a test, which not every pytest takes note of."""
    if hasattr(pytestconfig, "workerinput"):
        assert request.node.nodeid.endswith("@its-group")
    scope = functools.partial(ByFileWithFixtures._split_scope, None)
    assert scope("tests/hpo/executors/test_rules.py::test_a[ray]@ray") == "ray"
    assert scope("tests/test_house.py::test_a[x@y]") == "tests/test_house.py::test_a[x@y]"
    assert scope("tests/hpo/commands/test_damaged_files.py::test_a") == "tests/hpo/commands/test_damaged_files.py"
    assert not pytestconfig.getoption("loadscopereorder")


def test_studies_are_written_through_one_door():
    """It asks for the lease of the sweep where a server has its study. Tables are made and upgraded beside it."""
    files = [p for p in (ROOT / "hpo").rglob("*.py") if "RDBStorage(" in p.read_text()]
    assert {p.name for p in files} == {"storage.py", "schema.py"}


def test_nothing_loads_a_pickle():
    """No code of ours unpickles or turns remote code on: `torch.load`, `pickle`, unsafe YAML, allow_pickle."""
    forbidden = re.compile(
        r"\bpickle\.|torch\.load|yaml\.(load|unsafe_load|full_load)\(|allow_pickle=True|trust_remote_code=True"
    )
    files = [p for room in ("hpo", "trainers") for p in (ROOT / room).rglob("*.py")]
    assert not [str(p) for p in files if forbidden.search(p.read_text())]
