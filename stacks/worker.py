"""Where workers run: a network without NAT, a cluster, and one task definition per pool."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final, cast

from aws_cdk import ArnFormat, Aws, CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from fleetcap import keys, limits
from stacks.config import ECR_IMAGE, LOG_RETENTION_DAYS, Config, PoolConfig
from stacks.state import State

REPOSITORY: Final = Path(__file__).parents[1]
CONTAINER: Final = "worker"
ENV_APP_ID: Final = "AWS_SDK_UA_APP_ID"
"""The SDKs add it to their User-Agent, so that CloudTrail and whoever else looks on can tell who called."""
TASKS_SERVICE: Final = "ecs-tasks.amazonaws.com"
HTTPS: Final = 443
IMAGE_NAME_CHARS: Final = 12
PULL: Final = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
ENV_WORKER_KNOBS: Final = (
    "jobs_per_worker",
    "idle_exit_s",
    "lifetime_s",
    "stop_timeout_s",
    "heartbeat_s",
    "beat_s",
    "look_s",
    "fence_check_s",
    "sort_memory_mb",
    "sort_threads",
    "disk_gib",
    "keep_failed_dirs",
)
PLATFORMS: Final = {
    "X86_64": (ecs.CpuArchitecture.X86_64, ecr_assets.Platform.LINUX_AMD64),
    "ARM64": (ecs.CpuArchitecture.ARM64, ecr_assets.Platform.LINUX_ARM64),
}


class Worker(Stack):
    """Gotcha: deciders name task definitions by family, so a new worker image needs no new decider.

    A revision is unregistered as soon as its successor stands; a lease that stored its ARN could then never be
    launched, and rule 1 of the protocol would resend it for ever.
    """

    def __init__(self, scope: Construct, config: Config, state: State) -> None:
        super().__init__(scope, config.stack("Worker"), description="Fleetcap: network, cluster, worker tasks")
        self.vpc = self._network()
        self.security_group = self._security_group()
        self.cluster = self._cluster()
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            retention=logs.RetentionDays[LOG_RETENTION_DAYS[config.log_retention_days]],
            removal_policy=RemovalPolicy.DESTROY,
        )
        self._images = self._build_images(config)
        self.task_role = self._task_role(config, state)
        self.execution_role = self._execution_role(config)
        definitions = {pool.name: self._task_definition(pool, config, state) for pool in config.pools}
        self.families = {name: definition.family for name, definition in definitions.items()}
        arns = {name: definition.task_definition_arn for name, definition in definitions.items()}
        CfnOutput(self, "WorkerTaskDefinitionArns", value=self.to_json_string(arns))
        CfnOutput(self, "WorkerLogGroupName", value=self.log_group.log_group_name)

    def image(self, pool: PoolConfig) -> str:
        """The name of the image that a launch of this pool gets: another one for another content."""
        known = sha256(pool.image.encode()).hexdigest() if pool.image else self._images[pool.architecture].asset_hash
        return known[:IMAGE_NAME_CHARS]

    def _network(self) -> ec2.Vpc:
        """Public subnets and free gateway endpoints: a NAT gateway costs more a month than many fleets."""
        vpc = ec2.Vpc(
            self,
            "Network",
            max_azs=2,
            nat_gateways=0,
            restrict_default_security_group=False,  # would need a custom resource; nothing joins that group
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Workers", subnet_type=ec2.SubnetType.PUBLIC, map_public_ip_on_launch=False
                )
            ],
        )
        vpc.add_gateway_endpoint("ObjectsEndpoint", service=ec2.GatewayVpcEndpointAwsService.S3)
        vpc.add_gateway_endpoint("TableEndpoint", service=ec2.GatewayVpcEndpointAwsService.DYNAMODB)
        return vpc

    def _security_group(self) -> ec2.SecurityGroup:
        """Nobody calls a worker, and everything a worker calls speaks HTTPS."""
        group = ec2.SecurityGroup(
            self,
            "WorkerGroup",
            vpc=self.vpc,
            description="Fleetcap workers: nothing in, HTTPS out",
            allow_all_outbound=False,
        )
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(HTTPS), "AWS and the sources of jobs")
        return group

    def _cluster(self) -> ecs.Cluster:
        cluster = ecs.Cluster(self, "Cluster", vpc=self.vpc, container_insights_v2=ecs.ContainerInsights.DISABLED)
        # Said on the cluster itself: an association resource of its own would be one more thing to replace.
        cast(ecs.CfnCluster, cluster.node.default_child).capacity_providers = ["FARGATE", "FARGATE_SPOT"]
        CfnOutput(self, "ClusterArn", value=cluster.cluster_arn)
        return cluster

    def _build_images(self, config: Config) -> dict[str, ecr_assets.DockerImageAsset]:
        """One image per architecture in use. `.dockerignore` says what it consists of, and so what changes its hash."""
        return {
            architecture: ecr_assets.DockerImageAsset(
                self,
                f"Image{architecture}",
                directory=str(REPOSITORY),
                file="worker_image/Dockerfile",
                platform=PLATFORMS[architecture][1],
            )
            for architecture in sorted({pool.architecture for pool in config.pools if not pool.image})
        }

    def _task_role(self, config: Config, state: State) -> iam.Role:
        """What the worker's own code may do. ListBucket makes a missing object a 404 instead of a 403."""
        extra = [f"arn:{Aws.PARTITION}:s3:::{bucket}" for bucket in config.extra_source_buckets]
        sources = [state.input.bucket_arn, *extra]
        results = state.cache.arn_for_objects(f"{config.cache_prefix}*")
        return service_role(
            self,
            "TaskRole",
            TASKS_SERVICE,
            allow(["dynamodb:GetItem", "dynamodb:UpdateItem"], state.table.table_arn),
            allow(["dynamodb:Query"], f"{state.table.table_arn}/index/{keys.OPEN_INDEX}"),
            # The abort follows a large upload that lost the race for its key; S3 would keep the parts otherwise. The
            # delete takes away what was derived from a primary artifact that a forced run is about to replace.
            allow(["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"], results),
            allow(["s3:GetObject"], *(f"{bucket}/*" for bucket in sources)),
            allow(["s3:ListBucket"], state.cache.bucket_arn, *sources),
            *via_s3(["kms:Decrypt", "kms:GenerateDataKey"], [config.cache_kms_key], state.cache.bucket_arn),
            *via_s3(["kms:Decrypt"], config.source_kms_keys),
        )

    def _execution_role(self, config: Config) -> iam.Role:
        """What Fargate itself may do before the worker runs: fetch the image, open the log stream."""
        own = [image.repository.repository_arn for image in self._images.values()]
        repositories = dict.fromkeys([*own, *filter(None, (_repository_arn(pool.image) for pool in config.pools))])
        return service_role(
            self,
            "ExecutionRole",
            TASKS_SERVICE,
            allow(["ecr:GetAuthorizationToken"], "*"),
            *([allow(PULL, *repositories)] if repositories else []),
            may_log(self.log_group),
        )

    def _task_definition(self, pool: PoolConfig, config: Config, state: State) -> ecs.FargateTaskDefinition:
        task = ecs.FargateTaskDefinition(
            self,
            f"Pool-{pool.name}",
            cpu=pool.cpu_units,
            memory_limit_mib=pool.memory_mib,
            ephemeral_storage_gib=pool.disk_gib,
            runtime_platform=ecs.RuntimePlatform(
                cpu_architecture=PLATFORMS[pool.architecture][0],
                operating_system_family=ecs.OperatingSystemFamily.LINUX,
            ),
            task_role=self.task_role.without_policy_updates(),
            execution_role=self.execution_role.without_policy_updates(),
        )
        task.add_container(
            CONTAINER,
            image=ecs.ContainerImage.from_registry(pool.image)
            if pool.image
            else ecs.ContainerImage.from_docker_image_asset(self._images[pool.architecture]),
            command=list(pool.command),
            environment=_environment(pool, config, state, self.image(pool)),
            stop_timeout=Duration.seconds(pool.stop_timeout_s),
            logging=ecs.LogDrivers.aws_logs(stream_prefix=pool.name, log_group=self.log_group),
            health_check=_health_check(),
            # An init process reaps what a killed child leaves behind and passes SIGTERM on.
            linux_parameters=ecs.LinuxParameters(task, "Init", init_process_enabled=True),
        )
        return task


