#!/usr/bin/env bash
# Runs one member's tests in its own environment. All of them together are measured, and must cover 90 % of its branches:
#   scripts/test.sh services/jobs-service [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
member=$1
shift
if [ $# -gt 0 ]; then
  exec bash scripts/member.sh "$member" pytest "$member/tests" "$@"
fi
export COVERAGE_FILE="$PWD/.venvs/coverage/$(basename "$member")/data"
rm -rf "$(dirname "$COVERAGE_FILE")"
mkdir -p "$(dirname "$COVERAGE_FILE")"
# SQLAlchemy runs what it awaits in greenlets. Only where that is so: to look for them in each of many threads makes Python
# 3.11 stand still now and then (a traced call-back among pending calls is begun again and again)
greenlets=""
! grep -rqw AsyncSession "$member/src" || greenlets="--concurrency=greenlet,thread"
bash scripts/member.sh "$member" coverage run $greenlets --source="$PWD/$member/src" -m pytest "$member/tests"
bash scripts/member.sh "$member" coverage combine --quiet
bash scripts/member.sh "$member" coverage report
