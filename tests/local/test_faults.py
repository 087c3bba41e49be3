"""What counts as a fault, and whom it strikes how often: the rules, without a cloud."""

from __future__ import annotations

import math
from typing import Any

import pytest

from local.fargate.faults import ERRORS, KINDS, REASONS, RUN_TASK, BadFault, Fault, Faults


def standing(*bodies: dict[str, Any]) -> Faults:
    faults = Faults()
    for body in bodies:
        faults.add(Fault.parse(body))
    return faults


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "an object"),
        ({}, "There is no fault None"),
        ({"kind": "flood"}, "There is no fault 'flood'; there are no-capacity, throttle"),
        ({"kind": ["throttle"]}, "There is no fault"),
        ({"kind": "throttle", "time": 1}, "A fault has no 'time'; it has kind, times"),
        ({"kind": "throttle", "times": 0}, "`times` is a whole number"),
        ({"kind": "throttle", "times": True}, "`times` is a whole number"),
        ({"kind": "throttle", "times": 1.5}, "`times` is a whole number"),
        ({"kind": "throttle", "share": 1.1}, "`share` is a number from 0 to 1"),
        ({"kind": "throttle", "share": math.nan}, "`share` is a number from 0 to 1"),
        ({"kind": "throttle", "share": "half"}, "`share` is a number from 0 to 1"),
        ({"kind": "throttle", "seed": "x"}, "`seed` is a whole number"),
        ({"kind": "throttle", "family": None}, "`family` is a text"),
        ({"kind": "throttle", "seconds": 1}, "throttle takes no `seconds`"),
        ({"kind": "throttle", "text": "slow"}, "throttle takes no `text`"),
        ({"kind": "delay-events"}, "delay-events needs `seconds`: how late they come at most"),
        ({"kind": "delay-events", "seconds": math.inf}, "`seconds` is a number from 0 to 3600"),
        ({"kind": "delay-events", "seconds": -1}, "`seconds` is a number from 0 to 3600"),
        ({"kind": "lag-list", "seconds": "5"}, "`seconds` is a number"),
        ({"kind": "drop-events", "text": "STOPPING"}, "There is no lastStatus 'STOPPING'"),
        ({"kind": "refuse", "text": ": nothing"}, "`text` of refuse is CODE or CODE: MESSAGE"),
    ],
)
def test_what_is_no_fault_is_refused_with_one_sentence(body: object, sentence: str) -> None:
    with pytest.raises(BadFault) as caught:
        Fault.parse(body)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_stands_with_no_more_than_it_needs(kind: Any) -> None:
    fault = Fault.parse({"kind": kind.name} | ({"seconds": 1} if kind.needs_seconds else {}))
    assert (fault.times, fault.share, fault.family, fault.text) == (None, 1.0, "", "")


def test_every_kind_of_run_task_has_its_error_its_reason_or_its_failures() -> None:
    assert set(RUN_TASK) == {*ERRORS, *REASONS, "no-capacity"}


def test_a_refusal_is_what_its_text_says() -> None:
    error = Fault.parse({"kind": "refuse", "text": "BlockedException: Your account is blocked."}).error
    assert (error.code, error.message) == ("BlockedException", "Your account is blocked.")
    assert Fault.parse({"kind": "refuse"}).error.code == "AccessDeniedException"


def test_a_fault_is_used_up_and_stays_listed_until_it_is_cleared() -> None:
    faults = standing({"kind": "throttle", "times": 2})
    assert [bool(faults.strike("throttle")) for _ in range(3)] == [True, True, False]
    [listed] = faults.listed()
    assert (listed["id"], listed["struck"], listed["left"], listed["times"]) == (1, 2, 0, 2)
    assert (faults.clear(), faults.listed()) == (1, [])


def test_one_fault_is_cleared_by_its_id_and_no_id_comes_twice() -> None:
    faults = standing({"kind": "throttle"}, {"kind": "image"})
    assert (faults.clear(7), faults.clear(1)) == (0, 1)
    assert [each["kind"] for each in faults.listed()] == ["image"]
    faults.clear()
    assert faults.add(Fault("throttle")) == 3


def test_a_seed_strikes_the_same_share_again() -> None:
    body = {"kind": "throttle", "share": 0.3, "seed": 7}
    first, again = standing(body), standing(body)
    struck = [bool(first.strike("throttle")) for _ in range(200)]
    assert struck == [bool(again.strike("throttle")) for _ in range(200)]
    assert 40 <= sum(struck) <= 80
    assert sum(struck) == first.listed()[0]["struck"]


def test_a_seed_that_nobody_gave_is_told() -> None:
    [listed] = standing({"kind": "throttle"}).listed()
    assert isinstance(listed["seed"], int)


def test_a_fault_of_a_family_strikes_no_other() -> None:
    faults = standing({"kind": "lag-list", "seconds": 5, "family": "a"})
    assert faults.strike("lag-list", families=["b"]) is None
    assert faults.strike("lag-list", families=[]) is None
    struck = faults.strike("lag-list", families=["b", "a"])
    assert struck and (struck.lag_s("a"), struck.lag_s("b")) == (5, 0)
    assert faults.strike("lag-list") is struck  # a call that concerns every family


def test_the_first_of_several_that_strikes_is_the_one() -> None:
    faults = standing({"kind": "throttle", "times": 1}, {"kind": "refuse"})
    kinds = [struck.kind for _ in range(2) if (struck := faults.strike("refuse", "throttle"))]
    assert kinds == ["throttle", "refuse"]


def test_an_event_arrives_as_often_and_as_late_as_the_faults_say() -> None:
    assert Faults().deliveries("f", "RUNNING") == [0.0]
    assert standing({"kind": "drop-events"}, {"kind": "double-events"}).deliveries("f", "RUNNING") == []
    assert standing({"kind": "double-events"}).deliveries("f", "RUNNING") == [0.0, 0.0]
    both = standing({"kind": "double-events"}, {"kind": "delay-events", "seconds": 5, "seed": 1})
    one, other = both.deliveries("f", "RUNNING")
    assert one != other and 0 < one < 5 and 0 < other < 5
    assert [each["struck"] for each in both.listed()] == [1, 2]


def test_an_event_fault_may_be_for_one_status_only() -> None:
    faults = standing({"kind": "drop-events", "text": "STOPPED"})
    assert (faults.deliveries("f", "RUNNING"), faults.deliveries("f", "STOPPED")) == ([0.0], [])
