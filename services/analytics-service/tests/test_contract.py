"""What others build on: the OpenAPI document, settings, errors, metrics; and the mapping files themselves."""

import pytest
from conftest import Prospect
from pydantic import ValidationError
from test_ingest import GOOD, claims

from analytics_service.datasets import COLUMNS
from analytics_service.main import build
from analytics_service.mappings import Rows, sources
from analytics_service.settings import Settings
from triton_common.testing import assert_openapi_matches

ONE_ENGINE = True


def test_openapi_is_the_one_in_docs():
    assert_openapi_matches(build(Settings()), "analytics-service")


async def test_metrics_have_the_promised_names(prospect: Prospect):
    await prospect.send("claims", claims(GOOD, "M-1,C-1,never,other,1,1"), on_error="skip")
    text = (await prospect.http.get("/metrics")).text
    assert 'triton_ingest_rows_total{dataset="claims",outcome="stored"}' in text
    assert 'triton_ingest_rows_total{dataset="claims",outcome="rejected"}' in text


async def test_readiness_names_each_dependency(http):
    ready = (await http.get("/health/ready")).json()
    assert ready["status"] == "ok"
    assert set(ready["dependencies"]) == {"clickhouse", "audit"}


def test_the_secret_is_needed_outside_dev(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    with pytest.raises(ValidationError, match="ANALYTICS_MEMBER_KEY"):
        Settings(environment="prod")


def test_the_password_of_clickhouse_is_a_secret(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:6379/0")
    monkeypatch.setenv("CLICKHOUSE_URL", "http://triton:canary@clickhouse:8123/triton")
    assert "canary" not in repr(Settings())
    with pytest.raises(ValidationError, match="CLICKHOUSE_URL") as refused:
        Settings(environment="prod", member_key="k" * 32)
    assert "canary" not in str(refused.value)
    monkeypatch.setenv("CLICKHOUSE_URL", "http://triton:a-password-of-some-length@clickhouse:8123/triton")
    assert Settings(environment="prod", member_key="k" * 32)
    monkeypatch.setenv("CLICKHOUSE_URL", "chdb:///var/lib/triton/clickhouse")
    assert Settings(environment="prod", member_key="k" * 32)


@pytest.mark.parametrize("dataset", COLUMNS)
@pytest.mark.parametrize("name", ["triton", "synthea", "cms-synpuf"])
def test_a_mapping_fills_what_a_dataset_requires_and_knows_no_other_column(name: str, dataset):
    for rows in sources()[name].rows_of(dataset):
        required = {column.name for column in COLUMNS[dataset] if column.required}
        known = {column.name for column in COLUMNS[dataset]}
        assert required <= set(rows.columns) <= known
        for text in rows.columns.values():
            for part in text if isinstance(text, list) else [text]:
                maps = getattr(part, "map", [])
                assert {maps} if isinstance(maps, str) else set(maps) <= set(sources()[name].maps)


def test_the_triton_mapping_has_every_column():
    for dataset, columns in COLUMNS.items():
        [rows] = sources()["triton"].rows_of(dataset)
        assert rows.columns == {column.name: column.name for column in columns}


def test_a_mapping_with_words_it_does_not_know_is_refused():
    with pytest.raises(ValidationError):
        Rows.model_validate({"rows": "*", "columns": {"member_id": {"sql": "now()"}}})
