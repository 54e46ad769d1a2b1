"""Every setting of the server, read from the environment (prefix RELIGHT_) or a .env file."""

import json
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, Optional

from pydantic import AnyHttpUrl, AnyUrl, Field, TypeAdapter, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from . import cpus
from .errors import StartupError

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
INSTALLED = (PACKAGE / "onnx_models").is_dir()  # a wheel holds the graphs inside the package, a checkout beside it
LOCAL_HOSTS, LOCAL_PORTS = ("localhost", "127.0.0.1"), (3000, 4200, 5173, 8000, 8080)
# Pillow refuses what is twice this; the header is judged before any pixel is decoded.
PIXEL_CEILING = 89_478_485
STORES = ("s3", "gs", "az", "memory")  # schemes of addresses of buckets
WEB, ANY = TypeAdapter(AnyHttpUrl), TypeAdapter(AnyUrl)


def shown(unit: str = "", default: str = "") -> Dict[str, Any]:
    """How a setting is shown: its unit, and its default in words where the value itself is long."""
    return {"unit": unit, "default": default}


def _is_ipv6(text: str) -> bool:
    try:
        return bool(IPv6Address(text))
    except ValueError:
        return False


def _host(text: str) -> str:
    """A host name or address as browsers send it. Raises ValueError for anything else, a port included."""
    host: Optional[str] = WEB.validate_python(f"http://{text}/").host
    address = text.startswith("[") and text.endswith("]") and _is_ipv6(text[1:-1])
    if not host or not (address or host == text.lower()) or "*" in host or "" in host.rstrip(".").split("."):
        raise ValueError
    return host


def _origin(text: str) -> str:
    """An origin as browsers send it: that of a web page without its default port, another as it stands. Raises
    ValueError for anything else."""
    if not text.lower().startswith(("http:", "https:")):
        ANY.validate_python(text)
        if "://" not in text or not text.isascii() or " " in text:
            raise ValueError
        return text
    url = WEB.validate_python(text)
    _host(url.host or "")
    root = f"{url.scheme}://{url.host}:{url.port}/"
    if url != WEB.validate_python(root):  # a user, a path, a query
        raise ValueError
    return str(url).rstrip("/")


