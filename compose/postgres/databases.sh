#!/bin/sh
# On an empty volume: a database for each service that has one, owned by a role that reaches no other. Text is UTF-8, and sorts
# the same on every system.
set -eu
for name in auth jobs agents; do
  password=$(printenv "$(echo "$name" | tr '[:lower:]' '[:upper:]')_DB_PASSWORD")
  psql --quiet --set ON_ERROR_STOP=1 --set password="$password" --set name="$name" <<'EOF'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" TEMPLATE template0
  ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C';
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
EOF
done
# One that only measures.
psql --quiet --set ON_ERROR_STOP=1 --set password="$METRICS_DB_PASSWORD" <<'EOF'
CREATE ROLE metrics LOGIN PASSWORD :'password' IN ROLE pg_monitor CONNECTION LIMIT 4;
EOF
