"""The deciders and what wakes them: intake, task_state, tick and publish."""

from __future__ import annotations

from typing import Final

from aws_cdk import ArnFormat, CfnOutput, CfnParameter, Duration, RemovalPolicy, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_logs as logs
from aws_cdk import aws_scheduler as scheduler
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from fleetcap import keys, limits
from stacks.config import LOG_RETENTION_DAYS, Config, PoolConfig
from stacks.state import State, queue
from stacks.worker import (
    CONTAINER,
    ENV_APP_ID,
    REPOSITORY,
    TASKS_SERVICE,
    Worker,
    allow,
    declared_processors,
    may_log,
    metrics_namespace,
    service_role,
    via_s3,
)

POWERTOOLS_LAYER: Final = "/aws/service/powertools/python/arm64/python3.13/latest"
EVENT_BATCH_SIZE: Final = 10
POOL_POLICY: Final = (
    "jobs_per_worker",
    "active_jobs_max",
    "dispatch_deadline_s",
    "waiting_limit_s",
    "min_workers",
    "warm_workers",
    "budget_task_hours",
    "spot_fallback",
    "providers",
    "job_timeout_s",
    "max_attempts",
    "max_interruptions",
    "parents_limit_s",
)
"""What deciders know of a pool under the names of its settings."""
STREAM_ACTIONS: Final = ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")
TABLE_ACTIONS: Final = ("BatchGetItem", "GetItem", "PutItem", "Query", "UpdateItem")


