"""What OpenAPI says of us beyond what FastAPI finds by itself.

Our one shape of errors with an example of each, keys, headers.
"""

from typing import Any, Dict, Optional, Sequence

from fastapi import FastAPI

from ..errors import ALL
from .schemas import Problem


def text_headers(*names: str) -> Dict[str, Any]:
    """The OpenAPI descriptions of response headers that hold text."""
    return {name: {"schema": {"type": "string"}} for name in names}


def problems(*codes: str, statuses: Sequence[int] = ()) -> Dict[Any, Dict[str, Any]]:
    """The OpenAPI descriptions of these errors, grouped by status; `statuses` are others of `invalid_request`."""
    out: Dict[Any, Dict[str, Any]] = {}
    for code, status in [*((c, ALL[c].status) for c in codes), *(("invalid_request", s) for s in statuses)]:
        e = ALL[code]
        entry = out.setdefault(
            status,
            {
                "description": "",
                "content": {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
                },
            },
        )
        entry["description"] = ", ".join(filter(None, [entry["description"], f"`{code}`"]))
        entry["content"]["application/problem+json"]["examples"][code] = {
            "value": {
                "type": "about:blank",
                "title": e.title,
                "status": status,
                "detail": e.default_detail,
                "code": code,
                "request_id": "4c1d1f7c3a1e4c0b8a53b8a9d3b5c2f1",
            }
        }
    return out


def _mend(operation: Dict[str, Any], keys: bool) -> None:
    first, _, rest = operation.pop("description").partition("\n")
    operation["summary"] = first.rstrip(".")  # of FastAPI's it is the function's name
    if rest.strip():
        operation["description"] = rest.strip()
    answers = operation["responses"]
    if "401" in answers:
        operation["security"] = [{"key": []}] if keys else [{}, {"key": []}]  # {}: none
    refused = answers.get("422", {}).get("content", {})
    refused.pop("application/json", None)  # FastAPI's own 422 has another shape: ours is the truth
    if not refused:
        answers.pop("422", None)
    for status, answer in answers.items():
        busy = "overloaded" in answer.get("content", {}).get("application/problem+json", {}).get("examples", {})
        more = ["WWW-Authenticate"] if status == "401" else ["Retry-After"] if busy else []
        answer.setdefault("headers", {}).update(text_headers("X-Request-ID", *more))


def describe(app: FastAPI) -> None:
    """Make the application's OpenAPI document tell the truth about errors."""
    original = app.openapi

    def openapi() -> Dict[str, Any]:
        schema: Optional[Dict[str, Any]] = app.openapi_schema
        if schema is None:
            schema = original()
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            schema["components"]["securitySchemes"] = {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the server's keys. A server without keys asks for none.",
                }
            }
            for path in schema["paths"].values():
                for operation in path.values():
                    _mend(operation, bool(app.state.keys))
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            app.openapi_schema = schema
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it
