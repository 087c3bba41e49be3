"""The emulator with one more path, which judges a signed request that reached somebody else, and with our `streams`.

`hypercorn local.fargate.gate:app` serves the emulator as it is otherwise. POST /_fleetcap/authorize takes a request as
it arrived at the ECS endpoint and the actions it amounts to, and answers 200 or the refusal to hand back (GET: 204).

Why not ask the emulator by its AWS interfaces: it judges ecs:RunTask on the cluster, AWS on the task definition, so
that a policy written for AWS would be refused; SimulatePrincipalPolicy knows neither conditions nor boundaries; and no
call tells whose key signed a request.
"""

from __future__ import annotations

import base64
import uuid
from typing import Any

from ministack.app import _request_account_scope
from ministack.app import app as emulator
from ministack.core.iam_actions import access_denied_response, identity_denial_message
from ministack.core.iam_evaluator import AuthError, enforce, pin_request_origin, pin_signed_body, pin_signed_request
from ministack.core.responses import set_request_account_id, set_request_region
from ministack.core.router import extract_access_key_id, extract_region
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from local.fargate import streams
from local.fargate.authorization import AUTHORIZE_PATH

streams.take_over()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The emulator's ASGI application, and the one path."""
    if scope["type"] == "http" and scope["path"] == AUTHORIZE_PATH:
        present = scope["method"] == "GET"
        response = Response(status_code=204) if present else judge(await Request(scope, receive).json())
        await response(scope, receive, send)
    else:
        await emulator(scope, receive, send)


def judge(asked: dict[str, Any]) -> Response:
    """Check the signature, then every action against the caller's policies, as the emulator does with its own calls."""
    headers = {name.lower(): value for name, value in asked["headers"]}
    key, region = extract_access_key_id(headers), extract_region(headers)
    if key:
        set_request_account_id(_request_account_scope(key))
    set_request_region(region)
    pin_request_origin("127.0.0.1", True)
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in asked["headers"]]
    pin_signed_request("POST", "/", {}, raw)
    pin_signed_body(base64.b64decode(asked["body"]))
    for check in asked["checks"]:
        action, resource = check["action"], check["resource"]
        denied = enforce(key, action, "ecs", region, resource_arn=resource, service_context=check["context"])
        if denied:
            return _refusal(denied, action, resource, headers)
    return JSONResponse({})


def _refusal(denied: Any, action: str, resource: str, headers: dict[str, str]) -> Response:  # noqa: ANN401
    request_id = str(uuid.uuid4())
    if isinstance(denied, AuthError):
        status, answer_headers, body = access_denied_response(
            "ecs", action, "", request_id, error_code=denied.code, message=denied.message, headers=headers
        )
    else:
        message = identity_denial_message(action, denied.principal_arn, resource, denied.decision == "Deny")
        status, answer_headers, body = access_denied_response(
            "ecs", action, denied.principal_arn, request_id, message=message, headers=headers
        )
    return Response(body, status, answer_headers)
