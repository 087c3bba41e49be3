"""What outlives every deploy: the control table, the queues that producers see, the two buckets, the event bus."""

from __future__ import annotations

from typing import cast

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from fleetcap import keys, limits
from stacks.config import Config


class State(Stack):
    """Lifecycle: deployed first. With `retain_data` neither a delete nor a replacement takes anything away."""

    def __init__(self, scope: Construct, config: Config) -> None:
        super().__init__(
            scope,
            config.stack("State"),
            description="Fleetcap: control table, intake queue, cache",
            termination_protection=config.retain_data,
        )
        self._removal = RemovalPolicy.RETAIN if config.retain_data else RemovalPolicy.DESTROY
        self.table = self._control_table(config)
        self.intake_dead_letters = queue(self, "IntakeDeadLetters", self._removal)
        self.intake = queue(
            self, "Intake", self._removal, dead_letters=(self.intake_dead_letters, limits.INTAKE_MAX_RECEIVES)
        )
        self.rejected = queue(self, "Rejected", self._removal)
        self.cache = self._bucket("Cache", expiry_days=config.cache_expiry_days, kms_key=config.cache_kms_key)
        self.input = self._bucket("Input")
        self._take_uploads(config.s3_trigger)
        # Named, for rules are written by hand; without data, and never deleted under somebody's rules.
        self.bus = events.EventBus(self, "Bus", event_bus_name=config.name, description="Fleetcap: what became of jobs")
        self._outputs()

    def _control_table(self, config: Config) -> dynamodb.Table:
        table = dynamodb.Table(
            self,
            "ControlTable",
            partition_key=_text_key(keys.TABLE_PK),
            sort_key=_text_key(keys.TABLE_SK),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            stream=dynamodb.StreamViewType.NEW_AND_OLD_IMAGES,
            time_to_live_attribute=keys.TTL,
            deletion_protection=config.retain_data,
            encryption=dynamodb.TableEncryption.DEFAULT,
            removal_policy=self._removal,
        )
        table.add_global_secondary_index(
            index_name=keys.OPEN_INDEX,
            partition_key=_text_key(keys.OPEN_PK),
            sort_key=_text_key(keys.OPEN_RANK),
            projection_type=dynamodb.ProjectionType.INCLUDE,
            non_key_attributes=list(keys.OPEN_PROJECTION),
        )
        return table

    def _bucket(self, name: str, expiry_days: int | None = None, kms_key: str = "") -> s3.Bucket:
        """A private bucket; only the cache forgets by itself, what producers put in stays theirs.

        With a key of the customer's the bucket asks KMS once for many objects, which also binds the rights on the key
        to the bucket (`via_s3`).
        """
        key = kms.Key.from_key_arn(self, f"{name}Key", kms_key) if kms_key else None
        return s3.Bucket(
            self,
            name,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
            encryption_key=key,
            bucket_key_enabled=True if key else None,
            enforce_ssl=True,
            removal_policy=self._removal,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=None if expiry_days is None else Duration.days(expiry_days),
                    abort_incomplete_multipart_upload_after=Duration.days(limits.ABORTED_MULTIPART_DAYS),
                )
            ],
        )

    def _take_uploads(self, enabled: bool) -> None:
        """An object in the input bucket → rule → intake queue. Switched off, S3 tells the rule and nobody else.

        The event arrives as S3 wrote it: a rule's transformer would put a key with quotes into JSON as it is.
        """
        bucket = cast(s3.CfnBucket, self.input.node.default_child)  # the L2 switch for it is a custom resource
        bucket.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
        )
        events.Rule(
            self,
            "Uploads",
            description="Objects created in Fleetcap's input bucket become jobs",
            enabled=enabled,
            event_pattern=events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={
                    "bucket": {"name": [self.input.bucket_name]},
                    # Whoever uploads these sends their messages as well, which say more than an event could.
                    "object": {"key": [{"anything-but": {"prefix": keys.SUBMITTED_PREFIX}}]},
                },
            ),
            targets=[targets.SqsQueue(self.intake, dead_letter_queue=self.intake_dead_letters)],
        )

    def _outputs(self) -> None:
        for name, value in {
            "TableName": self.table.table_name,
            "IntakeQueueUrl": self.intake.queue_url,
            "IntakeDeadLetterQueueUrl": self.intake_dead_letters.queue_url,
            "RejectedQueueUrl": self.rejected.queue_url,
            "CacheBucketName": self.cache.bucket_name,
            "InputBucketName": self.input.bucket_name,
            "EventBusName": self.bus.event_bus_name,
        }.items():
            CfnOutput(self, name, value=value)


def queue(
    scope: Construct, name: str, removal: RemovalPolicy, dead_letters: tuple[sqs.Queue, int] | None = None
) -> sqs.Queue:
    """A queue as all of Fleetcap's are. `dead_letters` says where a message goes, and after how many receives."""
    return sqs.Queue(
        scope,
        name,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
        retention_period=Duration.seconds(limits.QUEUE_RETENTION_S if dead_letters else limits.DEAD_LETTER_RETENTION_S),
        visibility_timeout=Duration.seconds(limits.QUEUE_VISIBILITY_S),
        removal_policy=removal,
        dead_letter_queue=sqs.DeadLetterQueue(queue=dead_letters[0], max_receive_count=dead_letters[1])
        if dead_letters
        else None,
    )


def _text_key(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)
