"""`fleetcap rejected` and `redrive`: messages that did not become jobs, and another try for them.

Two queues hold them. `rejected`: intake read the message and found that it can never run, and why. `dead`: intake was
given it over and over and never settled it, because it failed or was killed each time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cli import queues
from cli.board import console, span
from cli.target import AsJson, CloudName, Failed, StackName, Target, reached
from fleetcap import limits

HOLD_S: Final = 30
"""How long a message is hidden at most, were the command killed before it shows it again. A batch is sent and deleted
in a fraction of that; where it takes longer, a message may be sent twice, as after a crash."""
EXCERPT_CHARS: Final = 160
_RECEIVED: Final = f"received {limits.INTAKE_MAX_RECEIVES} times and never settled; intake's log tells why"


class Queue(StrEnum):
    """The queues of messages that did not become jobs."""

    REJECTED = "rejected"
    DEAD = "dead"

    def url(self, target: Target) -> str:
        """The queue's address."""
        return target.output("RejectedQueueUrl" if self is Queue.REJECTED else "IntakeDeadLetterQueueUrl")


@dataclass(frozen=True)
class Letter:
    """A message that did not become a job. `message_id` is the one that its producer was given for it."""

    queue: Queue
    message_id: str
    reason: str
    body: str
    truncated: bool
    since: float
    held: queues.Held = field(repr=False)

    def record(self) -> dict[str, Any]:
        """It as a JSON document."""
        return {**{k: v for k, v in asdict(self).items() if k != "held"}, "queue": self.queue.value}


def letter(queue: Queue, held: queues.Held) -> Letter:
    """Read a message of one of the queues. What is no record of intake's is taken as it is."""
    if queue is Queue.DEAD:
        return Letter(queue, held.message_id, _RECEIVED, held.body, False, held.sent_at, held)
    try:
        record = json.loads(held.body)
        reason, body, message_id = str(record["reason"]), str(record["body"]), str(record["message_id"])
        return Letter(queue, message_id, reason, body, bool(record["truncated"]), held.sent_at, held)
    except (ValueError, TypeError, KeyError):
        return Letter(queue, held.message_id, "no reason is recorded", held.body, False, held.sent_at, held)


# --- looking on


