#!/usr/bin/env bash
# Everything that needs no running part, each step whether or not the one before it passed: what failed is listed last.
#   scripts/check.sh "libs/common services/jobs-service"
set -uo pipefail
cd "$(dirname "$0")/.."
failed=()
step() {
  local name=$1
  shift
  if output=$("$@" 2>&1); then
    echo "passed  $name"
  else
    failed+=("$name")
    printf 'FAILED  %s\n%s\n' "$name" "$output"
  fi
}
step "lock" uv lock --check
step "format" ruff format --check .
step "lint" ruff check .
step "imports" lint-imports
for member in $1; do
  step "types $member" bash scripts/member.sh "$member" mypy "$member/src"
done
step "workflows" check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
step "workflows' security" zizmor --offline --quiet --no-progress .github/workflows
step "links" python scripts/links.py
step "documented" python scripts/documented.py
step "observed" python scripts/observed.py
step "diagrams" python scripts/diagram.py --check
if command -v promtool >/dev/null; then # of Prometheus: `apt install prometheus`
  step "alerts" promtool test rules infra/prometheus/alerts_test.yml
  step "alerts' form" promtool check rules --lint-fatal infra/prometheus/alerts.yml
else
  echo "skipped alerts: there is no promtool"
fi
if [ ${#failed[@]} -gt 0 ]; then
  printf '\n%s failed:\n' "${#failed[@]}"
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
