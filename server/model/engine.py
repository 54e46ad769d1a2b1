"""From manifest to geometry: what a graph wants and means is data beside it; no model is known here by name."""

import hashlib
import json
import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple

import cv2
import numpy as np

from ..errors import ModelError, ModelMissing, StartupError
from ..image.resample import fit_within, shrink
from ..memory import give_back
from ..scene.geometry import Geometry, Visibility
from . import sessions
from .manifest import (
    REBUILD,
    ROLES,
    DepthOutput,
    InputSpec,
    Manifest,
    NormalsOutput,
    Output,
    Role,
    ShadingOutput,
    VisibilityOutput,
    parse,
)

log = logging.getLogger("relight")

DETAILS = 64  # to the long side: standard deviation of the blur that tells layout from details where sizes are averaged
LIGHT: Tuple[Role, ...] = ("visibility", "shading")  # what input.light switches
FIELD = 128  # long side of the grid that visibility is kept on: a finer one gains nothing
DARKEST = 1e-3  # of the brightest: less is no shading
WITHOUT: Dict[Role, str] = {  # how to do without a role
    "normals": "; or to nothing, then they come from the depth",
    "subject": "; or to nothing, then photos have no subject",
}
MIRRORED = np.array([-1, 1, 1], np.float32)  # what a mirror does to a normal


class Engine(Protocol):
    """What estimates geometry. Tests hand in one that needs no graph."""

    def analyse(self, rgb: np.ndarray) -> Geometry:
        """Geometry of a photo, (H, W, 3) uint8 sRGB. Raises ModelError."""
        ...

    def describe(self) -> List[Dict[str, Any]]:
        """What runs, for /models: one dict a graph."""
        ...