class Settings(BaseSettings):
    """Name, default, unit and meaning of every setting.

    The options of `relight-server serve` are made from these fields, and a test compares the table in server/README.md.
    """

    model_config = SettingsConfigDict(env_prefix="RELIGHT_", env_file=".env", extra="ignore")

    jobs_dir: Path = Field(
        Path("jobs") if INSTALLED else ROOT / "jobs", description="folder of the jobs; several processes may share it"
    )
    store: str = Field(
        "",
        json_schema_extra=shown(default="none"),
        description="bucket that holds the jobs instead of the folder, so that servers on several machines may share "
        "them: `s3://bucket/prefix`, `gs://…`, `az://…`, or `memory://` to try it; takes requirements-cluster.txt",
    )
    lease_seconds: float = Field(
        30,
        ge=1,
        le=3600,
        json_schema_extra=shown("seconds"),
        description="with a bucket: how long a process may give no sign of life before others take up its work",
    )
    direct_downloads: bool = Field(
        False,
        description="with a bucket: answer `GET /download/…?direct=1` with an address, valid for a minute, from which "
        "the store itself sends the file",
    )
    models_dir: Path = Field(
        (PACKAGE if INSTALLED else ROOT) / "onnx_models", description="folder of the graphs and their manifests"
    )
    depth_model: str = Field("relight-geometry", description="name of the graph that estimates depth")
    normals_model: str = Field(
        "relight-geometry",
        description="name of the graph that estimates normals; empty: computed from the depth",
    )
    mask_model: str = Field(
        "relight-geometry", description="name of the graph that tells surface from sky; empty: none"
    )
    subject_model: str = Field("u2netp", description="name of the graph that finds what stands in front; empty: none")
    analysis_size: int = Field(
        0,
        ge=0,
        le=2048,
        json_schema_extra=shown("pixels"),
        description="the only size of the network's input; 0: the sizes in the manifest",
    )
    provider: Literal["auto", "cpu", "cuda", "coreml"] = Field(
        "auto", description="where the graphs run: `auto`, `cpu`, `cuda` or `coreml`; `auto` never picks CoreML"
    )
    device_id: int = Field(0, ge=0, le=63, description="which CUDA device")
    gpu_memory_bytes: int = Field(
        0, ge=0, json_schema_extra=shown("bytes"), description="limit of the CUDA arena; 0: none"
    )
    threads: int = Field(0, ge=0, le=256, description="processors to use; 0: all that this process may use")
    max_upload_bytes: int = Field(
        64 * 2**20, ge=1024, json_schema_extra=shown("bytes"), description="the largest file accepted"
    )
    max_pixels: int = Field(
        40_000_000, ge=1, le=PIXEL_CEILING, json_schema_extra=shown("pixels"), description="the largest image accepted"
    )
    decoders: int = Field(
        -1,
        ge=-1,
        le=64,
        json_schema_extra=shown("processes"),
        description="processes that decode uploads, each with bounded time and memory; -1: one per processor, at most "
        "4; 0: none, so that the server's own process decodes (for trusted files only)",
    )
    max_queue: int = Field(
        32,
        ge=0,
        le=10_000,
        json_schema_extra=shown("pieces of work"),
        description="pieces of work that may wait; beyond that, requests are refused as `overloaded`",
    )
    upload_timeout_seconds: float = Field(
        30,
        gt=0,
        json_schema_extra=shown("seconds"),
        description="time without a byte after which an upload is dropped; once this time has passed, the upload must "
        "also average 8 kB a second",
    )
    analysis_timeout_seconds: float = Field(
        300,
        gt=0,
        json_schema_extra=shown("seconds"),
        description="time after which an analysis that hangs is given up",
    )
    job_ttl_seconds: float = Field(
        24 * 3600,
        gt=0,
        json_schema_extra=shown("seconds"),
        description="time after its last use at which a job expires",
    )
    jobs_quota_bytes: int = Field(
        10 * 2**30,
        ge=0,
        json_schema_extra=shown("bytes"),
        description="space that all jobs together may take; 0: no limit; the least recently used are deleted first",
    )
    key_jobs: int = Field(
        0, ge=0, json_schema_extra=shown("jobs"), description="jobs that one key may have; 0: no limit"
    )
    key_bytes: int = Field(
        0,
        ge=0,
        json_schema_extra=shown("bytes"),
        description="space that the jobs of one key may take; 0: no limit",
    )
    sweep_seconds: float = Field(
        60, gt=0, json_schema_extra=shown("seconds"), description="time between two sweeps of the jobs folder"
    )
    maps_cache_bytes: int = Field(
        512 * 2**20,
        ge=0,
        json_schema_extra=shown("bytes"),
        description="memory for photos and what lights them: about 40 bytes a pixel of a preview and 11 of a full "
        "picture, and what is larger than the limit is prepared again each time",
    )
    cors_origins: Annotated[List[str], NoDecode] = Field(
        [f"http://{host}:{port}" for host in LOCAL_HOSTS for port in LOCAL_PORTS],
        json_schema_extra=shown(default=f"ports {', '.join(map(str, LOCAL_PORTS))} of {' and '.join(LOCAL_HOSTS)}"),
        description="origins whose pages may call the server, comma-separated or JSON",
    )
    allowed_hosts: Annotated[List[str], NoDecode] = Field(
        ["*"], description="host names that the server answers to, comma-separated; `*`: any"
    )
    api_keys: Annotated[List[str], NoDecode] = Field(
        [], repr=False, description="keys that may use the server, comma-separated; none: the server is open"
    )
    api_keys_file: Optional[Path] = Field(
        None, description="file with one key per line, in addition to `RELIGHT_API_KEYS`"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much is logged")

    @field_validator("cors_origins", "allowed_hosts", "api_keys", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            text = value.strip()
            is_json = text.startswith("[") and not _is_ipv6(text[1:].partition("]")[0])
            value = json.loads(text) if is_json else text.split(",")
            if not all(isinstance(v, str) for v in value):
                raise ValueError("a JSON list of strings, or words with commas between them")
            value = [v.strip() for v in value if v.strip()]
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _holds_keys(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip(" ,") != value.strip() and not cls._split(value):
            raise ValueError("holds no key: a server without keys would be open to everyone")
        return value

    @field_validator("store")
    @classmethod
    def _bucket(cls, value: str) -> str:
        scheme, _, rest = value.partition("://")
        if value and (scheme not in STORES or set(rest) & set("?#@ ") or not (rest or scheme == "memory")):
            raise ValueError(f"give {', '.join(f'{s}://…' for s in STORES)}; credentials come from the environment")
        return value.rstrip("/") if rest else value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: List[str]) -> List[str]:
        if not value:
            raise ValueError("no host name, so that nobody could reach the server; * for any")
        sent = []
        for host in [] if "*" in value else value:
            try:
                wild = "*." if host.startswith("*.") else ""
                sent.append(wild + _host(host[len(wild) :]))
            except ValueError:
                raise ValueError(
                    f"{host!r} is no host name such as example.com or *.example.com (no scheme, no port), nor *"
                ) from None
        return list(dict.fromkeys([*value, *sent]))  # as written, and as browsers send it

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: List[str]) -> List[str]:
        out = []
        for origin in value:
            try:
                out.append(origin if origin in ("*", "null") else _origin(origin))
            except ValueError:
                raise ValueError(
                    f"{origin!r} is no origin such as https://example.com or http://localhost:3000, nor * for any"
                ) from None
        return out

    @field_validator("jobs_dir", "models_dir", "api_keys_file", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            raise ValueError("is empty: give a path, or leave the setting out")
        return value

    @field_validator("log_level", "provider", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("depth_model", "normals_model", "mask_model", "subject_model")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if value and (not value.replace("-", "").replace("_", "").replace(".", "").isalnum() or value.startswith(".")):
            raise ValueError("a model name holds only letters, digits, '-', '_' and '.'")
        return value

    @property
    def processors(self) -> int:
        """Threads to use: the setting, or what affinity and the control group allow."""
        return self.threads or cpus.available()

    @property
    def decoder_processes(self) -> int:
        """Decoder processes to use: the setting, or one a processor, at most 4."""
        return min(4, self.processors) if self.decoders < 0 else self.decoders

    def keys(self) -> List[str]:
        """All keys, from the setting and from the file. Raises StartupError when the file cannot be read."""
        keys = list(self.api_keys)
        if self.api_keys_file is not None:
            try:
                lines = self.api_keys_file.read_text("utf-8-sig").splitlines()
            except OSError as exc:
                raise StartupError(f"RELIGHT_API_KEYS_FILE cannot be read: {exc.strerror}") from None
            except ValueError:
                raise StartupError("RELIGHT_API_KEYS_FILE is not UTF-8 text") from None
            keys += [s for s in (line.strip() for line in lines) if s and not s.startswith("#")]
            if not keys:
                raise StartupError(
                    "RELIGHT_API_KEYS_FILE holds no key: a server without keys would be open to everyone"
                )
        return keys


def load(**overrides: Any) -> Settings:
    """Settings from the environment. Raises StartupError with one clear line when a value is bad."""
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        parts = []
        for e in exc.errors():
            name = "_".join(str(p) for p in e["loc"][:1]).upper()
            parts.append(f"RELIGHT_{name}: {e['msg']}")
        raise StartupError("; ".join(parts)) from None
    except Exception as exc:  # pydantic-settings: a value that is no JSON, an unreadable .env
        raise StartupError(f"settings cannot be read: {exc}") from None