def rejected(
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many of each queue at most.")] = 20,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """List messages that did not become jobs, with the reasons; they stay where they are."""
    with reached(name, stack) as target:
        found = [each for queue in Queue for each in looked_at(target, queue, limit)]
        counts = {queue.value: queues.waiting(target.sqs, queue.url(target)) for queue in Queue}
    if as_json:
        typer.echo(json.dumps({"messages": [each.record() for each in found], "about": counts}, indent=2))
        return
    console().print(_listing(found, time.time()) if found else "No message was rejected, and none is dead.")
    if sum(counts.values()) > len(found):
        about = ", ".join(f"{queue} about {count}" for queue, count in counts.items())
        typer.echo(f"A sample: the queues hold more ({about}); see --limit.", err=True)


def looked_at(target: Target, queue: Queue, most: int) -> list[Letter]:
    """Up to so many messages of a queue, shown again to everybody before this returns; oldest first."""
    with _holding(target, queue) as held:
        while len(held) < most:
            more = queues.hold(target.sqs, queue.url(target), HOLD_S, most - len(held))
            if not more:
                break
            held.update((each.receipt, each) for each in more)
        found = [letter(queue, each) for each in {each.message_id: each for each in held.values()}.values()]
    return sorted(found, key=lambda each: each.since)


@contextmanager
def _holding(target: Target, queue: Queue) -> Iterator[dict[str, queues.Held]]:
    """Messages by receipt that are shown again at the end, however it comes."""
    held: dict[str, queues.Held] = {}
    try:
        yield held
    finally:
        queues.let_go(target.sqs, queue.url(target), list(held.values()))


def _listing(found: Sequence[Letter], now: float) -> RenderableType:
    """A block a message: where it lies, why, and how its body begins."""
    blocks = []
    for each in found:
        text = Text(f"{each.queue.value}  ", "red").append(each.message_id, "bold")
        text.append(f"  {span(now - each.since)} ago\n", "dim").append(f"  {each.reason}\n")
        excerpt = each.body[:EXCERPT_CHARS] + ("…" if len(each.body) > EXCERPT_CHARS else "")
        blocks.append(text.append(f"  {excerpt}{' (truncated)' if each.truncated else ''}", "dim"))
    return Group(*blocks)


# --- redrive


@dataclass
class Redriven:
    """What a redrive did: `sent` as (letter, new message id), `left` as (letter, why it lies there still)."""

    sent: list[tuple[Letter, str]] = field(default_factory=list)
    left: list[tuple[Letter, str]] = field(default_factory=list)
    back: list[Letter] = field(default_factory=list)
    """Messages of this very redrive that were rejected again meanwhile; with their reasons they stay."""

    def record(self) -> dict[str, Any]:
        """It as a JSON document."""
        return {
            "redriven": [
                {"queue": each.queue.value, "message_id": each.message_id, "new_message_id": new_id}
                for each, new_id in self.sent
            ],
            "left": [{"queue": each.queue.value, "message_id": each.message_id, "why": why} for each, why in self.left],
            "rejected_again": [{"new_message_id": each.message_id, "reason": each.reason} for each in self.back],
        }


def redrive(
    message_id: Annotated[list[str] | None, typer.Option(help="Only this message; may be repeated.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every message that lies there now.")] = False,
    queue: Annotated[Queue | None, typer.Option(help="Only messages of this queue.")] = None,
    as_json: AsJson = False,
    name: CloudName = None,
    stack: StackName = None,
) -> None:
    """Send rejected and dead messages to the intake queue again, each deleted only once it is sent."""
    if bool(message_id) == everything:
        raise typer.BadParameter("name messages, or all of them", param_hint="--message-id, --all")
    wanted = set(message_id or ())
    done = Redriven()
    with reached(name, stack) as target:
        for each in [queue] if queue else list(Queue):
            redriven(target, each, wanted, done, lambda: _say(done))
    missing = sorted(wanted - {each.message_id for each, _ in done.sent + done.left})
    if as_json:
        typer.echo(json.dumps(done.record() | {"missing": missing}, indent=2))
    _close(done, as_json)
    if missing:
        raise Failed(f"not found in {queue.value if queue else 'either queue'}: {', '.join(missing)}")
    if done.left:
        raise typer.Exit(1)


def redriven(
    target: Target, queue: Queue, wanted: Collection[str], done: Redriven, said: Callable[[], None] = lambda: None
) -> None:
    """Redrive the messages of one queue: those of the ids `wanted`, or where that is empty all. `done` tells of each.

    As many are looked at as the queue shows at the beginning, and what comes back of this very redrive is left alone,
    so it ends whatever is rejected again. A crash after a send and before its delete leaves the message in both queues;
    redriven once more it joins the run of its key, or is answered by its result; only where that run has failed or was
    cancelled by then, it begins another.
    """
    url = queue.url(target)
    with _holding(target, queue) as all_held:
        looked, most = 0, queues.waiting(target.sqs, url)
        while looked < most and (held := queues.hold(target.sqs, url, HOLD_S)):
            all_held.update((each.receipt, each) for each in held)
            ours = {new_id for _, new_id in done.sent}
            letters = [letter(queue, each) for each in held]
            back = [each for each in letters if each.message_id in ours]
            chosen = [each for each in letters if each not in back and (not wanted or each.message_id in wanted)]
            done.back += back
            looked += len(letters) - len(back)
            for gone in _send(target, url, chosen, done):
                del all_held[gone.receipt]
            said()


def _send(target: Target, url: str, letters: Sequence[Letter], done: Redriven) -> Iterator[queues.Held]:
    """Send letters and delete those that were sent; what was deleted."""
    done.left += [(each, _TRUNCATED) for each in letters if each.truncated]
    whole = [each for each in letters if not each.truncated]
    once = list({each.message_id: each for each in whole}.values())
    for sent in queues.send(target.sqs, target.output("IntakeQueueUrl"), [each.body for each in once]):
        mine = once[sent.index]
        if sent.trouble:
            done.left.append((mine, f"not sent: {sent.trouble}"))
            continue
        # The same message may lie there twice, rejected at a redelivery as well; one try is enough for both.
        gone = [each.held for each in whole if each.message_id == mine.message_id]
        queues.delete(target.sqs, url, gone)
        done.sent.append((mine, sent.message_id))
        yield from gone


_TRUNCATED: Final = (
    f"its body was cut off at {limits.REJECTED_BODY_MAX_BYTES:,} bytes when it was rejected; send it anew yourself"
)


def _say(done: Redriven) -> None:
    typer.echo(f"{len(done.sent)} sent, {len(done.left)} left", err=True)


def _close(done: Redriven, as_json: bool) -> None:
    for each, why in done.left:
        typer.echo(f"{each.message_id}: {why}", err=True)
    for each in done.back:
        typer.echo(f"{each.message_id}: rejected again: {each.reason}", err=True)
    if not as_json:
        count = len(done.sent)
        typer.echo(f"{count} message{'s' * (count != 1)} redriven.")
