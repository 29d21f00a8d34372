"""The stack of `docker/compose.yaml` as processes of this machine: its own commands, variables and secrets.

What is a container there is a program here. PostgreSQL is Debian's, and moto stands in for the S3 server: it writes
down what it is asked, and is asked the same again when it starts anew. Names of hosts and mounted folders are replaced.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests import postgres
from tests.docker.compose import FOLDER, Service, services
from tests.ports import free_port

ROOT = FOLDER.parent
BIN = Path(sys.executable).parent
FAKE_HPO = ["python", "-m", "tests.docker.fake_hpo"]
"""In place of `hpo`: a formula in place of a training, which would take longer than all else here."""


@dataclass
class Stack:
    """The services, each started and killed by its name. `start` waits until a server answers."""

    folder: Path
    database: postgres.Server
    mlflow: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    objects: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=services)
    """As the file describes them."""

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()

    def all_secrets(self) -> list[str]:
        """Every word that no log and no file may have. The superuser's is that of the tests' own server."""
        keys = [line.split(":")[1] for line in self.secret("serve_keys").splitlines()]
        left_out = ("serve_keys", "objects.json", "studies_url", "postgres_password")
        return [*keys, *(path.read_text() for path in self.secrets.iterdir() if path.name not in left_out)]

    def prepare(self) -> None:
        """Secrets, folders and databases, by the scripts that make them for the containers."""
        for folder in (self.folder, self.home, self.logs, self.folder / "sweeps", self.folder / "mlflow"):
            folder.mkdir()
        self.script("new-secrets.sh", self.secrets)
        url = self.secrets / "studies_url"
        url.write_text(self.here(url.read_text()))
        ini = (FOLDER / "mlflow" / "basic_auth.ini").read_text()
        (self.folder / "mlflow" / "basic_auth.ini").write_text(self.here(ini))
        (self.secrets / "postgres_password").write_text(postgres.PASSWORD)
        self.script("postgres/init/10-databases.sh")

    def script(self, name: str, *arguments: object, given: bytes = b"") -> bytes:
        """What a script of the folder prints, run as in the container of PostgreSQL."""
        env = {
            "SECRETS": str(self.secrets), "POSTGRES_USER": postgres.USER, "PGPASSWORD": postgres.PASSWORD,
            "PGHOST": "127.0.0.1", "PGPORT": str(self.database.port), "PATH": f"{self.database.programs}:/usr/bin:/bin",
        }  # fmt: skip
        done = subprocess.run([FOLDER / name, *map(str, arguments)], env=env, input=given, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def here(self, text: str) -> str:
        """A text of the compose file with the places of this machine."""
        places = {
            "localhost:5000,127.0.0.1:5000": self.mlflow, "postgres:5432": f"127.0.0.1:{self.database.port}",
            "objects:8333": self.objects, "mlflow:5000": self.mlflow, "--host=0.0.0.0": "--host=127.0.0.1",
            "--port=5000": f"--port={self.mlflow.rpartition(':')[2]}", "--workers=2": "--workers=1",
            "/run/secrets": str(self.secrets),
            "/etc/mlflow": str(self.folder / "mlflow"), "/etc/hpo": str(FOLDER), "/sweeps/": f"{self.folder}/sweeps/",
        }  # fmt: skip
        for there, place in places.items():
            text = text.replace(there, place)
        return text

    def command(self, name: str) -> list[str]:
        words = [self.here(word) for word in self.services[name].command]
        return [*FAKE_HPO, *words[1:]] if words[0] == "hpo" else words

    def environment(self, name: str) -> dict[str, str]:
        """What a container of this service would have, and nothing of the person who runs the tests."""
        given = {key: self.here(value) for key, value in self.services[name].environment.items()}
        image = {"HPO_HOME": str(self.home), "HOME": str(self.folder), "MLFLOW_DISABLE_TELEMETRY": "true"}
        tests = {"PATH": f"{BIN}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return {**tests, **image, **given}

    def begin(self, name: str, command: list[str] | None = None, env: Mapping[str, str] | None = None) -> None:
        """Start a service, or another command with all that it has; its output is added to its log."""
        command = command or self.command(name)
        with (self.logs / name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(FOLDER / "entrypoint.sh"), *command], env=env or self.environment(name), cwd=self.folder,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def run(self, name: str, command: list[str] | None = None) -> str:
        """As `begin`, and wait for its end; returns what it printed. Fails where it fails."""
        done = subprocess.run(
            [str(FOLDER / "entrypoint.sh"), *(command or self.command(name))], env=self.environment(name),
            cwd=self.folder, capture_output=True, text=True,
        )  # fmt: skip
        with (self.logs / name).open("a") as log:
            log.write(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_objects(self) -> None:
        recording = self.folder / "objects.jsonl"
        env = {
            **self.environment("mlflow"), "MOTO_RECORDER_FILEPATH": str(recording), "MOTO_ENABLE_RECORDING": "true",
        }  # fmt: skip
        host, _, port = self.objects.partition(":")
        is_new = not recording.exists()
        self.begin("objects", ["moto_server", "--host", host, "--port", port], env)
        self.wait_for("objects", f"http://{self.objects}/moto-api/")
        if not is_new:
            ask(f"http://{self.objects}/moto-api/recorder/replay-recording", "POST")

    def start_mlflow(self) -> None:
        self.begin("mlflow")

    def wait_for(self, name: str, url: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.running[name].poll() is None:
            try:
                return ask(url)
            except OSError:
                time.sleep(0.05)
        raise AssertionError((self.logs / name).read_text())

    def wait_for_mlflow(self) -> None:
        self.wait_for("mlflow", f"http://{self.mlflow}/health")

    def kill(self, name: str) -> None:
        """SIGKILL for all processes of a service."""
        process = self.running.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(url: str, method: str = "GET") -> None:
    """Raises `OSError` where the answer is no 200."""
    urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=20).close()  # noqa: S310  # a server of ours
