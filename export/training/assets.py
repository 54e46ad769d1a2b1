"""The asset library: meshes, heads, skies, textures and pictures of an --assets folder, or procedural parts alone.

The folder's manifest.json lists every file with its licence. Meshes are .npz files with arrays v, f, uv, n, fm and a
JSON list of materials. Without a folder everything still works, from procedural textures and shapes.
"""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any, Callable, Collection

import numpy as np
from PIL import Image

from . import textures
from .geometry import Mesh, vector
from .heads import Heads
from .kernels import LINEAR
from .materials import Arena, Material, Texture

f32 = np.float32
MAX_TEXTURE = {"mtex": 512}  # longest side in pixels, by folder
MAX_OTHER = 320  # of every other folder


class Cache(OrderedDict):
    """Least-recently-used store of a fixed number of items."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def fetch(self, key: Any, make: Callable[[], Any]) -> Any:
        """The item of this key, made when it is not there; the least recently used one goes when there are too many."""
        if key not in self:
            self[key] = make()
            if len(self) > self.limit:
                self.popitem(last=False)
        self.move_to_end(key)
        return self[key]


class Library:
    """All assets a scene can draw on. Without a folder they are procedural only.

    `licences` keeps only assets with these licence strings (None: all); `detail` multiplies texture sizes.
    """

    def __init__(
        self, folder: str | Path | None = None, licences: Collection[str] | None = None, detail: int = 1
    ) -> None:
        self.detail = detail
        self.folder = Path(folder) if folder else None
        self.meshes: dict[str, list[str]] = defaultdict(list)
        self.tex: dict[str, list[str]] = defaultdict(list)
        self.pictures: list[str] = []
        self.hdris: list[str] = []
        self.reliefs: list[tuple[str, str, str]] = []  # texture, displacement, kind
        self.has_head, self.arena = False, Arena()
        self._meshes, self._images, self._hdri = Cache(700), Cache(4), Cache(40)
        self._head: Heads | None = None
        if not self.folder:
            return
        path = self._file("manifest.json")
        if not path.is_file():
            raise FileNotFoundError(f"{path} not found: --assets needs a folder with a manifest.json")
        m = json.loads(path.read_text())

        def ok(e):
            return licences is None or e["license"] in licences

        for e in filter(ok, m["meshes"]):
            self.meshes[e["category"]].append(e["name"])
        for e in filter(ok, m["textures"]):
            self.tex[e["kind"]].append(e["file"])
            if e.get("displacement"):
                self.reliefs.append((e["file"], e["displacement"], e["kind"]))
        self.pictures = [e["file"] for e in m["pictures"] if ok(e)]
        self.hdris = [e["name"] for e in m["hdri"] if ok(e)]
        self.has_head = any(ok(e) for e in m["heads"])

    def _file(self, *parts: str) -> Path:
        """A file of the asset folder. Only a library that has a folder knows names to ask for."""
        assert self.folder is not None
        return self.folder.joinpath(*parts)

    def names(self, category: str, prefix: str = "") -> list[str]:
        """The names of a category's meshes that begin with `prefix`."""
        return [n for n in self.meshes.get(category, []) if n.startswith(prefix)]

    def pick(self, rng: np.random.Generator, *categories: str) -> Mesh | None:
        """A random mesh of the categories, or None when there is none."""
        pool = [(c, n) for c in categories for n in self.meshes.get(c, [])]
        return self.mesh(*pool[rng.integers(len(pool))]) if pool else None

    def mesh(self, category: str, name: str) -> Mesh:
        """The mesh of that name, loaded or from the cache."""
        return self._meshes.fetch((category, name), lambda: self._load(category, name))

    def _load(self, category: str, name: str) -> Mesh:
        d = np.load(self._file("meshes", category, f"{name}.npz"))
        f, n = d["f"].astype(np.int32), d["n"].astype(f32) / 127
        mats = []
        for m in json.loads(str(d["materials"])):
            color = np.asarray(m.get("color") or [1, 1, 1], float)[:3]
            lin = LINEAR[np.clip(np.rint(color * 255), 0, 255).astype(int)]
            tex = ("file", m["tex"], m.get("alpha_tex")) if m.get("tex") or m.get("alpha_tex") else None
            mats.append(
                Material(
                    color=tuple(float(v) for v in lin),
                    tex=tex,
                    mode="picture" if tex else "plain",
                    rough=float(np.clip(m.get("rough", 0.6), 0.1, 1)),
                    metal=float(m.get("metal", 0) > 0.5 and 0.9),
                    alpha=bool(m.get("alpha_tex")),
                )
            )
        n /= np.linalg.norm(n, axis=1, keepdims=True) + 1e-12
        uv, fm = d["uv"].astype(f32)[f], d["fm"].astype(int)
        return Mesh(
            d["v"].astype(f32),
            f,
            n,
            uv,
            d.get("c"),
            fm,
            mats,
            float(d["scale"]),
            self._veil(uv, fm, mats),
            *(d[k].astype(f32) if k in d else None for k in ("head_center", "head_forward")),
        )

    def _veil(self, uv: np.ndarray, fm: np.ndarray, mats: list[Material]) -> np.ndarray | None:
        """The triangles whose alpha, averaged over seven places, is below a half."""
        if not any(m.alpha for m in mats):
            return None
        w = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [1, 4, 4], [4, 1, 4], [4, 4, 1]], f32)
        w /= w.sum(1, keepdims=True)
        out = np.zeros(len(fm), bool)
        for i, m in enumerate(mats):
            if m.alpha and isinstance(m.tex, tuple):
                alpha = Image.open(self._file(m.tex[2])).convert("L")
                a = np.asarray(alpha.resize((256, 256), Image.Resampling.BILINEAR))
                k = np.flatnonzero(fm == i)
                p = (np.einsum("sb,fbc->sfc", w, uv[k]) * 256).astype(int) % 256
                out[k] = a[p[..., 1], p[..., 0]].mean(0) < 128
        return out

    def image(self, key: tuple[Any, ...]) -> Texture:
        """The texture of a key: ('file', path, alpha path or None) or ('made', kind, number)."""
        return self._images.fetch(key, lambda: Texture(self._read(key)))

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        if key[0] == "made":
            rgb = textures.make(key[1], key[2])
            return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
        alpha = Image.open(self._file(key[2])).convert("L") if len(key) > 2 and key[2] else None
        if key[1]:
            im = self._picture(key[1])
        else:
            assert alpha is not None  # a key names a picture or its alpha, or both
            im = Image.new("RGB", alpha.size, (255, 255, 255))
        k = min(1, self._limit(key[1]) / max(im.size))
        if k < 1:
            im = im.resize((round(im.size[0] * k), round(im.size[1] * k)), Image.Resampling.BILINEAR, reducing_gap=2)
        alpha = alpha.resize(im.size, Image.Resampling.BILINEAR) if alpha else Image.new("L", im.size, 255)
        return np.dstack([np.asarray(im), np.asarray(alpha)])

    def _limit(self, path: Any) -> int:
        return self.detail * MAX_TEXTURE.get(str(path).split("/")[0], MAX_OTHER)

    def _picture(self, path: str) -> Image.Image:
        im = Image.open(self._file(path))
        size = self._limit(path)
        im.draft("RGB", (size, size))  # JPEG decoders halve while decoding, at no cost
        return im.convert("RGB")

    def made(self, rng: np.random.Generator, *kinds: str) -> tuple[Any, ...]:
        """The key of a random procedural texture of the kinds."""
        return ("made", str(rng.choice(kinds)), int(rng.integers(textures.COUNT)))

    def photo(self, rng: np.random.Generator, *kinds: str) -> tuple[Any, ...] | None:
        """The key of a photographed tileable texture of the kinds, or None."""
        pool = [t for k in kinds for t in self.tex.get(k, [])]
        return ("file", str(rng.choice(pool))) if pool else None

    def picture(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """The key of a flat picture to print on things: a photo or painting, otherwise a procedural print."""
        if self.pictures and rng.random() < 0.6:
            return ("file", str(rng.choice(self.pictures)))
        return self.made(rng, "print", "print", "page")

    def height_map(self, file: str) -> np.ndarray:
        """A displacement picture as float32 (200, 200), 0..1."""
        return (
            np.asarray(Image.open(self._file(file)).convert("L").resize((200, 200), Image.Resampling.BILINEAR), f32)
            / 255
        )

    def hdri(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A sky (h, w, 3) of unit mean without its sun, the sun's direction (3,), and its RGB irradiance (3,)."""
        return self._hdri.fetch(name, lambda: split_sun(np.load(self._file("hdri", f"{name}.npz"))["rgb"].astype(f32)))

    def random_head(self, rng: np.random.Generator, stone: Material | None = None) -> Mesh:
        """A new blend-shape face in metres, its mid-head at the origin; `stone` makes all of it of one material."""
        if self._head is None:
            self._head = Heads(self._file("heads", "ict_face.npz"))
        return self._head.random(rng, self, stone)


def split_sun(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split an equirectangular sky (h, w, 3) into a sky of unit mean, the sun's direction at yaw 0, and its RGB
    irradiance.
    """
    h, w = a.shape[:2]
    a = np.nan_to_num(np.maximum(a, 0), posinf=6e4)
    lum = a @ vector([0.2126, 0.7152, 0.0722])
    th = (np.arange(h) + 0.5) / h * np.pi
    sa = (np.sin(th) * np.pi / h * 2 * np.pi / w)[:, None]
    cap = max(np.percentile(lum, 99.5), 1e-3) * 1.5
    i, j = np.unravel_index(np.argmax(lum), lum.shape)
    ph = ((j + 0.5) / w - 0.5) * 2 * np.pi
    d = np.array([np.sin(th[i]) * np.sin(ph), np.cos(th[i]), -np.sin(th[i]) * np.cos(ph)])
    k = np.minimum(1, cap / np.maximum(lum, 1e-6))[..., None]
    over = ((a - a * k) * sa[..., None]).sum((0, 1))
    a = a * k
    s = max((a.mean(-1) * sa).sum() / (4 * np.pi), 1e-6)
    return np.ascontiguousarray(a / s, f32), d, (over / s).astype(f32)
