"""The rules of the house, held by reading the source: who may import what, spell names, read a clock."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cli.main import app
from fleetcap import keys, limits
from fleetcap.messages import Message
from fleetcap.model import Holder, Job, JobStatus, Request, Reservation, Slot, SlotId, SlotState
from tests.conftest import LONGEST_FIRST, TESTS

ROOT = Path(__file__).parent.parent
LAMBDAS = ROOT / "lambdas"

CLOCK_MODULES = {"random", "secrets", "uuid", "time", "datetime", "threading", "asyncio", "select", "signal"}
CLOCK_CALLS = re.compile(r"\bos\.(urandom|getrandom)\b|\.wait\(")
READS_THE_CLOCK = {
    "lambdas/fleetcap/adapters/system.py": "the port itself",
    "worker_image/__main__.py": "the entry point: hears signals",
    "worker_image/health.py": "answers the container's health check from a thread; decides nothing",
    "worker_image/child.py": "an entry point: a process of its own that decides nothing",
    "worker_image/children.py": "the port that starts and kills processes",
    "worker_image/nursery.py": "part of that port: forks processes",
    "worker_image/processors/sorting.py": "part of the child's process: waits for sort to end",
    "worker_image/download.py": "part of the child's entry point: pauses between retries of a download",
}


SPEAK_JSON_OF_THEIR_OWN = {"child.py", "children.py"}
"""Their mappings are lines between a worker and its job's process, not items."""


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, by its full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sources("lambdas/fleetcap/decide"), ids=lambda path: path.stem)
def test_decisions_import_the_standard_library_and_the_values_they_decide_on(path: Path) -> None:
    foreign = {
        name
        for name in imported(path)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not name.startswith(("fleetcap.model", "fleetcap.limits", "fleetcap.catalog", "fleetcap.decide"))
    }
    assert foreign == set()


@pytest.mark.parametrize("path", sources("stacks"), ids=lambda path: path.stem)
def test_stacks_take_names_limits_metrics_and_the_catalog_from_the_product_and_nothing_else(path: Path) -> None:
    taken = {name for name in imported(path) if name.startswith(("fleetcap", "handlers", "worker_image"))}
    names = ("fleetcap.keys", "fleetcap.limits", "fleetcap.catalog", "fleetcap.metrics")
    assert all(name.startswith(names) for name in taken), taken


EXPRESSION = re.compile(r"^(SET|REMOVE|ADD) |attribute_(not_)?exists\(|#(state|status|generation|arn|attempt)\b")


def attribute_names() -> set[str]:
    """Every attribute of the table that could be spelt elsewhere: of every kind of item, put or written later."""
    request = Request("s3://bucket/key.bam", "bam")
    job = Job("key", 1, JobStatus.COMPLETED, "default", 5, request)
    written = keys.slot_item(SlotId("default", 0), 0.0) | keys.job_item(job, "op")
    slot = Slot(SlotId("default", 0), SlotState.EMPTY, 1)
    writes = [
        keys.lease_write(slot, "", "", 0, 0.0, ""),
        keys.beat_write(slot.lease, "arn", True, 0.0),
        keys.release_write(slot.lease, "", 0.0, "", 1.0, ""),
        keys.missing_write(slot.lease, 0.0),
        keys.retire_write(slot.id, retire=True, version=1),
        keys.leave_write(slot.lease, ""),
        keys.keep_write(slot.lease, keep=True),
        keys.override_write("default", {}, 0, ""),
        keys.widen_write("default", 1),
        keys.unblock_write(job, 0.0, ""),
        keys.grow_write(job),
        keys.gather_write(job, JobStatus.COMPLETED, 0.0, "", (1, 1, 1), ""),
        keys.claim_write(job, Holder(slot.lease), 0.0, "", "task"),
        keys.heartbeat_write(job, 0.0, "", 0.0, "", ("a",)),
        keys.cancel_write(job, ""),
        keys.draw_write("default", 5, "tenant", 0, 0, 1, 0.0),
    ]
    written |= keys.reserve_write(Reservation("default", "r", 1, 0.0, 0.0)).item
    written |= keys.edge_item("parent", "dependent", 0.0)
    return set(written) | {name for write in writes for name in (*write.sets, *write.removes)}


