"""JSON-RPC 2.0 messages: from octets to calls, from results to octets.

Source: the JSON-RPC 2.0 specification; section numbers stand beside the checks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from otus_agent.logs.logger import get_logger
from otus_sdk.errors import OtusError

_log = get_logger(__name__)

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603

MAX_BATCH = 1_000
MAX_ANSWER_OCTETS = 33_554_432

Dispatch = Callable[[str, dict[str, Any]], Awaitable[Any]]


def error_answer(
    code: int, message: str, request_id: Any = None, data: Any = None
) -> dict[str, Any]:
    """An error response object (section 5.1)."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "error": error, "id": request_id}


def encode(answer: Any) -> bytes:
    """An answer as one line without its end; what can't be told in JSON becomes an error."""
    try:
        return orjson.dumps(answer, default=str, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):
        _log.exception("an answer is not JSON")
        request_id = answer.get("id") if isinstance(answer, dict) else None
        return orjson.dumps(error_answer(INTERNAL_ERROR, "the answer is not JSON", request_id))


async def handle(message: bytes | bytearray, dispatch: Dispatch) -> bytes | None:
    """Runs the call, or the batch of calls, in a message.

    Args:
        message: one JSON text.
        dispatch: runs one call by name and parameters.

    Returns:
        The response, or None when nothing but notifications came (section 6).
    """
    try:
        request = orjson.loads(message)
    except (ValueError, RecursionError):
        return encode(error_answer(PARSE_ERROR, "not valid JSON"))
    if not isinstance(request, list):
        answer = await _call(request, dispatch)
        return None if answer is None else encode(answer)
    # Section 6: an empty array is answered by a single error.
    if not request:
        return encode(error_answer(INVALID_REQUEST, "the batch is empty"))
    if len(request) > MAX_BATCH:
        return encode(error_answer(INVALID_REQUEST, f"more than {MAX_BATCH} calls in a batch"))
    # In order, one after the other: a batch may create and then look.
    encoded: list[bytes] = []
    octets = 0
    for call in request:
        if octets > MAX_ANSWER_OCTETS:
            why = "not run: the answers before it are too long together"
            encoded.append(encode(error_answer(-32000, why, _id_of(call))))
            continue
        answer = await _call(call, dispatch)
        if answer is not None:
            encoded.append(encode(answer))
            octets += len(encoded[-1])
    return b"[" + b",".join(encoded) + b"]" if encoded else None


def _id_of(call: Any) -> Any:
    request_id = call.get("id") if isinstance(call, dict) else None
    return request_id if isinstance(request_id, (str, int, float)) else None


async def _call(request: Any, dispatch: Dispatch) -> dict[str, Any] | None:
    """Runs one request object; None for a notification."""
    if not isinstance(request, dict):
        return error_answer(INVALID_REQUEST, "a request must be an object")
    request_id = request.get("id")
    # Section 4: "id" is a string, number or null, and absent in a notification.
    if isinstance(request_id, bool) or not isinstance(request_id, (str, int, float, type(None))):
        return error_answer(INVALID_REQUEST, "'id' must be a string, a number or null")
    if request.get("jsonrpc") != "2.0":
        return error_answer(INVALID_REQUEST, "'jsonrpc' must be '2.0'", request_id)
    method, params = request.get("method"), request.get("params", {})
    if not isinstance(method, str):
        return error_answer(INVALID_REQUEST, "'method' must be a string", request_id)
    if not isinstance(params, dict):
        # Section 4.2 allows an array by position; commands have names only.
        return _unless_notification(
            request, error_answer(-32602, "'params' must be an object", request_id)
        )
    try:
        result = await dispatch(method, params)
        answer = {"jsonrpc": "2.0", "result": result, "id": request_id}
    except OtusError as error:
        data = {"code": error.code, **error.details}
        answer = error_answer(error.rpc_code, error.message, request_id, data)
    except Exception as error:  # noqa: BLE001 any handler
        _log.exception("command raised", command=method[:100])
        name = type(error).__name__
        answer = error_answer(INTERNAL_ERROR, f"internal error ({name}): see the log", request_id)
    return _unless_notification(request, answer)


def _unless_notification(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any] | None:
    # Section 4.1: a request without "id" is never answered, not even by an error.
    return answer if "id" in request else None
