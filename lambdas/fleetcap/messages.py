"""The message a producer sends: its schema, its validation, and the submission that it becomes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from fleetcap import limits
from fleetcap.catalog import PROCESSORS, processor_for, refusal
from fleetcap.decide import arrays
from fleetcap.model import Job, OnParentFailure, Pool, Request, Submission
from fleetcap.sources import file_name, https_host, is_s3

_SEGMENT: Final = r"[A-Za-z0-9][A-Za-z0-9._=@+-]{0,127}"
_MD5: Final = r"^[0-9a-f]{32}$"
WORKFLOW_KEY: Final = rf"^{_SEGMENT}(/{_SEGMENT}){{0,7}}$"

Key = Annotated[str, StringConstraints(strict=True, max_length=limits.WORKFLOW_KEY_MAX_CHARS, pattern=WORKFLOW_KEY)]
Name = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
Value = StrictBool | StrictInt | StrictFloat | Annotated[StrictStr, StringConstraints(max_length=1_024)]


_PATTERNS_IN_WORDS: Final = {
    "source": "must read s3://bucket/key or https://host/path",
    "workflow_key": "must be 1 to 8 segments parted by /, each of letters, digits and ._=@+-, a letter or digit first",
    "pool": "must be a small letter followed by small letters, digits and -",
    "tenant": "must be at most 32 letters, digits and ._-, a letter or digit first",
    "md5": "must be 32 small hex digits",
}


_PARAMS_IN_WORDS: Final = (
    "must map names of letters, digits, _ and - to true, false, numbers, or strings of at most 1,024 characters"
)


def _known(processor: str) -> str:
    if processor not in PROCESSORS:
        raise ValueError(f"there is no processor {processor[:64]!r}; there are {', '.join(PROCESSORS)}")
    return processor


def _named_in_the_schema(schema: dict[str, Any]) -> None:
    """A deployment declares processors of its own, so their names are read when they are asked for."""
    schema["anyOf"] = [{"enum": list(PROCESSORS), "type": "string"}, {"type": "null"}]


_ANY_POOL: Final = Pool("", 0)
"""What a message asks of its pool does not matter to who looks at its other fields."""


class Rejected(Exception):
    """The message can never run; the text is the one-sentence reason that is kept with it."""


class _Bucket(BaseModel):
    name: str


class _Object(BaseModel):
    key: str
    etag: str


class _Detail(BaseModel):
    bucket: _Bucket
    object: _Object


class _ObjectCreated(BaseModel):
    """What EventBridge delivers for a new object, as far as it matters here. The key is as it is, without escapes."""

    source: Literal["aws.s3"]
    detail_type: Literal["Object Created"] = Field(alias="detail-type")
    detail: _Detail


class Message(BaseModel):
    """One job. Unknown fields are refused, so that a misspelt one cannot go unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, title="Fleetcap job message")

    source: Annotated[str, StringConstraints(strict=True, max_length=limits.SOURCE_MAX_CHARS)] = Field(
        description="The input: s3://bucket/key, or https://host/path on an allow-listed host.",
        pattern=r"^(s3|https)://.+$",
    )
    processor: Annotated[str, StringConstraints(strict=True), AfterValidator(_known)] | None = Field(
        default=None,
        description="What to do with it; derived from the file name where it is left out.",
        json_schema_extra=_named_in_the_schema,
    )
    workflow_key: Annotated[str, StringConstraints(strict=True)] | None = Field(
        default=None,
        max_length=limits.WORKFLOW_KEY_MAX_CHARS,
        pattern=WORKFLOW_KEY,
        description="The mutex: at most one active run per key, one result per key. Like namespace/id/md5/v1; derived "
        "from source, md5, processor and params where it is left out. A changed source is a new key.",
    )
    pool: Annotated[str, StringConstraints(strict=True, pattern=r"^[a-z][a-z0-9-]{0,31}$")] = Field(
        default="default", description="The class of workers that runs it."
    )
    priority: Annotated[int, Field(strict=True, ge=limits.PRIORITY_MIN, le=limits.PRIORITY_MAX)] = Field(
        default=limits.PRIORITY_DEFAULT, description="9 goes first, 0 last; equal priorities by age."
    )
    md5: Annotated[str, StringConstraints(strict=True, pattern=_MD5)] | None = Field(
        default=None, description="The source's MD5 in 32 lower-case hex digits; a source that differs is refused."
    )
    params: Annotated[dict[Name, Value], Field(max_length=limits.PARAMS_MAX)] = Field(
        default_factory=dict,
        description="Settings of the processor.",
        json_schema_extra={"additionalProperties": False},
    )
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=limits.ATTEMPTS_LIMIT)] | None = Field(
        default=None, description="How often a job that fails by itself is tried in all; as its pool says, if left out."
    )
    force: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Run again although the result is in the cache, and replace it."
    )
    correlation_id: Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9._:/=@+-]{1,128}$")] | None = (
        Field(default=None, description="A name to find the job's log lines by; SQS's message id where left out.")
    )
    tenant: Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")] | None = Field(
        default=None, description="Whose job it is; tenants share a pool by their weights where the pool says so."
    )
    timeout_s: Annotated[int, Field(strict=True, ge=1, le=limits.TIMEOUT_MAX_S)] | None = Field(
        default=None, description="Seconds that one attempt may take; as its pool says, if left out."
    )
    depends_on: Annotated[tuple[Key, ...], Field(max_length=limits.PARENTS_MAX)] = Field(
        default=(),
        description="Workflow keys of jobs that must have ended before this one runs. One that is not known yet is "
        "waited for.",
        json_schema_extra={"uniqueItems": True},
    )
    on_parent_failure: OnParentFailure = Field(
        default=OnParentFailure.FAIL,
        description="What becomes of the job if one of them ends FAILED or CANCELLED: it fails too, or runs all the "
        "same once all have ended.",
    )
    array: Annotated[int, Field(strict=True, ge=2, le=limits.ARRAY_MAX)] | None = Field(
        default=None,
        description="So many jobs, one for each value of {index} from 0 on in source and params. Their keys are this "
        "one's with /index behind, and this one ends when all of them have.",
    )

    @model_validator(mode="after")
    def _source_and_processor(self) -> Self:
        if self.source.startswith("https:"):
            try:
                https_host(self.source)
            except ValueError as error:
                raise ValueError(f"source: {error}") from None
        elif not is_s3(self.source):
            raise ValueError("source: an S3 source reads s3://bucket/key")
        processor = PROCESSORS[self.processor] if self.processor else processor_for(file_name(self.source))
        if processor is None:
            raise ValueError(f"processor: none takes a file named like this; name one of {', '.join(PROCESSORS)}")
        if sentence := refusal(processor, self.params):
            raise ValueError(f"params: {sentence}")
        return self

    @model_validator(mode="after")
    def _elements(self) -> Self:
        if not self.array:
            return self
        if not arrays.varies(self.request(_ANY_POOL)):
            raise ValueError("array: neither source nor params hold {index}, so all its jobs would be the same")
        if self.md5 and arrays.INDEX in self.source:
            raise ValueError("md5: the array has many sources, and this is the sum of one")
        key = self.key()
        if key.count("/") > 6 or len(key) + limits.ARRAY_KEY_CHARS > limits.WORKFLOW_KEY_MAX_CHARS:  # noqa: PLR2004
            raise ValueError("workflow_key: that of an array has 7 segments and 500 characters at most")
        return self

    @model_validator(mode="after")
    def _parents(self) -> Self:
        if len(set(self.depends_on)) < len(self.depends_on):
            raise ValueError("depends_on: names a job twice")
        return self

    def request(self, pool: Pool) -> Request:
        """The part of the message that the worker acts on; what it leaves open is as in its pool."""
        return Request(
            self.source,
            self.processor_name,
            self.md5 or "",
            self.params,
            self.max_attempts or pool.max_attempts,
            self.timeout_s or pool.job_timeout_s,
            pool.max_interruptions,
            self.depends_on,
            self.on_parent_failure if self.depends_on else OnParentFailure.FAIL,
            self.array or 0,
        )

    @property
    def processor_name(self) -> str:
        """The processor, named or derived from the source."""
        if self.processor:
            return self.processor
        derived = processor_for(file_name(self.source))
        return derived.name if derived else ""

    def key(self, etag: str = "") -> str:
        """The workflow key, as given or derived. An ETag that is known is part of it: a changed source is a new key.

        It serves as an identity only: of an object that came in parts, or under a key of KMS, it is no MD5.
        """
        if self.workflow_key:
            return self.workflow_key
        parts = [
            self.source,
            self.md5 or "",
            self.processor_name,
            self.params,
            *([etag] if etag else []),
            *([self.array] if self.array else []),
        ]
        identity = json.dumps(parts, sort_keys=True)
        return f"source/{self.processor_name}/{sha256(identity.encode()).hexdigest()[:40]}"


