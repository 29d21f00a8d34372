#!/bin/sh
# Replaces what is in one database by a dump, whole or not at all: load.sh mlflow < mlflow.dump
# What uses the database has to be stopped before.
set -eu
PGPASSWORD=$(cat "${SECRETS:-/run/secrets}/postgres_password")
export PGPASSWORD
exec pg_restore --host "${PGHOST:-127.0.0.1}" --username "${POSTGRES_USER:-postgres}" --dbname "$1" \
    --clean --if-exists --exit-on-error --single-transaction
