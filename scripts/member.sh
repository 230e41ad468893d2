#!/usr/bin/env bash
# Runs a command in the environment of one member, which has that member's dependencies and no others:
#   scripts/member.sh services/jobs-service pytest services/jobs-service/tests
set -euo pipefail
cd "$(dirname "$0")/.."
member=$1
shift
name=$(basename "$member")
[ "$member" = libs/common ] && name=triton-common
[ "$member" = libs/cli ] && name=triton-cli
[ "$member" = libs/trials ] && name=triton-trials
export UV_PROJECT_ENVIRONMENT=".venvs/$name"
export MYPYPATH="$member/src" # else mypy finds each module twice: by its path and by its installed name
exec uv run --quiet --frozen --package "$name" --group dev "$@"
