"""What onlookers read of the control table, in moto and in the emulator: states, order, pages and where they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

from cli.jobs import listed
from fleetcap import keys
from fleetcap.adapters.survey import Survey
from fleetcap.model import Holder, Job, JobStatus, Lease, SlotId
from tests.emulator import running_emulator
from tests.examples import NOW, a_job, a_pool
from tests.fakes import Lines, make_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ENDED = [status for status in JobStatus if status.ended]
HOLDER = Holder(Lease(SlotId("default", 0), 1))


@pytest.fixture(params=["moto", pytest.param("ministack", marks=pytest.mark.cloud)])
def survey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survey]:
    if request.param == "moto":
        with mock_aws():
            yield filled(client_of(None))
        return
    with running_emulator(tmp_path_factory.mktemp("emulator")) as endpoint, closing(client_of(endpoint)) as client:
        yield filled(client)


def client_of(endpoint: str | None) -> DynamoDBClient:
    return boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def filled(client: DynamoDBClient) -> Survey:
    """Two jobs queued, one waiting, one running, one failed, three completed, one of another pool; and two slots."""
    make_table(client, "control")
    table = Survey(client, "control")
    table.create_slots([SlotId("default", 0), SlotId("default", 1)], NOW)
    for number in range(2):
        table.put(a_job(f"queued/{number}", age_s=10 - number, due_at=NOW + 3_600), None, f"q{number}")
    table.put(a_job("waiting/1", JobStatus.WAITING), None, "w")
    put_running(table, a_job("running/1"))
    failed = put_running(table, a_job("failed/1"))
    table.finish(failed, JobStatus.FAILED, NOW + 5, "input: bad", (), "f")
    for number, pool in enumerate(("default", "default", "other")):
        done = replace(a_job(f"done/{number}"), status=JobStatus.COMPLETED, pool=pool, ended_at=NOW + number)
        table.put(done, None, f"d{number}")
    return table


def put_running(table: Survey, job: Job) -> Job:
    table.put(job, None, job.key)
    running = table.claim(job, HOLDER, NOW, f"claim {job.key}")
    assert running
    return running


def keys_of(jobs: list[Job]) -> list[str]:
    return [job.key for job in jobs]


def test_running_jobs_come_first_then_queued_ones_by_rank_then_waiting_ones_then_the_last_to_end(
    survey: Survey,
) -> None:
    found = listed(survey, [a_pool(), a_pool(name="other")], set(JobStatus), "", 50)
    assert found.whole
    assert keys_of(found.jobs) == [
        "running/1", "queued/0", "queued/1", "waiting/1", "failed/1", "done/2", "done/1", "done/0",
    ]  # fmt: skip

    few = listed(survey, [a_pool(), a_pool(name="other")], set(JobStatus), "", 3)
    assert (keys_of(few.jobs), few.whole) == (["running/1", "queued/0", "queued/1"], False)

    waiting = listed(survey, [a_pool()], {JobStatus.WAITING}, "", 50)
    assert keys_of(waiting.jobs) == ["waiting/1"]

    failed = listed(survey, [a_pool()], {JobStatus.FAILED}, "", 50)
    assert (keys_of(failed.jobs), failed.whole) == (["failed/1"], True)

    other = listed(survey, [a_pool(name="other")], set(JobStatus), "other", 50)
    assert keys_of(other.jobs) == ["done/2"]

    one = survey.unended([a_pool()], 1)
    assert (sorted(keys_of(one.jobs)), one.whole) == (["queued/0", "running/1"], False)


def test_a_scan_goes_from_page_to_page_and_says_when_it_was_cut_off(survey: Survey) -> None:
    whole = survey.ended(ENDED, page=2)
    assert (len(whole.jobs), whole.whole) == (4, True)
    cut = survey.ended(ENDED, items=4, page=2)
    assert (len(cut.jobs) <= 4, cut.whole) == (True, False)


def test_a_job_that_cannot_be_read_is_named_and_the_others_are_listed(survey: Survey) -> None:
    table = Survey(survey._dynamo._client, "control", lines := Lines())
    for key in ("queued/0", "running/1", "done/0"):
        item = survey._dynamo.get(keys.job_key(key))
        assert item
        assert survey._dynamo.put(keys.Put("", {**item, "request": "{"}, keys.WHATEVER)).accepted
    for _ in range(2):
        found = listed(table, [a_pool(), a_pool(name="other")], set(JobStatus), "", 50)
        assert [job.key for job in found.jobs] == ["queued/1", "waiting/1", "failed/1", "done/2", "done/1"]
    assert sorted(str(line["key"]) for line in lines.of("unreadable")) == ["done/0", "queued/0", "running/1"]
    with pytest.raises(keys.Unreadable, match="queued/0 cannot be read"):
        table.job("queued/0")
