"""Relight Server. `uvicorn server:app` serves it; importing a module such as `server.shading` builds no application."""

__version__ = "1.2.0"


def __getattr__(name):
    """Build the application the first time somebody asks for `server.app` (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .application import build_app

    globals()["app"] = app = build_app()
    return app
