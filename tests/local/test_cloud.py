"""Starting an embedded cloud where something is in the way."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local import cloud as module
from local.cloud import HOST, Cloud


@pytest.mark.cloud
def test_a_port_taken_meanwhile_is_chosen_anew_and_helpers_at_work_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = module._free_ports
    with socket.create_server((HOST, 0)) as taken, Cloud(tmp_path / "cloud", 0.1) as cloud:
        answers = [[*chosen(2), taken.getsockname()[1]]]
        monkeypatch.setattr(module, "_free_ports", lambda count: answers.pop() if answers else chosen(count))
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], env=cloud.environment())
        endpoints = cloud.start()
        assert answers == []
        assert str(taken.getsockname()[1]) not in endpoints.ecs + endpoints.aws
        assert helper.poll() is None
    helper.wait(60)
    assert not psutil.pid_exists(helper.pid)
