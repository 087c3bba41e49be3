"""One emulator for the tests of the worker's processes, and a bucket for sources and results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.emulator import running_emulator, s3_client, s3_environment

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_emulator(tmp_path_factory.mktemp("emulator")) as url:
        yield url


@pytest.fixture(scope="module")
def s3(endpoint: str) -> Iterator[S3Client]:
    client = s3_client(endpoint)
    for bucket in ("sources", "cache"):
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    yield client
    client.close()


@pytest.fixture
def at_the_emulator(endpoint: str, s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes started by the test find the emulator where they would find AWS."""
    assert s3
    for name, value in s3_environment(endpoint).items():
        monkeypatch.setenv(name, value)