def test_no_module_but_keys_spells_an_attribute_name() -> None:
    """As a subscript or a `.get`, that is: the words themselves are also fields of values and of AWS's answers."""
    names = attribute_names() - {"message", "pool", "version"}
    offenders: list[str] = []
    for path in sources("lambdas", "worker_image"):
        if path.name in {"keys.py", *SPEAK_JSON_OF_THEIR_OWN}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            key: ast.expr | None = None
            if isinstance(node, ast.Subscript):
                key = node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                key = node.args[0] if node.args else None
            spelt = [key] if key is not None else []
            spelt += [each for each in node.keys if each is not None] if isinstance(node, ast.Dict) else []
            offenders += [
                f"{path.relative_to(ROOT)}:{each.lineno} spells {each.value!r}"
                for each in spelt
                if isinstance(each, ast.Constant) and each.value in names
            ]
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and EXPRESSION.search(node.value):
                offenders.append(f"{path.relative_to(ROOT)}:{node.lineno} writes an expression")
    assert offenders == []


@pytest.mark.parametrize("path", sources("lambdas", "worker_image"), ids=lambda path: str(path.relative_to(ROOT)))
def test_time_and_chance_come_through_the_clock_port(path: Path) -> None:
    if str(path.relative_to(ROOT)) in READS_THE_CLOCK:
        return
    direct = {name for name in imported(path) if name.partition(".")[0] in CLOCK_MODULES}
    assert direct == set()
    assert CLOCK_CALLS.findall(path.read_text()) == []


def test_the_list_of_those_who_may_read_a_clock_is_not_longer_than_needed() -> None:
    needless = [
        name
        for name in READS_THE_CLOCK
        if not any(module.partition(".")[0] in CLOCK_MODULES for module in imported(ROOT / name))
        and not CLOCK_CALLS.search((ROOT / name).read_text())
    ]
    assert needless == []


def test_imports_point_one_way() -> None:
    kept = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert kept.returncode == 0, kept.stdout


def test_no_room_is_called_utils_common_or_helpers() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    files = sources("lambdas", "stacks", "worker_image", "local", "cli", "tests")
    assert [path for path in files if vague & {path.stem, *path.parent.relative_to(ROOT).parts}] == []


EVERY_ADDRESS = re.compile(
    r"""(?<![\d.])0\.0\.0\.0|(Server|\.bind)\(\s*\(\s*["'](::)?["']|["']::["']|\bhost=(None|["']["'])"""
)


def test_nothing_binds_beyond_the_loopback_address() -> None:
    """Neither by the address of all, nor by none at all, which means the same."""
    files = sources("lambdas", "worker_image", "local", "cli")
    assert [path for path in files if EVERY_ADDRESS.search(path.read_text())] == []


def deciders() -> set[str]:
    """The Lambda functions, each a module of its name."""
    return {path.stem for path in (LAMBDAS / "handlers").glob("*.py")} - {"__init__", "log"}


def test_the_readme_lists_the_stacks_functions_one_line_each() -> None:
    template = next((ROOT / "tests" / "stacks").rglob("*ontrol*.json")).read_text()  # held equal to the stack
    deployed = set(re.findall(r"handlers\.(\w+)\.handler", template))
    section = (ROOT / "README.md").read_text().partition("## The processes")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| ", section, flags=re.MULTILINE)
    assert deployed == deciders()
    assert sorted(listed) == sorted({*deployed, "worker"})


def test_the_readme_lists_the_fields_of_the_message() -> None:
    section = (ROOT / "README.md").read_text().partition("## The message")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| ", section, flags=re.MULTILINE) == list(Message.model_fields)


def test_the_readme_shows_every_command_for_jobs_and_pools() -> None:
    section = (ROOT / "README.md").read_text().partition("## At the command line")[2].partition("\n## ")[0]
    lines = re.findall(r"^(fleetcap .+)$", section, flags=re.MULTILINE)
    top = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    registered = {f"fleetcap {command.name}": command for command in top if command.rich_help_panel}
    for name, group in list(registered.items()):
        registered |= {f"{name} {inner}": command for inner, command in getattr(group, "commands", {}).items()}
    shown = {max((name for name in registered if f"{line} ".startswith(f"{name} ")), default=line) for line in lines}
    assert shown == set(registered)
    assert all(command.help for command in registered.values())


