"""Fargate for the embedded cloud: an ECS endpoint that runs one real process per task.

    python -m local.fargate --port P --emulator https://127.0.0.1:4566 --state-dir DIR --cold-start-s 2.0

The emulator holds clusters and task definitions, but its RunTask only writes a record. This endpoint answers
RunTask, StopTask, DescribeTasks and ListTasks itself and passes every other ECS call on, signature and all. The
emulator must run `local.fargate.gate:app` (the emulator itself plus one path that judges signed requests).

Real:
- the process: argv, environment, session, signals, exit code; TERM, then KILL after the container's stopTimeout;
- the task's life: PROVISIONING, PENDING, RUNNING, DEPROVISIONING, STOPPED, with `version` growing at every change;
- client tokens: one task per token whoever races, the original answer with its `failures[]`, conflicts;
- authorization: signature, identity policies, boundaries and conditions, for ECS's own actions on the resources that
  AWS judges them on, and for iam:PassRole and ecs:TagResource;
- the task role's temporary credentials, the v4 metadata, logs shipped with the execution role;
- `ECS Task State Change` events to the SQS queues and Lambda functions of matching rules, in order for each task.

Not real:
- no image is pulled: the command runs on this machine, in this repository, with this Python. Nothing is isolated but
  the environment and the folder for temporary files; cpu and memory are shown, not enforced;
- only the first essential container of a task definition becomes a process; secrets, volumes and health checks do not
  exist (a container that asks for secrets fails to start);
- networks are accepted and ignored; without faults, reads are consistent at once and nothing is throttled;
- a rule's input transformations are not applied;
- around it, the emulator asks no queue's policy when a rule sends there, keeps no event whose target refuses it, and
  removes nothing when its TTL is over; functions are fed from a table's stream by `streams`, as Lambda does it.

Faults to order (`fleetcap local fault`; `knobs` lists the HTTP calls, `faults` the kinds):
- RunTask: no capacity, throttles bare and wrapped, refusals, errors before and after the start, tasks that never start;
- events: dropped, doubled, delayed and thereby reordered; reads: answers of some seconds ago, an empty list;
- one task: a hang, a Spot interruption with its warning, death.

The rooms: `tasks` (the registry: values and rules, no clock, no input or output), `faults` (values and rules as well),
`run_task` (parameters), `fleet` (carries each task through its life), `processes`, `events`, `logs`, `authorization`,
`emulator`, `server`, `knobs`, and, within the emulator's process, `gate` and `streams`. Faults go in where a part is
handed to another: the registry asks whether there is capacity, `FaultyEvents` stands before the events, the server
before RunTask and behind it.
"""
