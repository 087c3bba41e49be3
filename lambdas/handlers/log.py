"""The deciders' log: Powertools' structured lines, one per decision."""

from __future__ import annotations

from aws_lambda_powertools import Logger

_logger = Logger()


def log(event: str, **fields: object) -> None:
    """ports.Log."""
    _logger.info(event, extra=fields)
