#!/usr/bin/env bash
# Builds all images, brings compose up from nothing as a project of its own, beside whatever else runs, does the main job
# through its gateway, and takes it away with its data. Says how long each step took; on a failure, what the parts wrote.
#   scripts/compose-smoke.sh [what runs compose, `docker compose` unless it is said]
set -euo pipefail
cd "$(dirname "$0")/.."
run=("$@")
[ $# -gt 0 ] || run=(docker compose)
port=${SMOKE_PORT:-18000} # this and the five after it
compose() { "${run[@]}" -p triton-smoke -f compose/docker-compose.yml "$@"; }

work=$(mktemp -d)
finish() {
  status=$?
  [ "$status" = 0 ] || compose logs --no-color --tail=100 || true
  compose down --volumes --remove-orphans >"$work/down.log" 2>&1 || cat "$work/down.log"
  rm -rf "$work"
  exit "$status"
}

uv run triton secrets init --file "$work/env"
set -a # by the environment, which every compose reads and which comes before a .env that is there
. "$work/env"
TRITON_VERSION=smoke TRITON_PORT=$port TRITON_AGENTOS_PORT=$((port + 1)) TRITON_FLOWER_PORT=$((port + 2))
TRITON_PROMETHEUS_PORT=$((port + 3)) TRITON_GRAFANA_PORT=$((port + 4)) TRITON_JAEGER_PORT=$((port + 5))
set +a
trap finish EXIT
trap 'exit 130' INT TERM

compose build
printf 'built, %s s\n' "$SECONDS"
compose up -d --wait
printf 'up, %s s\n' "$SECONDS"
uv run triton smoke "http://127.0.0.1:$port" --env-file "$work/env" --state "$work/none"
printf 'done, %s s\n' "$SECONDS"
