"""The web application: routes, one shape of refusal, the page, health and figures."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from spatial_ttt import __version__
from spatial_ttt.errors import SpatialTTTError
from spatial_ttt.loading import LoadedModel
from spatial_ttt.serve import chat, routes_memory, routes_sessions, socket
from spatial_ttt.serve.dependencies import REFUSALS, SCHEME, Access, access
from spatial_ttt.serve.guard import Guard
from spatial_ttt.serve.problems import as_problem, defect
from spatial_ttt.serve.service import Service
from spatial_ttt.serve.settings import ServeSettings

STATIC = Path(__file__).parent / "static"


def create_app(loaded: LoadedModel, settings: ServeSettings) -> FastAPI:
    """An application that serves `loaded`; its parts live from its start-up to its shutdown."""
    service = Service(loaded, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with service.running():
            yield

    app = FastAPI(
        title="spatial-ttt",
        version=__version__,
        description="Video streams that are watched, remembered and asked about.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        dependencies=[Depends(SCHEME)],
    )
    app.state.service = service
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    app.add_exception_handler(SpatialTTTError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_body)
    app.add_exception_handler(HTTPException, _refuse_request)
    app.add_exception_handler(Exception, _admit_defect)  # which goes on to the log
    for routes in (routes_sessions.router, routes_memory.router, chat.router, socket.router):
        app.include_router(routes)
    _add_plain_routes(app, service)
    return app


def _add_plain_routes(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["server"])
    async def healthz() -> JSONResponse:
        """200 while sessions are served, 503 while the server stops or cannot look after them."""
        health = service.health
        return JSONResponse({"status": health}, 200 if health == "ok" else 503)

    @app.get("/metrics", tags=["server"], response_class=Response, responses=REFUSALS)
    async def metrics(_: Annotated[Access, Depends(access)]) -> Response:
        """Figures for Prometheus."""
        service.gauges()
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", StaticFiles(directory=STATIC), name="static")


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, SpatialTTTError)
    problem = as_problem(error)
    headers = {}
    if "retry_after_s" in problem.facts:
        headers["retry-after"] = str(max(1, round(problem.facts["retry_after_s"])))
    elif problem.status == 503:
        headers["retry-after"] = "5"
    elif problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": problem.to_dict()}, problem.status, headers)


async def _refuse_body(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _plain(422, "bad_request", f"{where}: {first['msg']}")


async def _refuse_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _plain(error.status_code, "refused", str(error.detail), dict(error.headers or {}))


async def _admit_defect(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": defect(error).to_dict()}, 500)


def _plain(
    status: int, code: str, message: str, headers: dict[str, Any] | None = None
) -> JSONResponse:
    return JSONResponse(
        {"error": {"code": code, "type": code, "message": message}}, status, headers
    )
