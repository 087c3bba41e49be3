"""The deciders' log: Powertools' structured lines, one per decision, figures told as metrics, and no secret in any."""

from __future__ import annotations

from aws_lambda_powertools import Logger

from fleetcap import keys, metrics, wiring
from fleetcap.adapters.system import SystemClock
from fleetcap.scrub import scrubbed_field

_logger = Logger()
_clock = SystemClock()
_NAMESPACE = wiring.setting(keys.ENV_METRICS, "")


def log(event: str, **fields: object) -> None:
    """ports.Log."""
    told = {name: scrubbed_field(value) for name, value in fields.items()}
    _logger.info(event, extra=told | metrics.embedded(fields, _NAMESPACE, _clock.now()))
