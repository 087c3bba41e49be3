"""An assembly is taken again only if nothing that goes into it has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from local import deploy


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project."""
    for name in ("app.py", "cdk.json", ".dockerignore", "requirements.lock", "stacks/a.py", "lambdas/b.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(deploy, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["app.py", "cdk.json", "requirements.lock", "stacks/a.py", "lambdas/b.py"])
def test_a_changed_source_is_another_assembly(tree: Path, name: str) -> None:
    before = deploy._fingerprint("{}")
    (tree / name).write_text("changed")
    assert deploy._fingerprint("{}") != before


def test_a_new_a_moved_and_a_lost_source_and_another_setting_are_other_assemblies(tree: Path) -> None:
    names = [deploy._fingerprint("{}"), deploy._fingerprint('{"cap": 1}')]
    (tree / "lambdas" / "c.py").write_text("new")
    names.append(deploy._fingerprint("{}"))
    (tree / "lambdas" / "c.py").rename(tree / "lambdas" / "d.py")
    names.append(deploy._fingerprint("{}"))
    (tree / "lambdas" / "b.py").unlink()
    names.append(deploy._fingerprint("{}"))
    assert len(set(names)) == len(names)


def test_what_python_compiles_beside_the_sources_makes_no_difference(tree: Path) -> None:
    before = deploy._fingerprint("{}")
    (tree / "lambdas" / "__pycache__").mkdir()
    (tree / "lambdas" / "__pycache__" / "b.pyc").write_bytes(b"compiled")
    assert deploy._fingerprint("{}") == before


def test_only_the_assemblies_made_last_are_kept(tmp_path: Path) -> None:
    for n in range(20):
        (tmp_path / str(n)).mkdir()
    deploy._forget_old(tmp_path)
    assert len(list(tmp_path.iterdir())) == 8