def test_the_architecture_page_lists_the_operations_of_the_table() -> None:
    listed = re.findall(r"^\| (\w+) \| ", (ROOT / "docs" / "architecture.md").read_text(), flags=re.MULTILINE)
    writes = {name.removesuffix("_write") for name in vars(keys) if name.endswith("_write")}
    assert set(listed) - {"operation"} == writes - {"heartbeat", "create"}


def test_the_glossary_knows_every_kind_of_item_and_every_decider() -> None:
    words = set(re.findall(r"^\| ([^|]+) \| ", (ROOT / "docs" / "glossary.md").read_text(), flags=re.MULTILINE))
    named = [
        keys.slot_key(SlotId("p", 0)),
        keys.job_key("k"),
        keys.override_key("p"),
        keys.reservation_key("p", "r"),
        keys.share_key("p", 5, "t"),
    ]
    assert len(named) == sum(name.endswith("_key") and not name.startswith("_") for name in vars(keys))
    kinds = {key[keys.TABLE_SK].partition("#")[0].lower() for key in named} | {keys.EDGES.lower()}
    assert kinds | deciders() | {"worker", "lease", "holder", "attempt", "op"} <= words


def test_every_limit_with_a_unit_says_it_last() -> None:
    units = ("_S", "_DAYS", "_MB", "_GIB", "_BYTES", "_CHARS", "_PORT")
    counts = {name for name in vars(limits) if name.isupper() and not name.endswith(units)}
    of_time = {"AFTER", "AGE", "BUDGET", "DELAY", "EXIT", "LIFE", "LIFETIME", "PAUSE", "PERIOD", "TIMEOUT", "TTL"}
    assert [name for name in counts if of_time & set(name.split("_"))] == []
    assert [name for name in counts if any(f"{unit}_" in name for unit in units)] == []
    assert all(isinstance(getattr(limits, name), int) for name in counts), counts


def test_nothing_tracked_says_where_to_download_from() -> None:
    """A lock names no address at all; whoever installs from it says where from."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [path for name in listed.split("\0") if name and (path := ROOT / name) != Path(__file__)]
    setting = re.compile(r"--(extra-)?index-url|--find-links|\b(extra-)?index-url\s*=|\bregistry\s*=\s*[\"']?https?:")
    assert [path for path in tracked if path.exists() and setting.search(path.read_text(errors="replace"))] == []
    python = [ROOT / "requirements.lock", ROOT / "requirements-uv.lock", ROOT / "worker_image" / "requirements.lock"]
    address = re.compile(r"https?://|--index-url|--find-links|\"resolved\"")
    assert [lock.name for lock in [*python, ROOT / "package-lock.json"] if address.search(lock.read_text())] == []


def test_the_cdk_cli_is_pinned_to_one_version_by_its_hash() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["devDependencies"]
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    locked = {path.removeprefix("node_modules/"): package for path, package in packages.items() if path}
    assert wanted == {name: package["version"] for name, package in locked.items()} == {"aws-cdk": "2.1148.1"}
    assert all(package["integrity"].startswith("sha512-") for package in locked.values())


def test_every_semantic_of_aws_has_a_source_a_guard_and_a_test_that_exist() -> None:
    page = (ROOT / "docs" / "aws-semantics.md").read_text()
    section = page.partition("| semantic | source | guard | test |")[2].partition("\n\n")[0]
    table = [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", section, flags=re.MULTILINE)]
    assert len(table) > 20
    assert [row for row in table if len(row) != 4] == []
    modules = {path.stem: path.read_text() for path in sources("lambdas", "stacks", "worker_image")}
    for semantic, source, guard, tests in table:
        assert source
        for name in re.findall(r"`(\w+)\.[\w.]*?(\w+)`", guard):
            assert re.search(rf"\b{name[1]}\b", modules[name[0]]), (semantic, name)
        for path, _, test in re.findall(r"`(tests/[\w/]+\.py)(::(\w+))?`", tests):
            assert f"def {test}" in (ROOT / path).read_text() if test else (ROOT / path).exists(), (
                semantic,
                path,
                test,
            )
        assert "`tests/" in tests, semantic


def test_the_modules_that_begin_first_are_there() -> None:
    assert [name for name in LONGEST_FIRST if not (TESTS / name).is_file()] == []
    assert len(set(LONGEST_FIRST)) == len(LONGEST_FIRST)
