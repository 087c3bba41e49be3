"""How a job fails: the world's fault here, the input's in `processors.base`, and what either may say in `scrub`."""

from __future__ import annotations

from fleetcap.scrub import scrubbed

__all__ = ["TransientError", "scrubbed"]


class TransientError(Exception):
    """The world failed, not the input: the same job may well succeed later. The text is one plain sentence.

    `wait_s` is how long whoever failed asked to be left alone.
    """

    def __init__(self, sentence: str, wait_s: float = 0.0) -> None:
        super().__init__(sentence)
        self.wait_s = wait_s
