"""The deployment, one line per stack. The feature flags in cdk.json hold however this file is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stacks.config import CONTEXT_CAP, CONTEXT_KEY, Config, ConfigError

if TYPE_CHECKING:
    from aws_cdk import App


def deployment(overrides: Mapping[str, object] | None = None, outdir: str | None = None) -> App:
    """The app, ready to synth. `overrides` is CDK context, as `-c` gives it. Raises ConfigError."""
    from aws_cdk import App

    from stacks.control import Control
    from stacks.observability import Observability
    from stacks.state import State
    from stacks.worker import Worker

    flags = json.loads(Path(__file__).with_name("cdk.json").read_text(encoding="utf-8"))["context"]
    app = App(context={**flags, **(overrides or {})}, outdir=outdir)
    config = Config.from_context({key: app.node.try_get_context(key) for key in (CONTEXT_KEY, CONTEXT_CAP)})

    state = State(app, config)
    worker = Worker(app, config, state)
    control = Control(app, config, state, worker)
    if config.observability:
        Observability(app, config, state, control)
    return app


if __name__ == "__main__":
    try:
        deployment().synth()
    except ConfigError as refusal:
        sys.exit(str(refusal))