def submission(
    body: str, sent_at: float, pools: Mapping[str, Pool], source_hosts: Collection[str], message_id: str = ""
) -> Submission:
    """Read one message: a producer's, or S3's own word of a new object, which asks for the job of that source.

    Raises Rejected with the reason if it can never run on these pools and hosts.
    """
    if len(body.encode(errors="replace")) > limits.REQUEST_MAX_BYTES:
        raise Rejected(f"the message is larger than {limits.REQUEST_MAX_BYTES:,} bytes")
    try:
        message, etag = _read(body)
    except ValidationError as error:
        raise Rejected(sentence(error)) from None
    if message.pool not in pools:
        raise Rejected(f"pool: there is no pool {message.pool!r}; the pools are {', '.join(sorted(pools))}")
    if message.source.startswith("https:") and (host := https_host(message.source)) not in source_hosts:
        raise Rejected(f"source: the host {host} is not on the allow-list (source_hosts)")
    if message.key(etag) in message.depends_on:
        raise Rejected("depends_on: names the job itself")
    return Submission(
        message.key(etag),
        message.pool,
        message.priority,
        message.request(pools[message.pool]),
        sent_at,
        message.force,
        message.correlation_id or message_id,
        message.tenant or "",
    )


def again(job: Job, force: bool = False) -> dict[str, Any]:
    """The message that asks for another run of a job, as its snapshot says. Sent after the run's end, it begins one."""
    request = job.request
    if request.array and request.part_of:
        raise ValueError(f"{job.key} is a part of the array {request.part_of}; ask for another run of that")
    message = Message(
        source=request.source,
        processor=request.processor,
        workflow_key=job.key,
        pool=job.pool,
        priority=job.priority,
        md5=request.md5 or None,
        params=dict(request.params),
        max_attempts=request.max_attempts,
        timeout_s=request.timeout_s,
        force=force or job.since > 0,
        correlation_id=job.correlation_id or None,
        tenant=job.tenant or None,
        depends_on=request.depends_on,
        on_parent_failure=request.on_parent_failure,
        array=request.array or None,
    )
    return message.model_dump(mode="json", exclude_none=True)


