"""The command line: `relight-server serve`, `relight` and `migrate`. It imports what they need only to do it."""

import argparse
import glob
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Literal, NoReturn, Optional, get_args, get_origin

from pydantic.fields import FieldInfo

from . import __version__
from .errors import RelightError, StartupError
from .settings import Settings, load

if TYPE_CHECKING:
    from .light.lights import Rig

EPILOG = (
    "Every setting can also be an environment variable, or a line in a .env file in the working directory. An option "
    "goes before a variable, and a variable before the file."
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as a bad variable does."""

    def error(self, message: str) -> NoReturn:
        """End the process."""
        self.exit(2, f"relight: {message}; `{self.prog} --help` lists the options\n")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{Settings.model_config['env_prefix']}{name}".upper()


def unit_of(field: FieldInfo) -> str:
    """What a setting is measured in, "" for nothing."""
    return _shown(field, "unit")


def default_of(field: FieldInfo) -> str:
    """A setting's default in words."""
    value = [] if field.default is None else field.default
    return _shown(field, "default") or (",".join(value) or "none" if isinstance(value, list) else str(value))


def _shown(field: FieldInfo, what: str) -> str:
    extra = field.json_schema_extra
    return str(extra[what]) if isinstance(extra, dict) else ""


def _metavar(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return "{" + ",".join(get_args(field.annotation)) + "}"
    kinds = {int: "N", float: "N", str: "NAME", bool: "BOOL"}
    kind: Any = field.annotation
    return unit_of(field).split(" ")[0].upper() or kinds.get(
        kind, "LIST" if isinstance(field.default, list) else "PATH"
    )


def _help(name: str, field: FieldInfo) -> str:
    unit = f"{unit_of(field)}; " if unit_of(field) else ""
    text = f"{field.description} ({unit}default: {default_of(field)}; {variable(name)})"
    return text.replace("`", "").replace("%", "%%")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 2**16:
        raise ValueError
    return port


def _workers(text: str) -> int:
    workers = int(text)
    if workers < 1:
        raise ValueError
    return workers


_port.__name__, _workers.__name__ = "port", "number of processes"  # as argparse names them in its errors


def parser() -> argparse.ArgumentParser:
    """The command line's grammar. A secret setting is no option, since a process list would show it."""
    top = _Parser("relight-server", description="A server that relights photographs.", allow_abbrev=False)
    top.add_argument("--version", action="version", version=f"Relight Server {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    serve = commands.add_parser(
        "serve", help="run the server", description="Run the server.", epilog=EPILOG, allow_abbrev=False
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=_port, default=8000, help="port to listen on; 0: any free one (default: 8000)")
    serve.add_argument("--workers", type=_workers, default=1, metavar="N", help="processes that serve (default: 1)")
    serve.add_argument(
        "--root-path", default="", metavar="PREFIX", help="path under which a proxy shows the server (default: none)"
    )
    group = serve.add_argument_group("settings")
    for name, field in Settings.model_fields.items():
        if field.repr:
            group.add_argument(
                f"--{name.replace('_', '-')}", dest=name, metavar=_metavar(field), help=_help(name, field)
            )
        else:
            serve.epilog = (
                f"{EPILOG} One is only read from there, since a process list shows options: {_help(name, field)}."
            )
    _add_relight(commands)
    _add_migrate(commands)
    return top


def _add_migrate(commands: Any) -> None:
    migrate = commands.add_parser(
        "migrate",
        help="copy jobs from one store to another",
        description="Copy all jobs from one store to another: a folder, or a bucket such as s3://bucket/prefix. Stop "
        "the servers over the first before. Jobs that the second has are left alone, so that the same command goes on "
        "where it was stopped; nothing is removed.",
        epilog="Exit status: 0 all is copied, 1 some jobs could not be copied, 2 the command is wrong.",
        allow_abbrev=False,
    )
    migrate.add_argument("source", metavar="FROM", help="folder, or address of a bucket")
    migrate.add_argument("target", metavar="TO", help="the same")


def _add_relight(commands: Any) -> None:
    relight = commands.add_parser(
        "relight",
        help="relight files without a server",
        description="Relight files, without a server on all processors, or by one. The same command goes on where it "
        "was stopped; a report in JSON lies beside the pictures. Settings are read from the environment, see "
        "`relight-server serve --help`.",
        epilog="Exit status: 0 all is made, 1 some pictures could not be made, 2 the command is wrong.",
        allow_abbrev=False,
    )
    relight.add_argument("photos", nargs="+", metavar="PHOTO", help="files, patterns such as '*.jpg', or folders")
    relight.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of what is made")
    relight.add_argument(
        "--url", metavar="URL", help="have this server make them; its key, if it has any, is read from RELIGHT_KEY"
    )
    light = relight.add_mutually_exclusive_group()
    light.add_argument("--light", type=_light, metavar="X,Y,Z", help="toward a distant light: right, up, near")
    light.add_argument("--preset", metavar="NAME", help="a look by name, such as golden-hour")
    light.add_argument("--body", type=_body, metavar="BODY", help="as /relight takes it, or @FILE")
    relight.add_argument("--environment", metavar="NAME", help="light from all around by name, such as sky-sunset")
    relight.add_argument(
        "--orbit",
        choices=("webp", "gif", "mp4"),
        help="a short film besides, of a white light that goes round once; without a light, the film alone",
    )
    relight.add_argument(
        "--mask", metavar="NAME", help="relight only this: subject, not-subject, sky or not-sky, as the models tell it"
    )
    relight.add_argument("--format", choices=("png", "jpg"), default="png", help="of the relit pictures (default: png)")
    relight.add_argument("--quality", type=_quality, default=92, metavar="N", help="of JPEGs, 1 to 100 (default: 92)")
    relight.add_argument(
        "--passes",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="LIST",
        help="more files of each: normals, depth, albedo, shading, surface, subject, relit16, exr, glb",
    )


def _light(text: str) -> Dict[str, float]:
    x, y, z = map(float, text.split(","))
    return {"x": x, "y": y, "z": z}


def _body(text: str) -> Dict[str, Any]:
    try:
        found = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"{text[1:]}: {exc.strerror}") from None
    if not isinstance(found, dict):
        raise ValueError
    return found


def _quality(text: str) -> int:
    quality = int(text)
    if not 1 <= quality <= 100:
        raise ValueError
    return quality


_light.__name__, _body.__name__, _quality.__name__ = "direction", "JSON object", "quality"


def photos(given: List[str]) -> List[Path]:
    """The files that are meant: each once, those of a folder or a pattern in the order of their names."""
    found: Dict[Path, None] = {}
    for text in given:
        path = Path(text)
        if path.is_dir():
            some = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        elif not path.exists() and glob.has_magic(text):
            some = [Path(p) for p in sorted(glob.glob(text)) if Path(p).is_file()]
        else:
            some = [path]  # what is not there is told at the end
        found.update(dict.fromkeys(some))
    return list(found)


def _body_of(given: Dict[str, Any]) -> Dict[str, Any]:
    """The fields of a body of /relight that options stand for, none where an orbit alone is wanted.

    Raises StartupError where they give no light to what takes one.
    """
    fields = given["light"] or ({"preset": given["preset"]} if given["preset"] else given["body"]) or {}
    if given["environment"]:
        fields = {**fields, "environment": {"type": "preset", "name": given["environment"]}}
    if not fields and (given["mask"] or not given["orbit"]):
        raise StartupError("one of --light, --preset, --body, --environment is required, or --orbit")
    unlit = [name for name in given["passes"] if name in ("relit16", "exr") and not fields]
    if unlit:
        raise StartupError(f"--passes: {unlit[0]} takes a light")
    if given["mask"]:
        name = given["mask"].removeprefix("not-")
        fields = {**fields, "mask": {"name": name, "invert": name != given["mask"]}}
    return fields


def _rig_of(fields: Dict[str, Any], by_server: bool) -> "Rig":
    """The rig of a body for files. Raises StartupError."""
    from pydantic import ValidationError

    from .light.lights import BUILT_IN
    from .web.schemas import Look, place

    try:
        rig = Look(**fields).rig()
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(p) for p in place(("body", *first["loc"])))
        raise StartupError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    except RelightError as exc:
        raise StartupError(f"environment: {exc.detail}") from None
    if rig.environment is not None and rig.environment.of and not by_server:
        raise StartupError("environment: only those with a name; files have no jobs with environments of their own")
    for mask in rig.masks:
        if mask.name not in BUILT_IN:
            raise StartupError(f"mask: there is no {mask.name!r}; files have {' and '.join(BUILT_IN)} alone")
    return rig


