"""The server for benchmarks: python serve.py sphere|network PORT (settings from the environment)."""

import sys

if __name__ == "__main__":
    import uvicorn

    if sys.argv[1] == "sphere":
        from fakes import SphereEngine

        from server.application import create_app
        from server.memory import keep_freed
        from server.settings import load

        keep_freed()
        app = create_app(load(), SphereEngine(side=384, mask=True))
    else:
        from server.startup import build_app

        app = build_app()
    uvicorn.run(app, port=int(sys.argv[2]), log_level="error", access_log=False)
