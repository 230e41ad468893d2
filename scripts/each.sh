#!/usr/bin/env bash
# Runs the tests of every member, one after another, and ends with a line a member: what passed, what failed.
#   scripts/each.sh "libs/common services/jobs-service" [pytest arguments]
set -uo pipefail
cd "$(dirname "$0")/.."
members=$1
shift
failed=()
for member in $members; do
  printf '\n== %s\n' "$member"
  bash scripts/test.sh "$member" "$@" || failed+=("$member")
done
printf '\n'
for member in $members; do
  case " ${failed[*]-} " in *" $member "*) echo "FAILED  $member" ;; *) echo "passed  $member" ;; esac
done
[ ${#failed[@]} -eq 0 ]
