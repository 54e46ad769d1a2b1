"""The application: what hangs on `app.state`, and its life from start to stop."""

import asyncio
import logging
import time
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import AsyncIterator, Callable, Optional, Sequence

import cv2
from fastapi import FastAPI

from . import __version__
from .errors import ModelMissing, RelightError, StoreAway
from .jobs.backend import check
from .jobs.service import Service
from .jobs.sweep import sweep
from .metrics import Metrics
from .model import sessions
from .model.engine import Engine, load_engine
from .settings import Settings
from .settings import load as load_settings
from .web import problems, routes, schemas
from .web.body import BodyLimitMiddleware
from .web.middleware import CrossOriginMiddleware, KnownHostsMiddleware, RequestContextMiddleware, RequestIdFilter

log = logging.getLogger("relight")
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


async def _warm_decoders(service: Service) -> None:
    try:
        await asyncio.to_thread(service.decoders.warm)
    except Exception as exc:
        log.error("no decoder process could be started: uploads will fail", exc_info=exc)


async def _publish_metrics(service: Service, metrics: Metrics) -> None:
    """Leave this process's numbers for the others, when they changed."""
    last = b""
    while True:
        data = metrics.dump()
        if data != last:
            last = data
            await asyncio.to_thread(service.metrics_exchange.publish_metrics, data)
        await asyncio.sleep(service.metrics_exchange.seconds)


async def _housekeeping(service: Service, every: float) -> None:
    due = time.monotonic() + min(every, 1.5 * service.processes.lease or every)  # by then the dead are known
    while True:
        await asyncio.sleep(min(every, service.store.forget_seconds, service.processes.lease or every))
        try:
            await asyncio.to_thread(service.forget_deleted)
            if time.monotonic() >= due:
                due = time.monotonic() + every
                await asyncio.to_thread(sweep, service)
        except StoreAway:  # the log has it
            pass
        except Exception as exc:
            log.error("housekeeping failed", exc_info=exc)


def _register_gauges(metrics: Metrics, service: Service) -> None:
    metrics.gauge("relight_work_pending", "Work waiting or running", lambda: service.pool.pending)
    metrics.gauge("relight_analyses_pending", "Analyses waiting or running", lambda: service.analysis_pool.pending)
    metrics.gauge("relight_cache_bytes", "Bytes of prepared pictures in memory", lambda: service.cache.nbytes)
    metrics.gauge("relight_ready", "Processes whose models are loaded", lambda: int(service.engine is not None))
    metrics.gauge("relight_processes", "Processes that serve", lambda: 1)
    metrics.gauge("relight_decoders", "Decoder processes that run", lambda: len(service.decoders.pids))
    metrics.gauge(
        "relight_decoders_fallen", "Decoder processes that died of an upload", lambda: service.decoders.fallen
    )
    metrics.gauge("relight_analyses_stuck", "Analyses that hang", lambda: service.analyst.stuck)


async def _load(
    settings: Settings,
    engine: Optional[Engine],
    load_one: Callable[[], Engine],
    observe: Callable[[str, float], None],
    analyse: Optional[Callable[[str], None]],
) -> Service:
    """The service, with the engine handed in or the one that is loaded; without one where it is missing."""
    problem: Optional[RelightError] = None
    if engine is None:
        try:
            engine = await asyncio.to_thread(load_one)
        except ModelMissing as exc:
            problem = exc
            log.error("%s Uploads are refused until then.", exc.detail)
    service = Service(settings, engine, problem, observe, schemas.sheet_looks(), analyse)
    for m in service.models():
        log.info("model %s runs on %s", m.get("name"), m.get("provider"))
    return service


def create_app(
    settings: Optional[Settings] = None,
    engine: Optional[Engine] = None,
    load: Optional[Callable[[], Engine]] = None,
    analyse: Optional[Callable[[str], None]] = None,
) -> FastAPI:
    """The application. Raises StartupError when a setting is bad.

    With an `engine` no graph is loaded; else, once it starts, `load` gives one, or the settings say which. `analyse`
    has the job of that id analysed by another process, and returns when it is done.
    """
    settings = settings or load_settings()
    load_one = load or partial(load_engine, settings)
    api_keys = settings.keys()
    check(settings)
    if engine is None:
        sessions.check_provider(settings.provider)
    _set_up_log(settings.log_level)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        cv2.setNumThreads(settings.processors)
        app.state.service = service = await _load(settings, engine, load_one, metrics.observe, analyse)
        _register_gauges(metrics, service)
        if not api_keys:
            log.warning("no RELIGHT_API_KEYS: everyone who reaches this server may use it")
        await asyncio.to_thread(sweep, service)
        tasks = [
            asyncio.create_task(_housekeeping(service, settings.sweep_seconds)),
            asyncio.create_task(_warm_decoders(service)),
            asyncio.create_task(_publish_metrics(service, metrics)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for fault in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(fault, Exception):
                    log.error("a task broke off", exc_info=fault)
            await service.motions.close()
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
    app.state.settings, app.state.metrics, app.state.keys = settings, metrics, api_keys
    app.state.contract = lru_cache(schemas.contract)  # not before the first page asks for it
    problems.install(app, [*routes.router.routes, *routes.guarded.routes])
    routes.install(app)
    _add_middleware(app, settings, metrics, api_keys)
    return app


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics, api_keys: Sequence[str]) -> None:
    """The last added is the outermost. CORS is outside the net under all faults, so that a page can read a 500 too."""
    app.add_middleware(
        BodyLimitMiddleware,
        settings=settings,
        open_routes=routes.router.routes,
        guarded=routes.guarded.routes,
        api_keys=api_keys,
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
        app.add_middleware(KnownHostsMiddleware, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(RequestContextMiddleware, metrics=metrics)
