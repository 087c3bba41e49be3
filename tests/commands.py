"""The fleetcap command, carried out by this process: all of it but the second that a new Python takes to load it."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from cli.main import main

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def fleetcap(
    words: Sequence[object], folder: Path, environment: Mapping[str, str], stdin: str = ""
) -> CompletedProcess[str]:
    """What the command prints and how it ends in this folder, with this and no other environment.

    Errors that would be a traceback are raised.
    """
    arguments = ["fleetcap", *map(str, words)]
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    with ExitStack() as world:
        world.enter_context(chdir(folder))
        world.enter_context(patch.dict(os.environ, dict(environment), clear=True))
        world.enter_context(patch.object(sys, "argv", arguments))
        world.enter_context(patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")))
        out = world.enter_context(redirect_stdout(io.StringIO()))
        err = world.enter_context(redirect_stderr(io.StringIO()))
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
