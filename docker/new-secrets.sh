#!/bin/sh
# Makes the secrets of compose.yaml, each a file with a random value. It never replaces one that is there.
#   docker/new-secrets.sh [FOLDER]         without FOLDER: docker/secrets
set -eu

folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
cd "$folder"

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

# The containers' own users read the files, but only root and you reach them: the folder is closed to all others.
keep() {
    if [ -e "$1" ]; then
        cat > /dev/null
        echo "kept $folder/$1"
    else
        cat > "$1"
        chmod 0644 "$1"
        echo "made $folder/$1"
    fi
}

for name in postgres_password studies_password mlflow_db_password mlflow_admin_password mlflow_sweeps_password \
    mlflow_server_key objects_key; do
    random | keep "$name"
done
keep studies_url << END
postgresql://sweeps:$(cat studies_password)@postgres:5432/sweeps
END
keep objects.json << END
{"identities": [{"name": "mlflow", "actions": ["Admin:mlflow", "Read:mlflow", "Write:mlflow", "List:mlflow"],
  "credentials": [{"accessKey": "mlflow", "secretKey": "$(cat objects_key)"}]}]}
END
keep serve_keys << END
infer:$(random)
admin:$(random)
END