def relight(given: Dict[str, Any]) -> int:
    """Relight files; returns the exit status. Raises StartupError when something that was asked for makes no sense."""
    from . import batch
    from .image import animation

    fields = _body_of(given)
    rig = _rig_of(fields, bool(given["url"])) if fields else None
    if given["orbit"] and not given["url"] and given["orbit"] not in animation.available():
        raise StartupError(f"--orbit: {animation.NO_VIDEO}")
    unknown = [name for name in given["passes"] if name not in batch.PASSES]
    if unknown:
        raise StartupError(f"--passes: there is no {unknown[0]!r}; there are {', '.join(batch.PASSES)}")
    paths, settings = photos(given["photos"]), load()
    if not paths:
        raise StartupError("no photos: nothing matches what was given")
    order = batch.Order(rig, given["out"], given["format"], given["quality"], given["passes"], given["orbit"])
    try:
        maker = _server(given["url"], fields) if given["url"] else _here(settings, len(paths))
        return 1 if batch.run(order, paths, maker) else 0
    except OSError as exc:
        raise StartupError(f"{given['out']}: {exc.strerror or exc}") from None


def _here(settings: Settings, count: int) -> Any:
    """What makes `count` pictures in this process. Raises StartupError."""
    from . import batch
    from .errors import ModelMissing
    from .model.engine import load_engine

    threads = 1 if count >= settings.processors else settings.threads  # each picture has a processor of its own
    try:
        return batch.Here(load_engine(settings.model_copy(update={"threads": threads})), settings)
    except ModelMissing as exc:
        raise StartupError(exc.detail) from None


