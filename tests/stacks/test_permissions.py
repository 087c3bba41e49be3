"""Who may do what: the whole of it, in one table. Widening a right anywhere fails here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.stacks.conftest import Synthesized, name_of

ALLOWED = """
who                      | may                                            | on                               | if
intake task_state tick   | dynamodb: BatchGetItem GetItem PutItem Query UpdateItem | ControlTable            |
intake task_state tick   | dynamodb: Query                                | ControlTable/index/open          |
intake task_state tick   | ecs: RunTask                                   | task-definition/…Pooldefault:*   | ecs:cluster is Cluster
intake task_state tick   | ecs: StopTask                                  | task/Cluster/*                   |
intake task_state tick   | ecs: TagResource                               | task/Cluster/*                   | ecs:CreateAction is RunTask
intake task_state tick   | iam: PassRole                                  | TaskRole                         | iam:PassedToService is ecs-tasks.amazonaws.com
intake task_state tick   | iam: PassRole                                  | ExecutionRole                    | iam:PassedToService is ecs-tasks.amazonaws.com
intake                   | logs: CreateLogStream PutLogEvents             | IntakeLogs                       |
intake                   | logs: CreateLogStream PutLogEvents             | log-group:IntakeLogs             |
intake                   | sqs: DeleteMessage GetQueueAttributes ReceiveMessage | queue Intake               |
intake                   | sqs: SendMessage                               | queue Rejected                   |
intake                   | sqs: SendMessage                               | queue Intake                     |
intake                   | s3: GetObject                                  | Cache/*                          |
intake                   | s3: ListBucket                                 | Cache                            |
task_state               | logs: CreateLogStream PutLogEvents             | TaskStateLogs                    |
task_state               | logs: CreateLogStream PutLogEvents             | log-group:TaskStateLogs          |
task_state               | sqs: DeleteMessage GetQueueAttributes ReceiveMessage | queue Events               |
tick                     | logs: CreateLogStream PutLogEvents             | TickLogs                         |
tick                     | logs: CreateLogStream PutLogEvents             | log-group:TickLogs               |
tick                     | ecs: DescribeTasks                             | task/Cluster/*                   |
tick                     | ecs: ListTasks                                 | *                                | ecs:cluster is Cluster
publish                  | logs: CreateLogStream PutLogEvents             | PublishLogs                      |
publish                  | logs: CreateLogStream PutLogEvents             | log-group:PublishLogs            |
publish                  | dynamodb: DescribeStream GetRecords GetShardIterator ListStreams | ControlTable/stream |
publish                  | events: PutEvents                              | Bus                              |
publish                  | sqs: SendMessage                               | queue Unpublished                |
publish                  | sqs: SendMessage                               | queue Intake                     |
publish                  | dynamodb: Query                                | ControlTable                     | dynamodb:LeadingKeys is WAITS#*
schedule                 | lambda: InvokeFunction                         | function Tick                    |
task                     | dynamodb: GetItem UpdateItem                   | ControlTable                     |
task                     | dynamodb: Query                                | ControlTable/index/open          |
task                     | s3: AbortMultipartUpload DeleteObject GetObject PutObject | Cache/*               |
task                     | s3: GetObject                                  | Input/*                          |
task                     | s3: ListBucket                                 | Cache                            |
task                     | s3: ListBucket                                 | Input                            |
execution                | ecr: GetAuthorizationToken                     | *                                |
execution                | ecr: BatchCheckLayerAvailability BatchGetImage GetDownloadUrlForLayer | repository/cdk-assets |
execution                | logs: CreateLogStream PutLogEvents             | Logs                             |
execution                | logs: CreateLogStream PutLogEvents             | log-group:Logs                   |
"""  # noqa: E501 - a table is read by its columns

ANY_RESOURCE = {
    "ecr:GetAuthorizationToken": "a registry has one token, AWS offers no narrower resource",
    "ecs:ListTasks": "AWS judges it on the cluster's EC2 machines; the condition names the cluster",
}
TRUSTED = {
    "intake": "lambda.amazonaws.com",
    "task_state": "lambda.amazonaws.com",
    "tick": "lambda.amazonaws.com",
    "publish": "lambda.amazonaws.com",
    "schedule": "scheduler.amazonaws.com",
    "task": "ecs-tasks.amazonaws.com",
    "execution": "ecs-tasks.amazonaws.com",
}

Right = tuple[str, str, str, str]


def test_every_role_may_do_what_the_table_says_and_nothing_else(stacks: Synthesized) -> None:
    assert sorted(_granted(stacks)) == sorted(_expected())


def test_every_role_trusts_one_service(stacks: Synthesized) -> None:
    trusted = {
        _who(name): [statement["Principal"] for statement in role["AssumeRolePolicyDocument"]["Statement"]]
        for name, role in stacks.resources("AWS::IAM::Role")
    }

    assert trusted == {who: [{"Service": service}] for who, service in TRUSTED.items()}


def test_rights_stand_nowhere_but_in_the_roles(stacks: Synthesized) -> None:
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::User", "AWS::Lambda::Permission"):
        assert not list(stacks.resources(kind))
    assert not [name for name, role in stacks.resources("AWS::IAM::Role") if "ManagedPolicyArns" in role]


def test_no_action_is_a_wildcard_and_any_resource_has_a_reason(turned: Synthesized) -> None:
    rights = list(_granted(turned))

    assert not [right for right in rights if "*" in right[1]]
    assert {action for _, action, resource, _ in rights if resource == "*"} == set(ANY_RESOURCE)


def test_a_cache_prefix_narrows_the_rights_and_extra_buckets_are_only_read(turned: Synthesized) -> None:
    rights = {(who, action, resource) for who, action, resource, _ in _granted(turned)}

    assert ("task", "s3:PutObject", "Cache/portal/*") in rights
    assert {right for right in rights if "public-reads" in right[2]} == {
        ("task", "s3:GetObject", "public-reads/*"),
        ("task", "s3:ListBucket", "public-reads"),
    }
    assert not [right for right in rights if right[1] == "s3:PutObject" and right[2] != "Cache/portal/*"]


def test_keys_of_the_customer_are_used_through_s3_only_and_by_those_who_must(turned: Synthesized) -> None:
    key, source = "key/11111111-2222-3333-4444-555555555555", "key/mrk-0123456789abcdef0123456789abcdef"
    of_the_cache = "kms:ViaService is s3.eu-central-1.amazonaws.com and kms:EncryptionContext:aws:s3:arn is Cache"
    rights = sorted(right for right in _granted(turned) if right[1].startswith("kms:"))

    assert rights == [
        ("intake", "kms:Decrypt", key, of_the_cache),
        ("task", "kms:Decrypt", key, of_the_cache),
        ("task", "kms:Decrypt", source, "kms:ViaService is s3.us-east-1.amazonaws.com"),
        ("task", "kms:GenerateDataKey", key, of_the_cache),
    ]


def test_queues_take_messages_from_their_rule_only(stacks: Synthesized) -> None:
    speller = _Speller(stacks)
    allowed = {
        speller.spell(statement["Resource"]): (
            statement["Principal"]["Service"],
            {key: {name: speller.spell(arn) for name, arn in of.items()} for key, of in statement["Condition"].items()},
        )
        for _, policy in stacks.resources("AWS::SQS::QueuePolicy")
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    }

    rules = {"Events": "TaskStateChanges", "EventDeadLetters": "TaskStateChanges"}
    rules |= {"Intake": "Uploads", "IntakeDeadLetters": "Uploads"}
    assert allowed == {
        f"queue {queue}": ("events.amazonaws.com", {"ArnEquals": {"aws:SourceArn": rule}})
        for queue, rule in rules.items()
    }


# --- reading the table and the template


def _expected() -> Iterator[Right]:
    for line in ALLOWED.strip().splitlines()[1:]:
        who, may, resource, condition = (cell.strip() for cell in line.split("|"))
        service, _, actions = may.partition(":")
        for role in who.split():
            yield from ((role, f"{service}:{action}", resource, condition) for action in actions.split())


def _granted(stacks: Synthesized) -> Iterator[Right]:
    speller = _Speller(stacks)
    for name, role in stacks.resources("AWS::IAM::Role"):
        for policy in role["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                yield from _rights(_who(name), statement, speller)


def _rights(who: str, statement: Mapping[str, Any], speller: _Speller) -> Iterator[Right]:
    assert statement["Effect"] == "Allow"
    assert not statement.keys() - {"Effect", "Action", "Resource", "Condition"}
    assert not statement.get("Condition", {}).keys() - {"ArnEquals", "StringEquals", "ForAllValues:StringLike"}
    condition = " and ".join(
        f"{key} is {speller.spell(value)}"
        for keys in statement.get("Condition", {}).values()
        for key, value in keys.items()
    )
    for action in _listed(statement["Action"]):
        for resource in _listed(statement["Resource"]):
            yield who, action, speller.spell(resource), condition


def _who(role: str) -> str:
    """`TaskStateRole` → `task_state`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", role.removesuffix("Role")).lower()


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


class _Speller:
    """Names what an intrinsic function points at, in whichever stack it stands."""

    PREFIXED: Mapping[str, str] = {"AWS::SQS::Queue": "queue ", "AWS::Lambda::Function": "function "}

    def __init__(self, stacks: Synthesized) -> None:
        templates = stacks.templates.values()
        self._resources = {each: body for template in templates for each, body in template["Resources"].items()}
        self._exports = {
            output["Export"]["Name"]: output["Value"]
            for template in templates
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }

    def spell(self, value: Any) -> str:
        """A short, readable form of an ARN or a name."""
        text = re.sub(r"^arn:[^:]*:[^:]*:[^:]*:[^:]*:", "", self._raw(value))
        text = re.sub(r"task-definition/\w+(Pool[a-z]+)[0-9A-F]{8}", r"task-definition/…\1", text)
        return re.sub(r"repository/cdk-\S+", "repository/cdk-assets", text)

    def _raw(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        ((function, argument),) = value.items()
        match function:
            case "Ref":
                return "aws" if argument.startswith("AWS::") else self._name(argument)
            case "Fn::GetAtt":
                return self._name(argument[0]) + ("/stream" if argument[1] == "StreamArn" else "")
            case "Fn::ImportValue":
                return self._raw(self._exports[argument])
            case "Fn::Join":
                return str(argument[0].join(map(self._raw, argument[1])))
            case "Fn::Sub":
                return re.sub(r"\$\{AWS::\w+\}", "aws", argument)
        raise AssertionError(f"{function} is not spelled out")

    def _name(self, logical_id: str) -> str:
        return self.PREFIXED.get(self._resources[logical_id]["Type"], "") + name_of(logical_id)
