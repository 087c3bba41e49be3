"""What a request is: whose, to which service, which operation. Values and rules only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs

_APP_ID: Final = re.compile(r"\bapp/(\S+)")
_SCOPE: Final = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request")
_OBJECT: Final = re.compile(r"/[^/]+/.+")
OTHERS: Final = "others"
"""Callers that do not say who they are."""


@dataclass(frozen=True)
class Call:
    """One request as far as it is judged. `body` is empty where the body is passed on without a look."""

    actor: str
    service: str
    operation: str
    body: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        """Service and operation, such as `dynamodb:UpdateItem`."""
        return f"{self.service}:{self.operation}"


def call_of(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Call:
    """Read a request. `headers` is looked up in any case; `body` may be empty where `is_readable` says no."""
    app = _APP_ID.search(headers.get("User-Agent", ""))
    scope = _SCOPE.search(headers.get("Authorization", ""))
    service = scope[1] if scope else "unsigned"
    return Call(app[1] if app else OTHERS, service, _operation(service, method, path, query, headers, body), body)


def is_readable(headers: Mapping[str, str]) -> bool:
    """Whether a request is one short document. Everything else may be long, and is passed on as it comes."""
    return "X-Amz-Target" in headers or "x-www-form-urlencoded" in headers.get("Content-Type", "")


def _operation(
    service: str, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> str:
    if target := headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    if "x-www-form-urlencoded" in headers.get("Content-Type", ""):
        return parse_qs(body.decode()).get("Action", ["?"])[0]
    if service == "s3":
        return _s3_operation(method, bool(_OBJECT.fullmatch(path)), query)
    return f"{method} {path.partition('?')[0]}"


def _s3_operation(method: str, of_object: bool, query: Mapping[str, str]) -> str:
    """The operations that a fleet uses, by their names; further ones by method and the word that selects them."""
    match method, of_object:
        case "PUT", True if "partNumber" in query:
            return "UploadPart"
        case "POST", True if "uploads" in query:
            return "CreateMultipartUpload"
        case "POST", True if "uploadId" in query:
            return "CompleteMultipartUpload"
        case "DELETE", True if "uploadId" in query:
            return "AbortMultipartUpload"
        case "GET", False if "list-type" in query:
            return "ListObjectsV2"
        case _:
            selected = next(iter(query), "")
            kind = "Object" if of_object else "Bucket"
            return f"{method.title()}{kind}{f'?{selected}' if selected and selected != 'x-id' else ''}"
