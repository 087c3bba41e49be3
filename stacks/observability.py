"""What a person sees of the deployment, and what wakes one: a dashboard, and alarms that each say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aws_cdk import CfnOutput, Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from fleetcap import metrics
from stacks.config import ALARM_PERIOD_S, Config
from stacks.control import Control
from stacks.state import State

PERSISTS: Final = 3
"""In how many periods in a row something must be seen that may come and go by itself."""
PATIENCE: Final = 3
"""How many failures within one period are too many of those that the next tick makes good."""


@dataclass(frozen=True)
class Watch:
    """One alarm: it goes off at this value or more, in so many periods in a row, and says why somebody should come.

    With `wants_more` it goes off below the value, and where nothing is told at all.
    """

    name: str
    metric: cloudwatch.IMetric
    at: float
    why: str
    periods: int = 1
    wants_more: bool = False


class Observability(Stack):
    """Lifecycle: deployed last, and only looks on. To switch it off, destroy this stack before the setting is deployed.

    Gotcha: an alarm reads one metric without arithmetic (a label would make it some), so that each can be deployed in
    the embedded cloud too; what needs arithmetic, such as a wait beside a free slot, the tick computes.
    """

    def __init__(self, scope: Construct, config: Config, state: State, control: Control) -> None:
        super().__init__(scope, config.stack("Observability"), description="Fleetcap: dashboard and alarms")
        self._config, self._state, self._control = config, state, control
        self._topic = (
            sns.Topic.from_topic_arn(self, "Topic", config.alarm_topic_arn) if config.alarm_topic_arn else None
        )
        for watch in [*self._cap(), *self._deciders(), *self._queues()]:
            self._alarm(watch)
        for pool in config.pools:
            for watch in self._pool(pool.name):
                self._alarm(watch)
        dashboard = cloudwatch.Dashboard(
            self, "Dashboard", period_override=cloudwatch.PeriodOverride.AUTO, widgets=self._rows()
        )
        CfnOutput(self, "DashboardName", value=dashboard.dashboard_name)

    # --- alarms

    def _cap(self) -> list[Watch]:
        return [
            Watch(
                "CapBreach",
                self._of("", "cap_breaches"),
                1,
                "A task of ours lives without a slot. This must never be: see the tick's log for 'cap breach'.",
            ),
            Watch(
                "ForeignTask",
                self._of("", "foreign_tasks"),
                1,
                "Somebody else runs a task in the cluster, outside of every cap: the tick's log has 'foreign task'.",
            ),
            Watch(
                "UnresolvedLaunch",
                self._of("", "unresolved_launches"),
                1,
                "RunTask has had no answer for an hour. See why before a day is over: the tick's log has 'alarm'.",
            ),
        ]

    def _pool(self, pool: str) -> list[Watch]:
        return [
            Watch(
                f"Unserved-{pool}",
                self._of(pool, "unserved_wait_s", cloudwatch.Stats.MINIMUM),
                self._config.alarm_unserved_s,
                f"Jobs of pool {pool} wait although its cap has room: see its dashboard row, then 'fleetcap job KEY'.",
                PERSISTS,
            ),
            Watch(
                f"Backoff-{pool}",
                self._of(pool, "launch_strikes", cloudwatch.Stats.MINIMUM),
                1,
                f"Launches of pool {pool} keep failing, and it backs off: the log has the reason at 'release'.",
                self._config.alarm_backoff_s // ALARM_PERIOD_S,
            ),
        ]

    def _deciders(self) -> list[Watch]:
        tick, publish = self._control.tick, self._control.publish
        return [
            Watch(
                "TickSilent",
                tick.metric_invocations(period=_PERIOD),
                1,
                "The tick has not run for five minutes: nothing that is lost is found. See its schedule.",
                wants_more=True,
            ),
            Watch(
                "TickErrors",
                tick.metric_errors(period=_PERIOD),
                PATIENCE,
                "The tick dies or runs out of time, again and again: see its log.",
            ),
            Watch(
                "TickFailing",
                self._of("", "tick_failures"),
                PATIENCE,
                "Steps of the tick fail, again and again: its log has 'tick failed' and the error.",
            ),
            Watch(
                "PublishBehind",
                publish.metric("IteratorAge", statistic=cloudwatch.Stats.MAXIMUM, period=_PERIOD),
                self._config.alarm_queue_age_s * 1_000,
                "Changes of jobs do not reach the event bus: publish's log has 'not published' and the error.",
            ),
        ]

    def _queues(self) -> list[Watch]:
        state, control = self._state, self._control
        age_s = self._config.alarm_queue_age_s
        watches = [
            Watch("IntakeBehind", _age(state.intake), age_s, "Messages wait for intake: its log has 'not taken in'."),
            Watch(
                "EventsBehind",
                _age(control.events),
                age_s,
                "Stop events wait for task_state: its log has 'not settled' and the error.",
            ),
            Watch(
                "IntakeGivenUp",
                _depth(state.intake_dead_letters),
                1,
                "A message could not be taken in, however often it was tried. Mend the cause, then redrive the queue.",
            ),
            Watch(
                "EventsGivenUp",
                _depth(control.event_dead_letters),
                1,
                "A stop event could not be heard; the tick has found its task meanwhile. See task_state's log.",
            ),
            Watch(
                "PublishGivenUp",
                _depth(control.unpublished),
                1,
                "A change of a job was never published: the queue has which, docs/events.md what to do.",
            ),
        ]
        if self._config.alarm_rejected:
            watches.append(
                Watch(
                    "RejectedMessages",
                    _depth(state.rejected),
                    1,
                    "A message was refused: 'fleetcap rejected' says why.",
                )
            )
        return watches

    def _alarm(self, watch: Watch) -> None:
        missing, compare = cloudwatch.TreatMissingData, cloudwatch.ComparisonOperator
        at_least, below = compare.GREATER_THAN_OR_EQUAL_TO_THRESHOLD, compare.LESS_THAN_THRESHOLD
        alarm = cloudwatch.Alarm(
            self,
            watch.name,
            alarm_description=watch.why,
            metric=watch.metric,
            threshold=watch.at,
            evaluation_periods=watch.periods,
            comparison_operator=below if watch.wants_more else at_least,
            treat_missing_data=missing.BREACHING if watch.wants_more else missing.NOT_BREACHING,
        )
        if self._topic:
            alarm.add_alarm_action(actions.SnsAction(self._topic))
            alarm.add_ok_action(actions.SnsAction(self._topic))

    # --- the dashboard

    def _rows(self) -> list[list[cloudwatch.IWidget]]:
        return [*(self._pool_row(pool.name) for pool in self._config.pools), self._decider_row(), self._queue_row()]

    def _pool_row(self, pool: str) -> list[cloudwatch.IWidget]:
        longest, middle = cloudwatch.Stats.MAXIMUM, cloudwatch.Stats.percentile(50)
        return [
            _graph(
                f"{pool}: slots",
                6,
                self._named(pool, longest, "slots_ready", "slots_launching", "slots_empty", "cap", "cap_headroom"),
                self._named(pool, longest, "reservations_pending", "reservations_assigned", "reservations_expired"),
            ),
            _graph(
                f"{pool}: queue",
                6,
                self._named(pool, longest, "queue_depth"),
                self._named(pool, longest, "oldest_wait_s", "unserved_wait_s"),
            ),
            _graph(
                f"{pool}: launches",
                4,
                self._named(pool, None, "launches_started", "launches_failed", "launches_unanswered"),
                self._named(pool, longest, "launch_strikes"),
            ),
            _graph(
                f"{pool}: time to worker",
                4,
                [
                    self._of(pool, "time_to_worker_s", stat)
                    for stat in (middle, cloudwatch.Stats.percentile(95), longest)
                ],
            ),
            _graph(
                f"{pool}: attempts",
                4,
                self._named(pool, None, *(each.name for each in metrics.ALL if each.name.startswith("attempts_"))),
            ),
        ]

    def _decider_row(self) -> list[cloudwatch.IWidget]:
        longest = cloudwatch.Stats.MAXIMUM
        functions = self._functions()
        ticks = [self._of(pool.name, "tick_duration_s", longest) for pool in self._config.pools]
        return [
            _graph("Cap breaches, foreign tasks", 6, self._named("", longest, "cap_breaches", "foreign_tasks")),
            _graph(
                "Errors",
                6,
                [each.metric_errors(label=name) for name, each in functions.items()],
                self._named("", None, "tick_failures", "unresolved_launches"),
            ),
            _graph("Duration", 6, [each.metric_duration(label=name) for name, each in functions.items()]),
            _graph("Tick by pool", 6, ticks),
        ]

    def _queue_row(self) -> list[cloudwatch.IWidget]:
        state, control = self._state, self._control
        behind = control.publish.metric("IteratorAge", statistic=cloudwatch.Stats.MAXIMUM, label="publish, ms")
        kept = {
            "intake, dead": state.intake_dead_letters,
            "events, dead": control.event_dead_letters,
            "unpublished": control.unpublished,
            "rejected": state.rejected,
        }
        return [
            _graph(
                "Age of the oldest message",
                12,
                [_age(state.intake, "intake"), _age(control.events, "events")],
                [behind],
            ),
            _graph("Kept for a person", 12, [_depth(queue, label) for label, queue in kept.items()]),
        ]

    def _functions(self) -> dict[str, lambda_.Function]:
        control = self._control
        return {
            "intake": control.intake,
            "task_state": control.task_state,
            "tick": control.tick,
            "publish": control.publish,
        }

    # --- metrics

    def _named(self, pool: str, statistic: str | None, *names: str) -> list[cloudwatch.IMetric]:
        return [self._of(pool, name, statistic) for name in names]

    def _of(self, pool: str, name: str, statistic: str | None = None) -> cloudwatch.Metric:
        """A metric of ours, by default summed up; `pool` is empty for one of the deployment as a whole."""
        known = metrics.BY_NAME[name]
        if bool(pool) != bool(known.dimension):
            raise ValueError(f"{name} is told {'by pool' if known.dimension else 'of the deployment'}")
        return cloudwatch.Metric(
            namespace=self._config.metrics_namespace,
            metric_name=name,
            dimensions_map={known.dimension: pool} if pool else None,
            statistic=statistic or cloudwatch.Stats.SUM,
            period=_PERIOD,
        )


_PERIOD: Final = Duration.seconds(ALARM_PERIOD_S)


def _age(queue: sqs.Queue, label: str | None = None) -> cloudwatch.Metric:
    return queue.metric_approximate_age_of_oldest_message(period=_PERIOD, label=label)


def _depth(queue: sqs.Queue, label: str | None = None) -> cloudwatch.Metric:
    return queue.metric_approximate_number_of_messages_visible(period=_PERIOD, label=label)


def _graph(
    title: str, width: int, left: Sequence[cloudwatch.IMetric], right: Sequence[cloudwatch.IMetric] = ()
) -> cloudwatch.GraphWidget:
    zero = cloudwatch.YAxisProps(min=0)
    return cloudwatch.GraphWidget(
        title=title, width=width, height=6, left=list(left), right=list(right), left_y_axis=zero, right_y_axis=zero
    )
