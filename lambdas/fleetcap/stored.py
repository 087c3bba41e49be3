"""What one version of Fleetcap writes and another one reads: values as JSON, in items, environments and on a pipe.

Whoever reads passes over fields that it does not know, and whoever writes leaves out what is as by default. So a field
that joins later has a default that means what was before, and a default never changes: each reader fills in its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_NEEDED: Final = object()
"""Stands for the default of a field that has none."""


def told(value: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass that are not as by default, by name; those without a default always."""
    defaults = _defaults(type(value))
    said = ((name, getattr(value, name)) for name in defaults)
    return {name: each for name, each in said if each != defaults[name]}


def known(kind: type[T], said: Mapping[str, Any]) -> T:
    """A dataclass from what was told of it, perhaps by another version. Raises TypeError where it lacks a field."""
    return kind(**{name: said[name] for name in _defaults(kind) if name in said})


def unsaid(kind: type[DataclassInstance]) -> dict[str, Any]:
    """What is meant by fields that nobody told."""
    return {name: each for name, each in _defaults(kind).items() if each is not _NEEDED}


@cache
def _defaults(kind: type[DataclassInstance]) -> dict[str, Any]:
    return {field.name: _default(field) for field in fields(kind)}


def _default(field: Field[Any]) -> object:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return _NEEDED if field.default is MISSING else field.default