class Control(Stack):
    """Gotcha: no reserved concurrency anywhere; CAP rests on conditional writes, not on how many deciders run."""

    def __init__(self, scope: Construct, config: Config, state: State, worker: Worker) -> None:
        super().__init__(scope, config.stack("Control"), description="Fleetcap: deciders and what wakes them")
        self._config, self._state, self._worker = config, state, worker
        self._code = lambda_.Code.from_asset(str(REPOSITORY / "lambdas"), exclude=["**/__pycache__", "**/*.pyc"])
        self._powertools = self._powertools_layer()
        self.events, self.event_dead_letters = self._event_queue()
        self.intake = self._intake()
        self.task_state = self._task_state()
        self.tick = self._tick()
        self.unpublished = queue(self, "Unpublished", RemovalPolicy.DESTROY)
        self.publish = self._publish()
        self._outputs()

    # --- the deciders

    def _intake(self) -> lambda_.Function:
        config, state = self._config, self._state
        intake = self._decider(
            "intake",
            {
                keys.ENV_REJECTED_QUEUE_URL: state.rejected.queue_url,
                keys.ENV_INTAKE_QUEUE_URL: state.intake.queue_url,
                keys.ENV_CACHE_BUCKET: state.cache.bucket_name,
                keys.ENV_CACHE_PREFIX: config.cache_prefix,
                keys.ENV_SOURCE_HOSTS: ",".join(config.source_hosts),
            },
            _consume(state.intake),
            # The parts of a large array are put one by one, by whoever takes the word of each.
            allow(["sqs:SendMessage"], state.rejected.queue_arn, state.intake.queue_arn),
            # HEAD of results; ListBucket makes a missing one a 404 instead of a 403.
            allow(["s3:GetObject"], state.cache.arn_for_objects(f"{config.cache_prefix}*")),
            allow(["s3:ListBucket"], state.cache.bucket_arn),
            *via_s3(["kms:Decrypt"], [config.cache_kms_key], state.cache.bucket_arn),
        )
        self._feed(intake, state.intake, config.intake_batch_size, config.intake_batch_window_s)
        return intake

    def _task_state(self) -> lambda_.Function:
        task_state = self._decider("task_state", {}, _consume(self.events))
        self._feed(task_state, self.events, EVENT_BATCH_SIZE, window_s=0)
        return task_state

    def _tick(self) -> lambda_.Function:
        tick = self._decider(
            "tick",
            {},
            allow(["ecs:DescribeTasks"], self._tasks_arn()),
            # Its resource is the cluster's EC2 machines, of which there are none; the condition names the cluster.
            allow(["ecs:ListTasks"], "*", when={"ArnEquals": {"ecs:cluster": self._worker.cluster.cluster_arn}}),
        )
        # A tick that failed is made good by the next one, not by a second try beside it.
        tick.configure_async_invoke(retry_attempts=0, max_event_age=Duration.seconds(limits.TICK_PERIOD_S))
        role = service_role(
            self, "ScheduleRole", "scheduler.amazonaws.com", allow(["lambda:InvokeFunction"], tick.function_arn)
        )
        scheduler.CfnSchedule(
            self,
            "EveryMinute",
            schedule_expression=f"rate({limits.TICK_PERIOD_S // 60} minute)",
            flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
            target=scheduler.CfnSchedule.TargetProperty(
                arn=tick.function_arn,
                role_arn=role.role_arn,
                retry_policy=scheduler.CfnSchedule.RetryPolicyProperty(
                    maximum_retry_attempts=0, maximum_event_age_in_seconds=limits.TICK_PERIOD_S
                ),
            ),
        )
        return tick

    def _publish(self) -> lambda_.Function:
        """The table's stream → publish → bus, and intake. What is not told in the end is kept, and blocks nobody."""
        config, state = self._config, self._state
        stream_arn = str(state.table.table_stream_arn)
        publish = self._function(
            "publish",
            {
                keys.ENV_EVENT_BUS: state.bus.event_bus_name,
                keys.ENV_EVENT_STATUSES: ",".join(config.event_statuses),
                keys.ENV_TABLE: state.table.table_name,
                keys.ENV_INTAKE_QUEUE_URL: state.intake.queue_url,
                keys.ENV_UNPUBLISHED_QUEUE_URL: self.unpublished.queue_url,
                keys.ENV_CACHE_BUCKET: state.cache.bucket_name,
                keys.ENV_CACHE_PREFIX: config.cache_prefix,
            },
            allow(["events:PutEvents"], state.bus.event_bus_arn),
            allow([f"dynamodb:{action}" for action in STREAM_ACTIONS], stream_arn),
            allow(["sqs:SendMessage"], self.unpublished.queue_arn),
            # Who may wait for a job that ended is read and named to intake; nothing else of the table is open to it.
            allow(
                ["dynamodb:Query"],
                state.table.table_arn,
                when={"ForAllValues:StringLike": {"dynamodb:LeadingKeys": keys.edges_pk("*")}},
            ),
            allow(["sqs:SendMessage"], state.intake.queue_arn),
        )
        lambda_.EventSourceMapping(
            publish,
            "Source",
            target=publish,
            event_source_arn=stream_arn,
            # From the stream's beginning: a table may be older than this mapping, and a duplicate does no harm.
            starting_position=lambda_.StartingPosition.TRIM_HORIZON,
            batch_size=limits.PUBLISH_RECORDS,
            filters=[lambda_.FilterCriteria.filter(keys.stream_filter(config.event_statuses))],
            report_batch_item_failures=True,
            bisect_batch_on_error=True,
            retry_attempts=limits.PUBLISH_RETRIES,
            max_record_age=Duration.seconds(limits.PUBLISH_MAX_AGE_S),
            on_failure=sources.SqsDlq(self.unpublished),
        )
        return publish

    # --- what they are made of

    def _decider(self, name: str, environment: dict[str, str], *grants: iam.PolicyStatement) -> lambda_.Function:
        """A function that may change the table and launch workers, with `grants` on top."""
        shared = {
            keys.ENV_TABLE: self._state.table.table_name,
            keys.ENV_POOLS: self.to_json_string([self._pool(pool) for pool in self._config.pools]),
        } | declared_processors(self._config)
        return self._function(name, shared | environment, *self._lease_and_launch(), *grants)

    def _function(self, name: str, environment: dict[str, str], *rights: iam.PolicyStatement) -> lambda_.Function:
        """One function of the shared asset, which may log and do what `rights` say."""
        config, part = self._config, name.title().replace("_", "")
        log_group = logs.LogGroup(
            self,
            f"{part}Logs",
            retention=logs.RetentionDays[LOG_RETENTION_DAYS[config.log_retention_days]],
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = service_role(self, f"{part}Role", "lambda.amazonaws.com", *rights, may_log(log_group))
        return lambda_.Function(
            self,
            part,
            description=f"Fleetcap decider: {name}",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler=f"handlers.{name}.handler",
            code=self._code,
            layers=[self._powertools],
            memory_size=config.decider_memory_mib,
            timeout=Duration.seconds(config.decider_timeout_s),
            role=role.without_policy_updates(),
            log_group=log_group,
            environment={
                "POWERTOOLS_SERVICE_NAME": f"{config.name}-{name}",
                "POWERTOOLS_LOG_LEVEL": "INFO",
                ENV_APP_ID: f"{config.name}-{name}",
            }
            | metrics_namespace(config)
            | environment,
        )

    def _lease_and_launch(self) -> list[iam.PolicyStatement]:
        """Every decider ends in `scale`: read and write the table by item, launch this deployment's workers."""
        table_arn, worker = self._state.table.table_arn, self._worker
        return [
            allow([f"dynamodb:{action}" for action in TABLE_ACTIONS], table_arn),
            allow(["dynamodb:Query"], f"{table_arn}/index/{keys.OPEN_INDEX}"),
            # A worker of ours in another cluster would escape the cap.
            allow(
                ["ecs:RunTask"],
                *(self._family_arn(family) for family in worker.families.values()),
                when={"ArnEquals": {"ecs:cluster": worker.cluster.cluster_arn}},
            ),
            # A task that turns out to live under a slot that was freed meanwhile is stopped by whoever learns of it.
            allow(["ecs:StopTask"], self._tasks_arn()),
            allow(["ecs:TagResource"], self._tasks_arn(), when={"StringEquals": {"ecs:CreateAction": "RunTask"}}),
            allow(
                ["iam:PassRole"],
                worker.task_role.role_arn,
                worker.execution_role.role_arn,
                when={"StringEquals": {"iam:PassedToService": TASKS_SERVICE}},
            ),
        ]

    def _family_arn(self, family: str) -> str:
        return self.format_arn(service="ecs", resource="task-definition", resource_name=f"{family}:*")

    def _tasks_arn(self) -> str:
        name = self._worker.cluster.cluster_name
        return self.format_arn(
            service="ecs", resource="task", resource_name=f"{name}/*", arn_format=ArnFormat.SLASH_RESOURCE_NAME
        )

    def _pool(self, pool: PoolConfig) -> dict[str, object]:
        """What a decider knows of a pool. `launch` is RunTask's parameters, and the container that overrides name."""
        worker = self._worker
        return {
            "name": pool.name,
            "cap": pool.cap,
            **_policy(pool),
            "image": worker.image(pool),
            **({"fair_shares": True, "tenant_weights": pool.weights} if pool.fair_shares else {}),
            "launch": {
                "cluster": worker.cluster.cluster_arn,
                "taskDefinition": worker.families[pool.name],
                "launchType": "FARGATE",
                "platformVersion": "LATEST",
                "count": 1,
                "enableECSManagedTags": False,
                "networkConfiguration": {
                    "awsvpcConfiguration": {
                        "subnets": [subnet.subnet_id for subnet in worker.vpc.public_subnets],
                        "securityGroups": [worker.security_group.security_group_id],
                        "assignPublicIp": "ENABLED" if pool.assign_public_ip else "DISABLED",
                    }
                },
                "tags": [{"key": "fleetcap:pool", "value": pool.name}],
                "container": CONTAINER,
            },
        }

    def _powertools_layer(self) -> lambda_.ILayerVersion:
        """The public layer's ARN differs by region; AWS publishes it under this name in each."""
        parameter = CfnParameter(
            self,
            "PowertoolsLayer",
            type="AWS::SSM::Parameter::Value<String>",
            default=POWERTOOLS_LAYER,
            description="SSM parameter that holds the ARN of the Powertools layer",
        )
        return lambda_.LayerVersion.from_layer_version_arn(self, "Powertools", parameter.value_as_string)

    # --- what wakes them

    def _event_queue(self) -> tuple[sqs.Queue, sqs.Queue]:
        """ECS → rule → queue → task_state: a rule that calls a function directly gives up after two retries."""
        dead_letters = queue(self, "EventDeadLetters", RemovalPolicy.DESTROY)
        arrivals = queue(self, "Events", RemovalPolicy.DESTROY, (dead_letters, limits.EVENT_MAX_RECEIVES))
        events.Rule(
            self,
            "TaskStateChanges",
            description="Every state change of a task in Fleetcap's cluster",
            event_pattern=events.EventPattern(
                source=["aws.ecs"],
                detail_type=["ECS Task State Change"],
                # A slot changes hands on proof that its task is gone; readiness is a write by the worker, not an event.
                # Of a Spot task's end two minutes' warning is given.
                detail={
                    "clusterArn": [self._worker.cluster.cluster_arn],
                    "$or": [{"lastStatus": ["STOPPED"]}, {"stopCode": [keys.SPOT_INTERRUPTION]}],
                },
            ),
            targets=[targets.SqsQueue(arrivals, dead_letter_queue=dead_letters)],
        )
        return arrivals, dead_letters

    def _feed(self, decider: lambda_.Function, source: sqs.Queue, batch_size: int, window_s: int) -> None:
        lambda_.EventSourceMapping(
            decider,
            "Source",
            target=decider,
            event_source_arn=source.queue_arn,
            batch_size=batch_size,
            max_batching_window=Duration.seconds(window_s),
            max_concurrency=self._config.decider_concurrency,
            report_batch_item_failures=True,
        )

    def _outputs(self) -> None:
        for name, value in {
            "EventsQueueUrl": self.events.queue_url,
            "EventsDeadLetterQueueUrl": self.event_dead_letters.queue_url,
            "IntakeFunctionName": self.intake.function_name,
            "TaskStateFunctionName": self.task_state.function_name,
            "TickFunctionName": self.tick.function_name,
            "PublishFunctionName": self.publish.function_name,
            "UnpublishedQueueUrl": self.unpublished.queue_url,
        }.items():
            CfnOutput(self, name, value=value)


def _policy(pool: PoolConfig) -> dict[str, object]:
    """What is set of a pool's policy; of what is not, a decider knows the same defaults."""
    said = {setting: getattr(pool, setting) for setting in POOL_POLICY}
    usual = PoolConfig()
    return {setting: value for setting, value in said.items() if value != getattr(usual, setting)}


def _consume(source: sqs.Queue) -> iam.PolicyStatement:
    return allow(["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"], source.queue_arn)
