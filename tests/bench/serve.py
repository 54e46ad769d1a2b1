"""The server for benchmarks: python serve.py sphere|network PORT (settings from the environment)."""

import sys

if __name__ == "__main__":
    import uvicorn

    from server.application import create_app
    from server.settings import load

    engine = None
    if sys.argv[1] == "sphere":
        from fakes import SphereEngine

        engine = SphereEngine(side=384, mask=True)
    uvicorn.run(
        create_app(load(), engine) if engine else create_app(load()),
        port=int(sys.argv[2]),
        log_level="error",
        access_log=False,
    )
