"""Relight Server: a photograph goes in, a picture in any light comes out. `uvicorn server:app` serves it.

startup       loads the models while the rest is imported; application creates the app and owns its life
              (settings, errors, cpus, memory and metrics are the ground floor all may use)
web/          HTTP in, HTTP out: routes, bodies and answers, keys, limits, errors as problem details
jobs/         what is done with a job (upload, analysis, relighting, sweep) and where jobs lie
model/        from a graph file to Geometry: manifests, ONNX Runtime sessions, the engine
scene/        what one photograph shows: geometry, sky, borders, normals, its own light (pure functions)
light/        the new light on it: lights, shading, exposure, shadows, occlusion, upsampling (pure functions)
image/        pixels in and out: decoding in processes of its own, encoding, sRGB, resampling
static/       the page

Importing a module such as `server.light.shading` builds no application.
"""

from typing import Any

__version__ = "1.2.0"


def __getattr__(name: str) -> Any:
    """Build the application the first time somebody asks for `server.app` (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .startup import build_app

    globals()["app"] = app = build_app()
    return app
