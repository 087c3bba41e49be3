"""The container's health check and the worker's signals, as processes see them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import urllib3

from worker_image.health import serve


def status(port: int, path: str = "/health") -> int:
    return urllib3.request("GET", f"http://127.0.0.1:{port}{path}", timeout=30.0, retries=False).status


def test_the_health_check_answers_200_while_serving_and_503_while_draining() -> None:
    serving = [True]
    port = serve(lambda: serving[0], 0)
    assert status(port) == 200
    serving[0] = False
    assert status(port) == 503
    assert status(port, "/elsewhere") == 404


SIGNALLED = """
import sys, time
from worker_image.__main__ import _on_signals
received = _on_signals()
print("ready", flush=True)
while True:
    time.sleep(0.05)
    if received:
        print("asked", flush=True)
"""


def test_the_first_signal_asks_and_the_second_ends_the_worker_at_once() -> None:
    worker = subprocess.Popen([sys.executable, "-c", SIGNALLED], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    worker.send_signal(signal.SIGTERM)
    assert worker.stdout.readline() == "asked\n"
    time.sleep(0.1)
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 128 + signal.SIGTERM
    worker.stdout.close()
