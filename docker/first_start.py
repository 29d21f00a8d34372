"""What the stack needs once its servers run: the bucket for artifacts, and the login of the sweeps on MLflow's server.

Run again, it changes nothing, except that the login gets the password that is in its file now.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import boto3
import requests

BUCKET = "mlflow"
TIMEOUT_S = 30


def make_bucket() -> None:
    """boto3 reads AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY by itself."""
    storage = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    if BUCKET not in [bucket["Name"] for bucket in storage.list_buckets()["Buckets"]]:
        storage.create_bucket(Bucket=BUCKET)


def make_login(server: str, admin: tuple[str, str], name: str, password: str) -> None:
    """Raises `requests.HTTPError` where the server refuses it; the error has no password."""
    login = {"username": name, "password": password}
    users = f"{server}/api/2.0/mlflow/users"
    answer = requests.post(f"{users}/create", json=login, auth=admin, timeout=TIMEOUT_S)
    if answer.status_code == 400 and answer.json().get("error_code") == "RESOURCE_ALREADY_EXISTS":
        answer = requests.patch(f"{users}/update-password", json=login, auth=admin, timeout=TIMEOUT_S)
    answer.raise_for_status()


if __name__ == "__main__":
    make_bucket()
    secret_file = Path(sys.argv[1])
    make_login(
        os.environ["MLFLOW_TRACKING_URI"],
        (os.environ["MLFLOW_AUTH_ADMIN_USERNAME"], os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]),
        "sweeps",
        secret_file.read_text().strip(),
    )
    print(f"the bucket {BUCKET} and the login sweeps are there")
