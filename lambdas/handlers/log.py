"""The deciders' log: Powertools' structured lines, one per decision, and no secret in any."""

from __future__ import annotations

from aws_lambda_powertools import Logger

from fleetcap.scrub import scrubbed_field

_logger = Logger()


def log(event: str, **fields: object) -> None:
    """ports.Log."""
    _logger.info(event, extra={name: scrubbed_field(value) for name, value in fields.items()})
