"""The command line: `relight-server serve`. It reads the settings' own fields, and imports the server only to serve."""

import argparse
import os
import sys
from typing import Any, Dict, List, Literal, NoReturn, Optional, get_args, get_origin

from pydantic.fields import FieldInfo

from . import __version__
from .errors import StartupError
from .settings import Settings, load

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
    kinds = {int: "N", float: "N", str: "NAME"}
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
    return top


def serve(host: str, port: int, workers: int, root_path: str, settings: Dict[str, str]) -> None:
    """Run the server until it is stopped; `settings` by name. Raises StartupError when one is bad."""
    for name, value in settings.items():
        os.environ[variable(name)] = value  # where the worker processes find them too
    load().keys()  # a bad setting ends the start here, and not each worker again and again
    import uvicorn

    uvicorn.run("server:app", host=host, port=port, workers=workers, root_path=root_path)


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line; returns the exit status."""
    given = vars(parser().parse_args(arguments))
    settings = {name: given[name] for name in Settings.model_fields if given.get(name) is not None}
    try:
        serve(given["host"], given["port"], given["workers"], given["root_path"], settings)
    except StartupError as exc:
        print(f"relight: {exc}", file=sys.stderr)
        return 2
    return 0