class _Recheck(BaseModel):
    """Word of `publish`, perhaps of a later version: a parent of these jobs has ended."""

    recheck: list[Key]


def to_recheck(body: str) -> list[str]:
    """The keys of jobs that are to be judged anew, if that is what the message says; else none."""
    if not body.startswith('{"recheck":'):  # spares every other message a second reading
        return []
    try:
        return _Recheck.model_validate_json(body).recheck
    except ValidationError:
        return []


def _read(body: str) -> tuple[Message, str]:
    """The message, and the ETag of its source where S3 told it. Raises ValidationError."""
    if "aws.s3" not in body:  # spares every other message a second reading
        return Message.model_validate_json(body), ""
    try:
        created = _ObjectCreated.model_validate_json(body).detail
    except ValidationError:
        return Message.model_validate_json(body), ""
    return Message(source=f"s3://{created.bucket.name}/{created.object.key}"), created.object.etag


def sentence(error: ValidationError) -> str:
    """The first thing that is wrong, in one sentence that names the field."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{where[:64]}: no such field; the fields are {', '.join(Message.model_fields)}"
    if first["type"] == "string_pattern_mismatch":
        text = _PATTERNS_IN_WORDS.get("workflow_key" if first["loc"][:1] == ("depends_on",) else where, text)
    if first["loc"][:1] == ("params",) and where != "params":
        where, text = "params", _PARAMS_IN_WORDS
    return (f"{where}: {text}" if where else text)[: limits.ERROR_MAX_CHARS]


def json_schema() -> dict[str, Any]:
    """The published schema of the message (JSON Schema 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Message.model_json_schema()}
