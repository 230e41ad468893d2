# Every command that people, hooks and CI run: `uv run just NAME`.

set shell := ["bash", "-euo", "pipefail", "-c"]

# the long ones first, so that the lanes of `just test` end together
members := "libs/cli services/jobs-service services/auth-service services/analytics-service libs/trials services/agent-runner libs/common services/console"

# what there is
default:
    @just --list --unsorted

# the main job on embedded servers
demo *ARGS:
    uv run triton demo {{ ARGS }}

# the main job on a platform that runs: just smoke https://triton.example
smoke URL="http://localhost:8000" *ARGS:
    @uv run triton smoke {{ URL }} {{ ARGS }}

# compose from nothing, beside whatever runs, and the main job through it
compose-smoke *COMPOSE:
    @bash scripts/compose-smoke.sh {{ COMPOSE }}

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

# write a service's next migration from its models: just revision jobs-service "add a column"
revision SERVICE MESSAGE:
    @bash scripts/member.sh services/{{ SERVICE }} python scripts/revision.py services/{{ SERVICE }} {{ quote(MESSAGE) }}
    @ruff check --fix --quiet services/{{ SERVICE }}/migrations/versions
    @ruff format --quiet services/{{ SERVICE }}/migrations/versions

# bring the database of DATABASE_URL to a service's newest migration, or up to another: just migrate jobs-service 0005
migrate SERVICE TO="head":
    @bash scripts/member.sh services/{{ SERVICE }} alembic -c services/{{ SERVICE }}/pyproject.toml upgrade {{ quote(TO) }}

# take a service's last migration back, or all down to another
rollback SERVICE TO="-1":
    @bash scripts/member.sh services/{{ SERVICE }} alembic -c services/{{ SERVICE }}/pyproject.toml downgrade {{ quote(TO) }}

# whether a service's migrations have all that its models have, by the database of DATABASE_URL
check-migrations SERVICE:
    @bash scripts/member.sh services/{{ SERVICE }} alembic -c services/{{ SERVICE }}/pyproject.toml check

# write docs/openapi from the code
openapi:
    @for member in auth-service jobs-service analytics-service agent-runner console; do bash scripts/member.sh services/$member python -m triton_common.openapi $member; done

# draw the tables of all models into docs/DATABASE.md
diagram:
    @uv run python scripts/diagram.py
