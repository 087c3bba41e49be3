"""What may notice that a guard is missing: the simulator, the contract suite, and the unit tests, each on a copy."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutation.guard import ROOT, Guard

COPIED: Final = ("lambdas", "worker_image", "local", "tests", "pyproject.toml")
CONTRACT: Final = tuple(
    f"tests/contract/test_{name}.py"
    for name in (
        "control_table",
        "rules_agree",
        "guards",
        "pools",
        "dependencies",
        "arrays",
        "progress",
        "workers",
        "tasks",
    )
)
"""All that speaks of a guard. Left out: the comparison of two stores, which both lose it, and what knows none."""
UNIT: Final = ("tests/decide", "tests/handlers", "tests/worker/test_worker.py")
FIRST_SEED: Final = 1
WITHIN_S: Final = 300.0
HANGS: Final = ("-o", "timeout=180")
"""A mutant may hang, and a test of it that does has noticed: well before the whole run is given up."""
LINES_TOLD: Final = 12

BROKEN: Final = re.compile(r"\b(Name|Attribute|Type|Syntax|UnboundLocal|Import|Indentation)Error\b")
"""Errors of a mutation that is no program any more, rather than one without its guard."""


class Broken(Exception):
    """A killer could not do its work, so it says nothing about the guard."""


@dataclass(frozen=True)
class Kill:
    """Who noticed (simulator, contract, unit tests), by which seed or test, and what it said."""

    by: str
    hint: str
    said: str


class Copy:
    """A copy of the sources in which everything runs, and the processes that run there."""

    _running: Final[set[subprocess.Popen[str]]] = set()
    _ending = threading.Event()

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    @classmethod
    def end_all(cls) -> None:
        """End every process; whoever waits for one gets Broken."""
        cls._ending.set()
        for process in list(cls._running):
            _end(process)

    @classmethod
    def of_the_sources(cls, tree: Path) -> Copy:
        """A copy that stays as it is while others edit the sources."""
        leave_out = shutil.ignore_patterns("__pycache__", ".*")
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=leave_out)
            else:
                shutil.copy2(ROOT / name, tree / name)
        return cls(tree)

    def without(self, guard: Guard, tree: Path) -> Copy:
        """A copy of this copy in which the guard is missing; Broken if its module cannot be imported there."""
        shutil.copytree(self.tree, tree)
        guard.remove_in(tree)
        copy = Copy(tree)
        copy.imports(guard.module)
        return copy

    def imports(self, module: str) -> None:
        """The module is importable, and it is the copy's own rather than the installed one."""
        code, told = self.run("-c", f"import importlib; print(importlib.import_module({module!r}).__file__)")
        if code or not told.strip().startswith(str(self.tree)):
            raise Broken(f"{module} is not to be had from the copy: {_tail(told)}")

    def run(self, *arguments: str, within_s: float = WITHIN_S) -> tuple[int, str]:
        """Run Python in the copy; exit code and output. Broken where it takes too long."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPATH": f"{self.tree / 'lambdas'}{os.pathsep}{self.tree}", "COLUMNS": "400"}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._running.add(process)
        try:
            told, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"no end after {within_s:.0f} s: python {' '.join(arguments)}") from None
        finally:
            _end(process)
            self._running.discard(process)
        if self._ending.is_set():
            raise Broken("interrupted")
        return process.returncode, told

    # --- the killers

    def simulate(self, start: int, count: int, jobs: int = 1) -> Kill | None:
        """Histories under these seeds. Only a violated invariant counts; a traceback is Broken."""
        code, told = self.run(
            *("-m", "local.simulator", "--first", "--large", "0"),
            *("--start", str(start), "--count", str(count), "--jobs", str(jobs)),
        )
        violations = re.search(r"(\d+) violations$", told.strip())
        found = re.search(r"^seed (\d+): (.*)$", told, re.MULTILINE)
        if code == 0 and violations and violations[1] == "0":
            return None
        if code != 1 or not violations or not found or BROKEN.search(found[2]):
            raise Broken(f"the simulator ended with {code}: {_tail(told)}")
        return Kill("simulator", found[1], found[2])

    def test(self, by: str, *what: str) -> Kill | None:
        """Tests, up to the first that fails."""
        code, told = self.run("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *HANGS, "-m", "not cloud", *what)
        if code == 0:
            return None
        found = re.search(r"^(?:FAILED|ERROR) (\S+\.py::[^\[\s]+(?:\[.*?\])?)(?: - (.*))?$", told, re.MULTILINE)
        if code != 1 or not found:
            raise Broken(f"pytest ended with {code}: {_tail(told)}")
        return Kill(by, found[1], found[2] or "")


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it started: they are one session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def _tail(told: str) -> str:
    return "\n".join(told.strip().splitlines()[-LINES_TOLD:])


def baseline(copy: Copy, count: int, jobs: int) -> str:
    """Why the killers prove nothing: one of them fails although no guard is missing; or "" if none does."""
    copy.imports("fleetcap")
    copy.imports("local.simulator.history")
    for kill in (
        copy.simulate(FIRST_SEED, count, jobs),
        copy.test("contract", *_there(copy, CONTRACT)),
        copy.test("unit tests", *UNIT),
    ):
        if kill:
            return f"with every guard in place {kill.by} fails at {kill.hint}: {kill.said}"
    return ""


def hunt(whole: Copy, copy: Copy, count: int, hint: str) -> Kill:
    """Try all killers on a copy without a guard: what killed it last time, then one after the other.

    Broken where nobody noticed, with what those said who could not do their work.
    """
    killers: list[Callable[[], Kill | None]] = [
        lambda: _by_hint(copy, hint),
        lambda: copy.simulate(FIRST_SEED, count),
        lambda: copy.test("contract", *_there(copy, CONTRACT)),
        lambda: copy.test("unit tests", *UNIT),
    ]
    unable: list[str] = []
    for killer in killers:
        try:
            kill = killer()
            if kill and kill.by == "simulator" and (other := whole.simulate(int(kill.hint), 1)):
                raise Broken(f"seed {kill.hint} fails with the guard in place too: {other.said}")
        except Broken as error:
            unable.append(str(error))
            continue
        if kill:
            return kill
    raise Broken("; ".join(unable))


def _by_hint(copy: Copy, hint: str) -> Kill | None:
    if hint.isdecimal():
        return copy.simulate(int(hint), 1)
    return copy.test("contract", hint) if hint and _there(copy, [hint]) else None


def _there(copy: Copy, files: Sequence[str]) -> list[str]:
    return [name for name in files if (copy.tree / name.partition("::")[0]).exists()]