def _repository_arn(image: str) -> str:
    """The repository of an image in ECR; "" for one that stands elsewhere and needs no right of ours."""
    if not (found := ECR_IMAGE.fullmatch(image)):
        return ""
    account, region, name, _ = found.groups()
    return f"arn:{Aws.PARTITION}:ecr:{region}:{account}:repository/{name}"


def _environment(pool: PoolConfig, config: Config, state: State, image: str) -> dict[str, str]:
    usual = PoolConfig()
    knobs = {knob: getattr(pool, knob) for knob in ENV_WORKER_KNOBS if getattr(pool, knob) != getattr(usual, knob)}
    return (
        {
            keys.ENV_TABLE: state.table.table_name,
            keys.ENV_CACHE_BUCKET: state.cache.bucket_name,
            keys.ENV_CACHE_PREFIX: config.cache_prefix,
            keys.ENV_SOURCE_HOSTS: ",".join(config.source_hosts),
            keys.ENV_SOURCE_RULES: json.dumps(_source_rules(config), separators=(",", ":")),
            keys.ENV_WORKER: json.dumps({"pool": pool.name, "image": image, **knobs}, separators=(",", ":")),
            ENV_APP_ID: f"{config.name}-worker",
        }
        | declared_processors(config)
        | metrics_namespace(config)
    )