def digest(engine: Engine) -> str:
    """A digest that changes whenever the engine would answer otherwise."""
    text = json.dumps(engine.describe(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Sizes(NamedTuple):
    """How a photo is brought to a network: it is resized to w x h, and padded to padded_w x padded_h."""

    w: int
    h: int
    padded_w: int
    padded_h: int


def input_size(width: int, height: int, size: int, multiple: int, rule: str) -> Sizes:
    """How a photo of that size is brought to a network.

    `size` is the length of the long (or short) side. Sides are rounded to the multiple where that changes their ratio
    by less than 1/16; otherwise the aspect ratio is kept exactly and the rest is padded.
    """
    side = max(width, height) if rule == "long_side" else min(width, height)
    scale = size / side
    if max(width, height) * scale > 4 * size:  # short-side rule on a very long picture
        scale = 4 * size / max(width, height)
    out = []
    for exact in (width * scale, height * scale):
        rounded = max(multiple, round(exact / multiple) * multiple)
        if abs(rounded - exact) < exact / 16:
            out.append((rounded, rounded))
        else:
            inner = max(1, round(exact))
            out.append((inner, math.ceil(inner / multiple) * multiple))
    return Sizes(out[0][0], out[1][0], out[0][1], out[1][1])


def resized(rgb: np.ndarray, sizes: Sizes) -> np.ndarray:
    """A photo (H, W, 3) uint8 brought to (h, w, 3) uint8."""
    shrinks = sizes.w < rgb.shape[1] or sizes.h < rgb.shape[0]
    return cv2.resize(rgb, (sizes.w, sizes.h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def to_input(small: np.ndarray, spec: InputSpec, sizes: Sizes) -> np.ndarray:
    """A resized photo (h, w, 3) uint8 as the tensor (1, 3, H', W') float32 that a manifest's `input` asks for."""
    right, below = sizes.padded_w - sizes.w, sizes.padded_h - sizes.h
    small = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_REPLICATE)
    if spec.channels == "BGR":
        small = small[..., ::-1]
    x = small.astype(np.float32) * np.float32(spec.scale)
    x -= np.array(spec.mean, np.float32)
    x /= np.array(spec.std, np.float32)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None], np.float32)


def plane(value: np.ndarray, channels: int, sizes: Sizes) -> np.ndarray:
    """An output, (1, channels, h, w) or the like, as (h, w) or (h, w, channels) float32 with the padding cut off.

    Raises ModelError where values are not finite.
    """
    a = np.asarray(value, np.float32)
    while a.ndim > (3 if channels > 1 else 2) and a.shape[0] == 1:
        a = a[0]
    if channels > 1 and a.shape[0] == channels and a.shape[-1] != channels:
        a = a.transpose(1, 2, 0)
    rows = max(1, round(a.shape[0] * sizes.h / sizes.padded_h))
    cols = max(1, round(a.shape[1] * sizes.w / sizes.padded_w))
    a = np.ascontiguousarray(a[:rows, :cols])
    if not np.isfinite(a).all():
        raise ModelError("The model answered with values that are not finite for this photo. Upload another image.")
    return a


def to_canonical_axes(normals: np.ndarray, axes: Sequence[str]) -> np.ndarray:
    """Unit normals (h, w, 3) in the server's axes.

    axes[k] says along which of these the network's channel k points, for example "-y".
    """
    out = np.empty_like(normals)
    for k, axis in enumerate(axes):
        out[..., "xyz".index(axis[1])] = -normals[..., k] if axis[0] == "-" else normals[..., k]
    return normalise(out)


def normalise(n: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) of length 1, float32; those too short to have a direction face the viewer."""
    with np.errstate(over="ignore", invalid="ignore"):  # a graph may answer with anything; the result is checked
        length = np.linalg.norm(n, axis=-1, keepdims=True)
    return np.where(length > 1e-6, n / np.maximum(length, 1e-6), np.array([0, 0, 1], np.float32)).astype(np.float32)


def inverse_depth(value: np.ndarray, meaning: str) -> np.ndarray:
    """A depth output (h, w) or point output (h, w, 3) as inverse depth, larger = nearer."""
    if meaning == "disparity":
        return value
    z = np.abs(value[..., 2]) if meaning == "points" else value
    near = np.maximum(z, max(1e-6, float(np.percentile(z, 1)) * 0.1))
    return (1.0 / near).astype(np.float32)


def to_role(value: np.ndarray, output: Output, sizes: Sizes) -> np.ndarray:
    """An output of a graph as the server takes it, float32.

    Inverse depth, unit normals in our axes, a mask or subject 0..1, visibility (h, w, K) 0..1, or the logarithm of the
    shading (h, w, 3), whose mean is 0. Raises ModelError.
    """
    if isinstance(output, DepthOutput):
        return inverse_depth(plane(value, 3 if output.meaning == "points" else 1, sizes), output.meaning)
    if isinstance(output, NormalsOutput):
        return to_canonical_axes(plane(value, 3, sizes), output.axes)
    if isinstance(output, ShadingOutput):
        shading = plane(value, 3, sizes)
        if output.meaning == "linear":
            shading = np.log(np.maximum(shading, np.float32(DARKEST) * max(float(shading.max()), 1e-6)))
        return np.asarray(shading - shading.mean((0, 1)), np.float32)
    if isinstance(output, VisibilityOutput):
        if value.ndim != 4 or value.shape[:2] != (1, len(output.directions)):
            raise ModelError()
        share = plane(value.transpose(0, 2, 3, 1), len(output.directions), sizes)
    else:
        share = plane(value, 1, sizes)
    return np.clip(1 / (1 + np.exp(-share)) if output.meaning == "logit" else share, 0, 1).astype(np.float32)


def by_channel(change: Callable[[np.ndarray], np.ndarray], value: np.ndarray) -> np.ndarray:
    """What an operation of OpenCV, which takes 128 channels at most, makes of (h, w) or (h, w, K) float32."""
    if value.ndim == 2:
        return change(value)
    return np.stack([change(np.ascontiguousarray(plane)) for plane in np.moveaxis(value, 2, 0)], 2)


def mean_of_scales(views: List[Dict[str, np.ndarray]]) -> Dict[str, np.ndarray]:
    """The mean of one graph's outputs by role at several sizes, on the grid of the finest (the last), with its details.

    Smaller sizes see a scene's layout better and its details worse (Miangoleh et al., "Boosting Monocular Depth
    Estimation Models to High-Resolution via Content-Adaptive Multi-Resolution Merging", CVPR 2021): a plain mean would
    weaken the details. Disparity is known but for scale and shift: each view's is first given the median and the mean
    absolute deviation of the last's.
    """
    out = {}
    for role in dict.fromkeys(role for v in views for role in v):
        *coarser, finest = (v[role] for v in views if role in v)
        if not coarser:
            out[role] = finest
            continue
        h, w = finest.shape[:2]
        to_finest = partial(cv2.resize, dsize=(w, h), interpolation=cv2.INTER_LINEAR)
        planes = [*(by_channel(to_finest, c) for c in coarser), finest]
        if role == "depth":
            middle = [float(np.median(p)) for p in planes]
            spread = [max(float(np.abs(p - m).mean()), 1e-9) for p, m in zip(planes, middle)]
            planes = [
                (p - m) * np.float32(spread[-1] / s) + np.float32(middle[-1]) for p, m, s in zip(planes, middle, spread)
            ]
        difference = sum(planes) / np.float32(len(planes)) - finest
        blur = partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=max(h, w) / DETAILS)
        out[role] = finest + by_channel(blur, difference)
        if role in ("mask", "visibility", "subject"):
            out[role] = np.clip(out[role], 0, 1)
        elif role == "normals":
            out[role] = normalise(out[role])
    return out


@dataclass(frozen=True)
class Graph:
    """One loaded graph."""

    manifest: Manifest
    session: Any
    provider: str


class OnnxEngine:
    """Runs the graphs that fill the roles; a graph that fills several runs once."""

    def __init__(self, roles: Mapping[str, Graph], analysis_size: int = 0):
        self.roles = roles
        self.size = analysis_size

    def analyse(self, rgb: np.ndarray) -> Geometry:
        """See Engine."""
        found: Dict[str, np.ndarray] = {}
        focal: Optional[float] = None
        for graph, mine in self._graphs():
            found.update(self._run(graph, mine, rgb))
            if "depth" in mine:
                focal = graph.manifest.focal
        h, w = found["depth"].shape
        for role in ("normals", "mask", "shading"):
            if role in found and found[role].shape[:2] != (h, w):
                found[role] = cv2.resize(found[role], (w, h), interpolation=cv2.INTER_LINEAR)
        normals, relief = found.get("normals"), 0.0
        if normals is not None:
            normals = normalise(normals)
            said = self.roles["normals"].manifest.outputs.normals
            relief = said.relief if said is not None else 0.0
        shading, share = found.get("shading"), 0.0
        if shading is not None:
            lit = self.roles["shading"].manifest.outputs.shading
            share = lit.share if lit is not None else 0.0
        subject = found.get("subject")
        if subject is not None:
            subject = np.rint(subject * np.float32(255)).astype(np.uint8)
        return Geometry(
            found["depth"], normals, found.get("mask"), focal, relief, self._visibility(found), shading, share, subject
        )

    def _graphs(self) -> List[Tuple[Graph, List[Role]]]:
        """Each graph once, with the roles that it fills."""
        graphs = {id(g): g for g in self.roles.values()}.values()
        return [(g, [r for r in ROLES if self.roles.get(r) is g]) for g in graphs]

    def _visibility(self, found: Mapping[str, np.ndarray]) -> Optional[Visibility]:
        said = self.roles["visibility"].manifest.outputs.visibility if "visibility" in found else None
        if said is None:
            return None
        planes = np.ascontiguousarray(found["visibility"].transpose(2, 0, 1))
        seen = np.rint(shrink(planes, fit_within(planes.shape[1:], FIELD)) * np.float32(255))
        return Visibility(np.ascontiguousarray(seen, np.uint8), np.array(said.directions, np.float32))

    def _sizes(self, graph: Graph) -> List[int]:
        """The setting's size, or where that is 0 the `scales` of the manifest's.

        Of a graph that takes no other, that one.
        """
        spec = graph.manifest.input
        size = spec.size if spec.fixed else self.size or spec.size
        return [round(size * k) for k in ([1.0] if self.size else sorted(spec.scales))]

    def _run(self, graph: Graph, roles: List[Role], rgb: np.ndarray) -> Dict[str, np.ndarray]:
        """The outputs of one graph by role, merged over its analysis sizes."""
        sizes = self._sizes(graph)
        dark: List[Role] = [r for r in roles if r not in LIGHT or graph.manifest.input.light is None]
        return mean_of_scales(
            [self._run_mirrored(graph, dark if k else roles, rgb, size) for k, size in enumerate(sizes)]
        )

    def _run_mirrored(self, graph: Graph, roles: List[Role], rgb: np.ndarray, size: int) -> Dict[str, np.ndarray]:
        """The outputs at one size; with `mirror` in the manifest, the mean over the photo and its mirror image."""
        spec = graph.manifest.input
        sizes = input_size(rgb.shape[1], rgb.shape[0], size, spec.multiple, spec.size_rule)
        small = resized(rgb, sizes)
        found = self._run_once(graph, roles, small, sizes)
        if spec.mirror:
            twin = self._run_once(graph, roles, cv2.flip(small, 1), sizes)
            for role, value in twin.items():
                value = value[:, ::-1]
                if role == "normals":
                    value = value * MIRRORED
                elif role == "visibility" and graph.manifest.outputs.visibility is not None:
                    value = value[..., graph.manifest.outputs.visibility.mirror_images]
                found[role] = (found[role] + value) / 2
            if "normals" in found:
                found["normals"] = normalise(found["normals"])
        return found

    def _run_once(self, graph: Graph, roles: List[Role], small: np.ndarray, sizes: Sizes) -> Dict[str, np.ndarray]:
        spec, outputs = graph.manifest.input, graph.manifest.outputs.by_role()
        feeds = {spec.name: to_input(small, spec, sizes)}
        if spec.light is not None:
            feeds[spec.light] = np.array([any(r in LIGHT for r in roles)], np.int64)
        try:
            values = graph.session.run([outputs[r].name for r in roles], feeds)
        except Exception as exc:
            raise ModelError() from exc
        return {role: to_role(value, outputs[role], sizes) for role, value in zip(roles, values)}

    def describe(self) -> List[Dict[str, Any]]:
        """See Engine."""
        return [
            {
                **g.manifest.described(),
                "provider": g.provider,
                "roles_filled": mine,
                "analysis_sizes": self._sizes(g),
            }
            for g, mine in self._graphs()
        ]

    def warm_up(self) -> None:
        """Run once, so that what cannot run is known, and the first photo does not wait.

        On the CPU a graph is as quick the first time as ever after, and a small picture shows as much.
        """
        if all(g.provider == sessions.CPU and not g.manifest.input.fixed for g in self.roles.values()):
            try:
                for graph, mine in self._graphs():
                    spec = graph.manifest.input
                    side = max(2, spec.size // spec.multiple // 4) * spec.multiple
                    sizes = Sizes(side, side, side, side)
                    self._run_once(graph, mine, np.full((side, side, 3), 128, np.uint8), sizes)
                return
            except Exception as exc:
                log.info("a small picture does not show whether the models run", exc_info=exc)
        for shape in ((384, 512, 3), (512, 384, 3)):
            self.analyse(np.full(shape, 128, np.uint8))


def load_graph(folder: Path, name: str, **options: Any) -> Graph:
    """Load one graph and check it against its manifest.

    Raises ModelMissing with what is wrong and the cure, StartupError.
    """
    cure = f"Rebuild it with `{REBUILD}`."
    try:
        written = json.loads((folder / f"{name}.json").read_text("utf-8"))
        cure = f"Rebuild it with `{written.get('rebuild') or REBUILD}`."
        data = (folder / f"{name}.onnx").read_bytes()
    except FileNotFoundError:
        raise ModelMissing(f"The model {name} is not installed. {cure}") from None
    except (OSError, ValueError, AttributeError):
        raise ModelMissing(f"The model {name} cannot be read. {cure}") from None
    if hashlib.sha256(data).hexdigest() != written.get("sha256"):
        raise ModelMissing(f"The model {name} is damaged: its checksum is not that of its manifest. {cure}")
    try:
        manifest = parse(written)
    except ValueError as exc:
        raise ModelMissing(f"The manifest of the model {name} is wrong: {exc}. {cure}") from None
    try:
        session, provider = sessions.open_session(data, **options)
    except StartupError:
        raise
    except Exception as exc:
        log.error("model %s cannot be loaded", name, exc_info=exc)
        raise ModelMissing(f"The model {name} cannot be loaded. {cure}") from None
    wanted = {o.name for o in manifest.outputs.by_role().values()} | {manifest.input.name}
    if not wanted <= {i.name for i in session.get_inputs()} | {o.name for o in session.get_outputs()}:
        raise ModelMissing(f"The model {name} names its inputs and outputs otherwise than its manifest. {cure}")
    return Graph(manifest, session, provider)


def _names(settings: Any) -> Dict[Role, str]:
    """The graph that the settings name for each role. A folder of an older version has none for the subject."""
    subject = settings.subject_model
    if "subject_model" not in settings.model_fields_set and not (settings.models_dir / f"{subject}.json").is_file():
        log.warning("the model %s is not installed: nothing will tell what stands in front in a photo", subject)
        subject = ""
    return {
        "depth": settings.depth_model,
        "normals": settings.normals_model,
        "mask": settings.mask_model,
        "subject": subject,
    }


def load_engine(settings: Any) -> OnnxEngine:
    """The engine the settings ask for, warm. Raises ModelMissing, StartupError."""
    graphs: Dict[str, Graph] = {}
    roles: Dict[str, Graph] = {}
    for role, name in _names(settings).items():
        if not name:
            if role == "depth":
                raise ModelMissing("RELIGHT_DEPTH_MODEL is empty: name the graph that estimates depth.")
            continue
        if name not in graphs:
            graphs[name] = load_graph(
                settings.models_dir,
                name,
                provider=settings.provider,
                threads=settings.processors,
                device_id=settings.device_id,
                gpu_memory_bytes=settings.gpu_memory_bytes,
            )
        outputs = graphs[name].manifest.outputs.by_role()
        if role in outputs:
            roles[role] = graphs[name]
        elif role != "mask":
            less = WITHOUT.get(role, "")
            raise ModelMissing(
                f"The model {name} has no output for the role {role}, only {', '.join(outputs)}. "
                f"Set RELIGHT_{role.upper()}_MODEL to one that has{less}."
            )
    # These go with the depth and have no setting.
    roles.update({role: roles["depth"] for role in LIGHT if role in roles["depth"].manifest.outputs.by_role()})
    engine = OnnxEngine(roles, settings.analysis_size)
    give_back()  # what opening a session leaves is more than the graph
    try:
        engine.warm_up()
    except Exception as exc:  # whatever a graph's answers make of NumPy: the server starts, and says so at /ready
        log.error("the models failed on their first run", exc_info=exc)
        cures = " and ".join(sorted({f"`{g.manifest.rebuild or REBUILD}`" for g in graphs.values()}))
        elsewhere = "" if settings.provider == "cpu" else ", or set RELIGHT_PROVIDER=cpu"
        raise ModelMissing(
            f"The models {', '.join(graphs)} load but fail to run. Rebuild them with {cures}{elsewhere}."
        ) from None
    return engine
