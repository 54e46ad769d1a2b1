"""A mesh with its textures as one binary glTF 2.0 file (Khronos; ISO/IEC 12113)."""

import json
import math
import struct
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np

from .. import __version__

FLOAT, UINT16, UINT32 = 5126, 5123, 5125
VERTICES, INDICES = 34962, 34963  # what a part of the buffer is for
LINEAR, MIPMAPS, CLAMP = 9729, 9987, 33071  # how textures are sampled
WIDTHS = {2: "VEC2", 3: "VEC3"}
UNLIT, VARIANTS = "KHR_materials_unlit", "KHR_materials_variants"


class Camera(NamedTuple):
    """One at (0, 0, z) that looks along -z, and sees from `near` to `far`. height: of the picture, at distance 1."""

    z: float
    height: float
    ratio: float  # width by height
    near: float
    far: float


class Look(NamedTuple):
    """A texture, as a JPEG, under a name. lit: does it wait for lights, or is it shown as it is?"""

    name: str
    jpeg: bytes
    lit: bool


class _Buffer:
    """The bytes that all parts of the file are in, and what is said of them."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: List[Dict[str, Any]] = []
        self.accessors: List[Dict[str, Any]] = []

    def add(self, data: bytes, **said: Any) -> int:
        """Bytes as a view; returns its number."""
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **said})
        self.data += data + bytes(-len(data) % 4)
        return len(self.views) - 1

    def add_vertices(self, values: np.ndarray, **said: Any) -> int:
        """(n, 2) or (n, 3) float32 as an accessor; returns its number."""
        view = self.add(values.astype("<f4").tobytes(), target=VERTICES)
        kind = {"componentType": FLOAT, "count": len(values), "type": WIDTHS[values.shape[1]]}
        self.accessors.append({"bufferView": view, **kind, **said})
        return len(self.accessors) - 1

    def add_indices(self, triangles: np.ndarray, vertices: int) -> int:
        """(m, 3) of so many vertices as an accessor; returns its number."""
        short = vertices < 0xFFFF  # that number itself is not allowed
        view = self.add(triangles.astype("<u2" if short else "<u4").tobytes(), target=INDICES)
        kind = {"componentType": UINT16 if short else UINT32, "count": triangles.size, "type": "SCALAR"}
        self.accessors.append({"bufferView": view, **kind})
        return len(self.accessors) - 1


def encode_glb(
    positions: np.ndarray,
    normals: np.ndarray,
    places: np.ndarray,
    triangles: np.ndarray,
    looks: Sequence[Look],
    camera: Camera,
) -> bytes:
    """A file with one mesh, shown in the first of some looks (the others are its variants), and a camera.

    positions and normals: (n, 3) float32, the axes of glTF (+x right, +y up, +z toward the viewer) and normals of
    length 1; places: (n, 2) float32, of the vertices in the textures, from the upper left; triangles: (m, 3) int, not
    none, anticlockwise seen from the front.
    """
    buffer = _Buffer()
    low, high = (f(positions.astype(np.float32), 0).tolist() for f in (np.min, np.max))
    attributes = {
        "POSITION": buffer.add_vertices(positions, min=low, max=high),
        "NORMAL": buffer.add_vertices(normals),
        "TEXCOORD_0": buffer.add_vertices(places),
    }
    primitive: Dict[str, Any] = {
        "attributes": attributes,
        "indices": buffer.add_indices(triangles, len(positions)),
        "material": 0,
        "extensions": {VARIANTS: {"mappings": [{"material": k, "variants": [k]} for k in range(len(looks))]}},
    }
    document = {
        "asset": {"version": "2.0", "generator": f"Relight Server {__version__}"},
        "extensionsUsed": [UNLIT, VARIANTS],
        "extensions": {VARIANTS: {"variants": [{"name": look.name} for look in looks]}},
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [{"name": "photo", "mesh": 0}, {"name": "camera", "camera": 0, "translation": [0, 0, camera.z]}],
        "cameras": [_perspective(camera)],
        "meshes": [{"name": "photo", "primitives": [primitive]}],
        "materials": [_material(look, k) for k, look in enumerate(looks)],
        "textures": [{"sampler": 0, "source": k} for k in range(len(looks))],
        "samplers": [{"magFilter": LINEAR, "minFilter": MIPMAPS, "wrapS": CLAMP, "wrapT": CLAMP}],
        "images": [{"name": x.name, "mimeType": "image/jpeg", "bufferView": buffer.add(x.jpeg)} for x in looks],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = _chunk(b"JSON", text) + _chunk(b"BIN\0", bytes(buffer.data))
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<I4s", len(data), kind) + data


def _perspective(camera: Camera) -> Dict[str, Any]:
    numbers = {
        "yfov": 2 * math.atan(camera.height / 2),
        "aspectRatio": camera.ratio,
        "znear": camera.near,
        "zfar": camera.far,
    }
    return {"type": "perspective", "perspective": numbers}


def _material(look: Look, texture: int) -> Dict[str, Any]:
    """Matt, and seen from behind too."""
    surface = {"baseColorTexture": {"index": texture}, "metallicFactor": 0, "roughnessFactor": 1}
    said: Dict[str, Any] = {"name": look.name, "pbrMetallicRoughness": surface, "doubleSided": True}
    return said if look.lit else {**said, "extensions": {UNLIT: {}}}