def metrics_namespace(config: Config) -> dict[str, str]:
    """Who writes a log learns where its metrics go, if anywhere."""
    return {keys.ENV_METRICS: config.metrics_namespace} if config.observability else {}


def declared_processors(config: Config) -> dict[str, str]:
    """Deciders and workers learn alike which processors the deployment has beside the image's own."""
    return {keys.ENV_PROCESSORS: config.declared_processors} if config.processors else {}


def _source_rules(config: Config) -> dict[str, object]:
    """What `fleetcap.sources.SourceRules` is made of, without what there is none of."""
    rules: dict[str, object] = {
        "private_hosts": config.private_source_hosts,
        "owners": dict(entry.split("=") for entry in config.source_bucket_owners),
        "requester_pays": config.requester_pays_buckets,
    }
    return {name: rule for name, rule in rules.items() if rule}


def _health_check() -> ecs.HealthCheck:
    """Asked with the interpreter that is there anyway; urllib raises, and so exits with 1, on a 503."""
    ask = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{limits.HEALTH_PORT}/health', timeout=4)"
    return ecs.HealthCheck(
        command=["CMD", "python", "-c", ask],
        interval=Duration.seconds(30),
        timeout=Duration.seconds(5),
        retries=3,
        start_period=Duration.seconds(60),
    )


def service_role(scope: Construct, name: str, service: str, *statements: iam.PolicyStatement) -> iam.Role:
    """Inline, so that the rights exist before whatever uses the role, and the template shows them in one place."""
    return iam.Role(
        scope,
        name,
        assumed_by=iam.ServicePrincipal(service),
        inline_policies={"Allowed": iam.PolicyDocument(statements=list(statements), minimize=False)},
    )


def may_log(group: logs.LogGroup) -> iam.PolicyStatement:
    """Write to one log group. Its ARN is given with `:*`, as AWS judges it, and without, as the emulator does."""
    bare = Stack.of(group).format_arn(
        service="logs",
        resource="log-group",
        resource_name=group.log_group_name,
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
    return allow(["logs:CreateLogStream", "logs:PutLogEvents"], group.log_group_arn, bare)


def via_s3(actions: list[str], keys_: Iterable[str], bucket_arn: str = "") -> list[iam.PolicyStatement]:
    """The use of KMS keys by S3 alone, one statement per key; none for an empty name.

    An object of a bucket that has a bucket key is encrypted under the bucket's ARN, so `bucket_arn` narrows further.
    """
    context = {"kms:EncryptionContext:aws:s3:arn": bucket_arn} if bucket_arn else {}
    return [
        allow(actions, key, when={"StringEquals": {"kms:ViaService": _s3_of(key), **context}}) for key in keys_ if key
    ]


def _s3_of(key: str) -> str:
    """S3 as KMS names it, in the region of a key."""
    _, partition, _, region, *_ = key.split(":")
    return f"s3.{region}.amazonaws.com" + (".cn" if partition == "aws-cn" else "")


def allow(actions: list[str], *resources: str, when: dict[str, dict[str, str]] | None = None) -> iam.PolicyStatement:
    """These actions on these resources, under the condition `{operator: {key: value}}`."""
    return iam.PolicyStatement(actions=actions, resources=list(resources), conditions=when)
