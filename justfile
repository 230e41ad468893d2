# Every command that people, hooks and CI run: `uv run just NAME`.

set shell := ["bash", "-euo", "pipefail", "-c"]

members := "libs/common libs/cli services/auth-service services/jobs-service services/analytics-service services/agent-runner services/console libs/trials"

# what there is
default:
    @just --list --unsorted

# the main job on embedded servers
demo *ARGS:
    uv run triton demo {{ ARGS }}

# the main job on a platform that runs: just smoke https://triton.example
smoke URL="http://localhost:8000" *ARGS:
    @uv run triton smoke {{ URL }} {{ ARGS }}

# every member's tests, each in its own environment; every failure is reported
test *ARGS:
    @bash scripts/each.sh "{{ members }}" {{ ARGS }}

# one member's tests: just test-member services/jobs-service -k claim
test-member MEMBER *ARGS:
    @bash scripts/test.sh {{ MEMBER }} {{ ARGS }}

# mypy strict over one member
types MEMBER:
    @bash scripts/member.sh {{ MEMBER }} mypy {{ MEMBER }}/src

# accidents in the middle of work, ten minutes; one of them: just chaos redis-frozen
chaos *ARGS:
    @bash scripts/member.sh libs/trials python -m triton_trials.chaos {{ ARGS }}

# how fast it is, beside others on the same machine; without a name, what can be measured
bench *ARGS:
    @bash scripts/member.sh libs/trials python -m triton_trials.bench {{ ARGS }}

# everything that needs no running part: reports every failure
check:
    @bash scripts/check.sh "{{ members }}"

# format and mend what can be mended
fix:
    ruff check --fix .
    ruff format .

# formatting and lint
lint:
    ruff format --check .
    ruff check .

# write docs/openapi from the code
openapi:
    @for member in auth-service jobs-service analytics-service agent-runner console; do bash scripts/member.sh services/$member python -m triton_common.openapi $member; done

# draw the tables of all models into docs/DATABASE.md
diagram:
    @uv run python scripts/diagram.py
