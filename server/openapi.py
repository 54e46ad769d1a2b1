"""What OpenAPI says of us beyond what FastAPI finds by itself: our one shape of errors, with an example of each."""

from typing import Any, Dict, Optional

from fastapi import FastAPI

from .errors import ALL
from .schemas import Problem


def problems(*codes: str) -> Dict[Any, Dict[str, Any]]:
    """The OpenAPI descriptions of these errors, grouped by status."""
    out: Dict[Any, Dict[str, Any]] = {}
    for code in codes:
        e = ALL[code]
        entry = out.setdefault(e.status, {"description": "", "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}}})
        entry["description"] = ", ".join(filter(None, [entry["description"], f"`{code}`"]))
        entry["content"]["application/problem+json"]["examples"][code] = {"value": {
            "type": "about:blank", "title": e.title, "status": e.status, "detail": e.default_detail, "code": code,
            "request_id": "4c1d1f7c3a1e4c0b8a53b8a9d3b5c2f1"}}
    return out


def describe(app: FastAPI) -> None:
    """Make the application's OpenAPI document tell the truth about errors."""
    original = app.openapi

    def openapi() -> Dict[str, Any]:
        schema: Optional[Dict[str, Any]] = app.openapi_schema
        if schema is None:
            schema = original()
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            for path in schema["paths"].values():
                for operation in path.values():  # FastAPI's own 422 has another shape: ours is the truth
                    body = operation.get("responses", {}).get("422", {}).get("content", {})
                    if "application/problem+json" not in body:
                        operation.get("responses", {}).pop("422", None)
                    else:
                        body.pop("application/json", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            app.openapi_schema = schema
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
