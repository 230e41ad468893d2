#!/usr/bin/env bash
# Runs the tests of every member, two at a time, since they wait as much as they compute. Ends with a line a member: what
# passed, what failed, in how many seconds.
#   scripts/each.sh "libs/common services/jobs-service" [pytest arguments]
set -uo pipefail
cd "$(dirname "$0")/.."
members=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run() { # member [pytest arguments]
  local member=$1 name=${1//\//-} started=$SECONDS result=FAILED
  printf '== %s begins\n' "$member"
  bash scripts/test.sh "$@" >"$work/$name.log" 2>&1 && result="passed"
  printf '%s  %s, %s s\n' "$result" "$member" "$((SECONDS - started))" >"$work/$name.result"
  printf '\n== %s\n%s\n\n' "$member" "$(cat "$work/$name.log")"
}

lane() { # takes the next member that nobody has taken, until there is none
  local member
  trap 'exit 130' INT
  for member in $members; do
    mkdir "$work/${member//\//-}" 2>/dev/null && run "$member" "$@"
  done
}

set -m # each lane is a process group, which Ctrl-C ends as it would end a single run
trap 'for lane in $(jobs -p); do kill -INT -- "-$lane"; done; wait; exit 130' INT TERM
lane "$@" &
lane "$@" &
wait
printf '\n'
for member in $members; do cat "$work/${member//\//-}.result"; done
! grep -q FAILED "$work"/*.result
