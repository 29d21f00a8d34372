#!/bin/sh
# Begins the given command with secrets from files: NAME_FILE=PATH gives it the variable NAME with what is in the file,
# so that no secret is in the description of a container.
set -eu

wrong=
for name in PGPASSWORD MLFLOW_TRACKING_PASSWORD MLFLOW_TRACKING_TOKEN MLFLOW_AUTH_ADMIN_PASSWORD \
    MLFLOW_FLASK_SERVER_SECRET_KEY AWS_SECRET_ACCESS_KEY HF_TOKEN; do
    eval "file=\${${name}_FILE-} given=\${$name-}"
    if [ -z "$file" ]; then
        continue
    elif [ -n "$given" ]; then
        echo "error: $name and ${name}_FILE are both set; expected one of them" >&2
        wrong=yes
    elif ! [ -r "$file" ]; then
        echo "error: ${name}_FILE: $file cannot be read by user $(id -u); expected a file with the secret" >&2
        wrong=yes
    else
        value=$(cat "$file")
        export "$name=$value"
        unset "${name}_FILE"
    fi
done
[ -z "$wrong" ] || exit 2
exec "$@"
