#!/bin/sh
# Two databases, each with a role of its own that reaches only that one. The image runs this when its volume is new.
set -eu
export SECRETS="${SECRETS:-/run/secrets}"

# psql reads the passwords itself, so they are in no list of processes; a statement that fails is not logged.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres << 'END'
SET log_min_error_statement = panic;
\set studies `cat "$SECRETS/studies_password"`
\set mlflow `cat "$SECRETS/mlflow_db_password"`
CREATE ROLE sweeps LOGIN PASSWORD :'studies';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE sweeps OWNER sweeps;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE ALL ON DATABASE sweeps, mlflow, postgres, template1 FROM PUBLIC;
END
