"""The application: what hangs on `app.state`, and its life from start to stop."""

import asyncio
import logging
import sys
import time
from contextlib import asynccontextmanager
from typing import AsyncIterator, Optional

import cv2
from fastapi import FastAPI

from . import __version__
from .errors import ModelMissing, StartupError
from .jobs.processes import check_writable
from .jobs.service import Service
from .jobs.sweep import sweep
from .metrics import Metrics
from .model import engine as models
from .model import sessions
from .settings import Settings, load
from .web import problems, routes
from .web.body import Body
from .web.middleware import CrossOriginMiddleware, Frame, KnownHostsMiddleware, RequestIdFilter

log = logging.getLogger("relight")
TELL_SECONDS = 0.5
FORGET_SECONDS = 2.0  # how soon what another process deleted leaves the memory of this one
DESCRIPTION = "Upload a photo once, relight it from any light, download every pass."


def _set_up_log(level: str) -> None:
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(request_id)s] %(message)s"))
        handler.addFilter(RequestIdFilter())
        log.addHandler(handler)
        log.propagate = False
    log.setLevel(level.upper())
    logging.getLogger("uvicorn.access").disabled = True  # one line a request: ours, which has its id


async def _warm(service: Service) -> None:
    try:
        await asyncio.to_thread(service.decoders.warm)
    except Exception as exc:
        log.error("no decoder process could be started: uploads will fail", exc_info=exc)


async def _tell(service: Service, metrics: Metrics) -> None:
    """Leave this process's numbers for the others, when they changed."""
    last = b""
    while True:
        data = metrics.dump()
        if data != last:
            last = data
            await asyncio.to_thread(service.metrics_exchange.publish_metrics, data)
        await asyncio.sleep(TELL_SECONDS)


async def _housekeeping(service: Service, every: float) -> None:
    due = time.monotonic() + every
    while True:
        await asyncio.sleep(min(every, FORGET_SECONDS))
        try:
            await asyncio.to_thread(service.forget_deleted)
            if time.monotonic() >= due:
                due = time.monotonic() + every
                await asyncio.to_thread(sweep, service)
        except Exception as exc:
            log.error("housekeeping failed", exc_info=exc)


def create_app(settings: Optional[Settings] = None, engine: Optional[models.Engine] = None) -> FastAPI:
    """The application. With an `engine` no graph is loaded. Raises StartupError when a setting is bad."""
    settings = settings or load()
    keys = settings.keys()
    check_writable(settings.jobs_dir)
    if engine is None:
        sessions.check_provider(settings.provider)
    _set_up_log(settings.log_level)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        cv2.setNumThreads(settings.processors)
        used, problem = engine, None  # type: Any, Optional[RelightError]
        if used is None:
            try:
                used = await asyncio.to_thread(models.load_engine, settings)
            except ModelMissing as exc:
                problem = exc
                log.error("%s Uploads are refused until then.", exc.detail)
        service = Service(settings, used, problem, metrics.observe)
        metrics.watch(service)
        app.state.service = service
        if not keys:
            log.warning("no RELIGHT_API_KEYS: everyone who reaches this server may use it")
        for m in used.describe() if used is not None else ():
            log.info("model %s runs on %s", m.get("name"), m.get("provider"))
        await asyncio.to_thread(sweep, service)
        tasks = [
            asyncio.create_task(_housekeeping(service, settings.sweep_seconds)),
            asyncio.create_task(_warm(service)),
            asyncio.create_task(_tell(service, metrics)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for fault in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(fault, Exception):
                    log.error("a task broke off", exc_info=fault)
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Relight Server",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings, app.state.metrics, app.state.keys = settings, metrics, keys
    problems.install(app, [*routes.router.routes, *routes.guarded.routes])
    routes.install(app)
    # The last added is the outermost. CORS is outside the net under all faults, so that a page can read a 500 too.
    app.add_middleware(
        Body, settings=settings, open_routes=routes.router.routes, guarded=routes.guarded.routes, keys=keys
    )
    methods, asked, answered = routes.cross_origin()
    app.add_middleware(
        CrossOriginMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=methods,
        allow_headers=asked,
        expose_headers=answered,
        allow_credentials=False,
    )
    if "*" not in settings.allowed_hosts:
        app.add_middleware(KnownHostsMiddleware, allowed_hosts=settings.allowed_hosts, www_redirect=False)
    app.add_middleware(Frame, metrics=metrics)
    return app


def build_app() -> FastAPI:
    """What `uvicorn server:app` serves. A bad setting ends the process with one clear line."""
    try:
        return create_app()
    except StartupError as exc:
        print(f"relight: {exc}", file=sys.stderr)
        raise SystemExit(2) from None
