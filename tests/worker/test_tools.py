"""`passthrough` and `command` with real programs: what they leave, and what their ends are called."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from fleetcap import catalog
from worker_image.errors import TransientError
from worker_image.processors import REGISTRY, InputError

WORDS = gzip.compress(b"b\na\nc\n", mtime=0)


def command(tmp_path: Path, program: str, arguments: str) -> bytes:
    """Run one program over three compressed words; returns what it leaves."""
    source = tmp_path / "words.gz"
    source.write_bytes(WORDS)
    processor = REGISTRY["command"](tmp_path, {"program": program, "arguments": arguments})
    stages = list(processor.make("output", source, tmp_path / "output"))
    assert [(stage.name, stage.message) for stage in stages] == [("run", program)]
    return (tmp_path / "output").read_bytes()


COMMANDS = {
    "what is printed": ("gzip", "-dc {source}", b"b\na\nc\n"),
    "a file of its own": ("cp", "{source} {output}", WORDS),
    "a path within a word": ("dd", "if={source} of={output} status=none", WORDS),
    "nothing": ("true", "{source}", b""),
    "nothing expanded": ("printf", "%s '$HOME `id` * {}' ;{source}", b"$HOME `id` * {}%b"),
    "words of its own": ("printf", "%s,%s '{source}' 'a  b'", b"%b,a  b"),
    "an environment without credentials": ("sh", "-c 'env | grep -c AWS || true' {source}", b"0\n"),
}


@pytest.mark.parametrize(("program", "arguments", "output"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_leaves(
    tmp_path: Path, program: str, arguments: str, output: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/secret")
    left = command(tmp_path, program, arguments)
    if b"%b" in output:
        path = f"{';' * (';' in arguments)}{tmp_path}/words.gz".encode()
        assert path in left
        assert left.replace(path, b"") == output.replace(b"%b", b"")
    else:
        assert left == output


FAILING = {
    "an exit code": (
        "sh",
        "-c 'echo begun >&2; echo no good >&2; exit 3' {source}",
        "sh ended with exit code 3: no good",
    ),
    "an exit code and no word": ("false", "{source}", "false ended with exit code 1"),
    "bad data": ("sh", "-c 'echo line 7 is odd >&2; exit 65' {source}", "input: sh refused the file: line 7 is odd"),
    "a kill": ("sh", "-c 'kill -9 $$' {source}", "out of memory: sh was killed (signal 9), most likely for lack of"),
    "another signal": ("sh", "-c 'kill -6 $$' {source}", "sh was ended by signal 6"),
    "no output": ("sh", "-c : {source} {output}", "input: command: sh ended well but left no file at {output}"),
    "a link for output": ("ln", "-s {source} {output}", "input: command: ln ended well but left no file at {output}"),
    "no such program": ("no-such", "{source}", "input: command: this worker has no program named 'no-such'"),
    "half a quote": ("cat", "'{source}", "input: command: the param 'arguments' cannot be split into words"),
}


@pytest.mark.parametrize(("program", "arguments", "sentence"), FAILING.values(), ids=FAILING)
def test_a_command_fails_with(tmp_path: Path, program: str, arguments: str, sentence: str) -> None:
    with pytest.raises((InputError, TransientError)) as caught:
        command(tmp_path, program, arguments)
    assert str(caught.value).startswith(sentence)
    assert isinstance(caught.value, InputError) is sentence.startswith("input: ")


def test_a_command_without_end_in_its_words_keeps_only_the_last(tmp_path: Path) -> None:
    with pytest.raises(TransientError) as caught:
        command(tmp_path, "sh", "-c 'yes word | head -c 3000000 >&2; echo end >&2; exit 1' {source}")
    assert str(caught.value) == "sh ended with exit code 1: end"


PARAMS = {
    "nothing": {},
    "no arguments": {"program": "cat"},
    "no program": {"arguments": "{source}"},
    "a path": {"program": "/bin/cat", "arguments": "{source}"},
    "a climbing path": {"program": "..", "arguments": "{source}"},
    "an option": {"program": "-x", "arguments": "{source}"},
    "a number": {"program": 7, "arguments": "{source}"},
    "arguments without the source": {"program": "cat", "arguments": "file"},
    "arguments that are none": {"program": "cat", "arguments": True},
    "another param": {"program": "cat", "arguments": "{source}", "shell": True},
}


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_params_of_a_command_are_refused_with_a_sentence(params: catalog.Params) -> None:
    sentence = catalog.refusal(catalog.PROCESSORS["command"], params)
    assert sentence is not None
    assert sentence.startswith("command ")


@pytest.mark.parametrize("data", [b"\0any\r\nthing", b""])
def test_passthrough_copies_any_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "any").write_bytes(data)
    list(REGISTRY["passthrough"](tmp_path).make("copy", tmp_path / "any", tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == data