def _server(url: str, body: Dict[str, Any]) -> Any:
    """What has the server at that address make pictures. Raises StartupError."""
    try:
        import httpx

        from . import batch, client
    except ImportError:
        raise StartupError('--url takes httpx: pip install "relight-server[client]"') from None
    asked = client.RelightClient(url, os.environ.get("RELIGHT_KEY"), timeout=600)
    try:
        return batch.Elsewhere(asked, body, 4)
    except (client.RelightError, httpx.HTTPError, httpx.InvalidURL) as exc:
        asked.close()
        words = f": {exc.detail}" if isinstance(exc, client.RelightError) else f" cannot be reached: {exc}"
        raise StartupError(f"{url}{words}") from None


def serve(host: str, port: int, workers: int, root_path: str, settings: Dict[str, str]) -> None:
    """Run the server until it is stopped; `settings` by name. Raises StartupError when one is bad."""
    for name, value in settings.items():
        os.environ[variable(name)] = value  # where the worker processes find them too
    loaded = load()
    loaded.keys()  # a bad setting ends the start here, and not each worker again and again
    if loaded.store:
        from .jobs import backend

        if loaded.store.startswith("memory:") and workers > 1:
            raise StartupError("RELIGHT_STORE: memory:// is that of one process, and --workers asks for more")
        backend.check(loaded)
    import uvicorn

    uvicorn.run("server:app", host=host, port=port, workers=workers, root_path=root_path)


def _migrate(given: Dict[str, Any]) -> int:
    """Copy jobs; returns the exit status. Raises StartupError."""
    from .jobs import migrate

    return migrate.run(given["source"], given["target"])


def _stoppable(command: Callable[[Dict[str, Any]], int], given: Dict[str, Any]) -> int:
    """The exit status of a command that goes on where Ctrl+C ended it."""
    try:
        return command(given)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _joined(arguments: List[str]) -> List[str]:
    """The arguments with `--light -1,0,1` as `--light=-1,0,1`: else argparse takes the direction for an option."""
    out: List[str] = []
    for text in arguments:
        if out and out[-1] == "--light":
            out[-1] = f"--light={text}"
        else:
            out.append(text)
    return out


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line; returns the exit status."""
    given = vars(parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments)))
    settings = {name: given[name] for name in Settings.model_fields if given.get(name) is not None}
    try:
        if given["command"] in ("relight", "migrate"):
            return _stoppable(relight if given["command"] == "relight" else _migrate, given)
        serve(given["host"], given["port"], given["workers"], given["root_path"], settings)
    except StartupError as exc:
        print(f"relight: {exc}", file=sys.stderr)
        return 2
    return 0
