#!/bin/sh
# Writes a dump of one database to its output, also while it is in use: dump.sh mlflow > mlflow.dump
set -eu
PGPASSWORD=$(cat "${SECRETS:-/run/secrets}/postgres_password")
export PGPASSWORD
exec pg_dump --host "${PGHOST:-127.0.0.1}" --username "${POSTGRES_USER:-postgres}" --format custom "$1"
