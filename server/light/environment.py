"""Light from all around: an equirectangular picture of radiance, and what of it reaches a surface.

The middle of the picture is what the viewer looks at (-z), its left and right quarters lie left and right (-x, +x), its
two edges meet behind the viewer (+z), its top is up (+y): one sees it as if one stood in it and looked at its middle.
A rotation turns it about the vertical, counter-clockwise seen from above: by 90 degrees, what was behind the viewer is
at the right.

Everything is relative to ambient light, as all light here is: a radiance of 1 from everywhere gives an open surface,
however it faces, an irradiance of 1 (divided by pi, that is: the integral of the cosine over a hemisphere is pi).
"""

import base64
from typing import Callable, Hashable, NamedTuple, Optional

import cv2
import numpy as np

from ..image.srgb import WIDE_LUT
from ..scene.normals import normalise_in_place
from .lights import Environment

SIZE = ROWS, COLUMNS = 32, 64  # of the radiance that lights a picture: 5.6 degrees apart
HALF = np.dtype("<f2")
STEPS = 127  # of a table of normals, from its middle to its edges
SIDE = 256  # of its rows: what 16-bit indices reach
SAMPLES = 32  # of n.v, of heights of half vectors, and of their azimuths

Kernel = Callable[[np.ndarray], np.ndarray]  # of the cosine of an angle


def pack(radiance: np.ndarray) -> str:
    """Radiance (h, w, 3) float, an equirectangular picture of any size, as the text of an Environment.

    Reduced to SIZE, every texel the mean over its solid angle; what half floats do not reach is cut off.
    """
    h, w = radiance.shape[:2]
    area = np.cos(_elevations(h))[:, None, None] * np.ones((1, w, 1), np.float32)
    how = cv2.INTER_AREA if h > ROWS or w > COLUMNS else cv2.INTER_NEAREST
    size = (COLUMNS, ROWS)
    weighted = cv2.resize(np.asarray(radiance, np.float32) * area, size, interpolation=how)
    mean = weighted / cv2.resize(np.ascontiguousarray(area), size, interpolation=how)[..., None]
    texels = np.clip(mean, 0, np.finfo(HALF).max).astype(HALF)
    return base64.b64encode(texels.tobytes()).decode("ascii")


def unpack(environment: Environment) -> np.ndarray:
    """The radiance (ROWS, COLUMNS, 3) float32 of an environment, times its intensity. Raises ValueError for none."""
    texels = np.frombuffer(base64.b64decode(environment.texels, validate=True), HALF)
    radiance = texels.astype(np.float32).reshape(ROWS, COLUMNS, 3)
    if not (np.isfinite(radiance).all() and radiance.min() >= 0):
        raise ValueError("radiance is finite and not negative")
    return radiance * np.float32(environment.intensity)


def texel_directions() -> np.ndarray:
    """(ROWS, COLUMNS, 3) float32 unit vectors: where the texels of an environment without rotation lie."""
    elevation = _elevations(ROWS)[:, None]
    azimuth = ((np.arange(COLUMNS) + 0.5) / COLUMNS * 2 - 1)[None] * np.pi  # of the viewer's ahead, -z, to the right
    up, level = np.sin(elevation), np.cos(elevation)
    rows = [np.broadcast_to(a, SIZE) for a in (level * np.sin(azimuth), up, -level * np.cos(azimuth))]
    return np.stack(rows, 2).astype(np.float32)


def solid_angles() -> np.ndarray:
    """(ROWS, COLUMNS) float32: steradians of the texels."""
    edges = np.sin(np.linspace(np.pi / 2, -np.pi / 2, ROWS + 1))
    return np.repeat((edges[:-1] - edges[1:])[:, None] * (2 * np.pi / COLUMNS), COLUMNS, 1).astype(np.float32)


def _elevations(rows: int) -> np.ndarray:
    return ((0.5 - (np.arange(rows) + 0.5) / rows) * np.pi).astype(np.float32)


def convolved(values: np.ndarray, kernel: Kernel) -> np.ndarray:
    """(ROWS, COLUMNS, n) float32: the mean of values >= 0 of that shape around every direction, by a kernel.

    What is the same everywhere stays as it is. A product in the Fourier domain along each row, as the kernel depends on
    the angle between two texels alone.
    """
    elevation = _elevations(ROWS).astype(np.float64)
    turn = np.cos(np.arange(COLUMNS) * (2 * np.pi / COLUMNS))
    up, level = np.sin(elevation), np.cos(elevation)
    weights = kernel(up[:, None, None] * up[None, :, None] + (level[:, None] * level)[..., None] * turn)
    weights *= level[None, :, None]
    weights /= weights.sum((1, 2), keepdims=True)
    waves = np.fft.rfft(values.astype(np.float64), axis=1)  # a sun is a million times as bright as what is around it
    mean = np.fft.irfft(np.einsum("ijf,jfc->ifc", np.fft.rfft(weights, axis=2), waves), COLUMNS, axis=1)
    return np.maximum(mean, 0).astype(np.float32)


def cosine(cosines: np.ndarray) -> np.ndarray:
    """What a matt surface gets: Lambert's law."""
    return np.maximum(cosines, 0)


def spread(variance: float) -> Kernel:
    """A von Mises-Fisher distribution of that variance in square radians (Fisher, "Dispersion on a sphere", 1953)."""
    return lambda cosines: np.exp((cosines - 1) / variance)


def gloss(roughness: float) -> Kernel:
    """What a surface of that roughness mirrors around the reflected direction, seen along it: GGX times the cosine.

    Karis, "Real shading in Unreal Engine 4", 2013: the view, the normal and the reflected direction taken for one.
    """
    alpha2 = roughness**4

    def kernel(cosines: np.ndarray) -> np.ndarray:
        half = (1 + cosines) / 2  # the square of the cosine of half the angle: n.h
        return np.maximum(cosines, 1e-6) / np.square(1 - half * (1 - alpha2))

    return kernel


class Places(NamedTuple):
    """Where directions lie in an environment without rotation: (n,) float32."""

    column: np.ndarray  # in texels, 0..COLUMNS, from the left edge
    row: np.ndarray  # in texels, from the middle of the first


def places(directions: np.ndarray) -> Places:
    """Where unit directions (n, 3) lie."""
    x, y, z = np.asarray(directions, np.float32).T
    column = (np.arctan2(x, -z) * np.float32(0.5 / np.pi) + np.float32(0.5)) * COLUMNS
    row = (np.float32(0.5) - np.arcsin(np.clip(y, -1, 1)) * np.float32(1 / np.pi)) * ROWS - np.float32(0.5)
    return Places(column, row)


def look_up(values: np.ndarray, where: Places, rotation: float = 0.0) -> np.ndarray:
    """(n, 3) float32: values (ROWS, COLUMNS, 3), turned by degrees, in n directions; bilinear.

    n: at most 32766, or a multiple of SIDE; OpenCV takes no longer rows.
    """
    # What lies at an azimuth came from one that is `rotation` on: seen from above, +z turns to +x, and +x to -z
    around = np.concatenate([values[:, -1:], values, values, values[:, :1]], 1)
    shape = -1, SIDE if len(where.row) % SIDE == 0 else 1
    column, row = where.column.reshape(shape), where.row.reshape(shape)
    column = column + np.float32(rotation / 360 % 1 * COLUMNS + 0.5)
    found = cv2.remap(around, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found.reshape(-1, 3)


# Normals as indices of a table: the octahedron |x| + |y| + |z| = 1 unfolded onto a square, +z in its middle (Cigolle et
# al., "A survey of efficient representations for independent unit vectors", 2014), 0.9 degrees a step.


def normal_indices(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """uint16 indices of the table of normals, for planes of unit normals of one shape."""
    size = np.abs(x) + np.abs(y) + np.abs(z)
    a, b = x / size, y / size
    behind = z < 0
    folded = (1 - np.abs(b)) * np.copysign(1, a), (1 - np.abs(a)) * np.copysign(1, b)
    a, b = np.where(behind, folded[0], a), np.where(behind, folded[1], b)
    column, row = (np.clip(np.rint((c + 1) * STEPS), 0, 2 * STEPS) for c in (a, -b))
    return np.asarray(row * SIDE + column, np.uint16)


def table_normals() -> np.ndarray:
    """(65536, 3) float32: the unit normals that the indices stand for."""
    a = np.minimum((np.arange(SIDE, dtype=np.float32) - STEPS) / STEPS, 1)
    b = -a[:, None]
    z = 1 - np.abs(a) - np.abs(b)
    x = np.where(z < 0, (1 - np.abs(b)) * np.copysign(1, a), a)
    y = np.where(z < 0, (1 - np.abs(a)) * np.copysign(1, b), b)
    return normalise_in_place(np.stack([x, y, z], 2).reshape(-1, 3))


NORMALS = places(table_normals())


def look_up_normals(table: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """One colour of a table, (65536,) float32, at indices (r, W) uint16: (r, W) float32."""
    if WIDE_LUT:
        return cv2.LUT(indices, table[None]).reshape(indices.shape)
    return np.take(table, indices, mode="clip")


Keep = Callable[[Hashable, Callable[[], np.ndarray]], np.ndarray]  # what is made once and kept by a name


def surround(
    environment: Environment, roughness: Optional[float] = None, keep: Keep = lambda _, make: make()
) -> np.ndarray:
    """What an environment gives to surfaces in the open, by the index of their normal: (3, 65536) float32 irradiance.

    roughness: (6, 65536), with what a surface of that roughness mirrors toward the viewer in the last three. keep: for
    what does not change when the environment turns.
    """
    turn = environment.rotation
    tables = [look_up(keep("matt", lambda: convolved(unpack(environment), cosine)), NORMALS, turn)]
    if roughness is not None:
        blurred = keep(("glossy", roughness), lambda: convolved(unpack(environment), gloss(roughness)))
        column, row, share = keep(("mirror", roughness), lambda: _mirror(roughness))
        tables.append(look_up(blurred, Places(column, row), turn) * share[:, None])
    return np.ascontiguousarray(np.concatenate(tables, 1).T)


def _mirror(roughness: float) -> np.ndarray:
    """(3, 65536) float32: where what the table's normals mirror comes from (see Places), and how much they mirror."""
    normals = table_normals()
    toward = places(_glossy_direction(normals, roughness))
    return np.stack([*toward, reflectance(np.maximum(normals[:, 2], 0), roughness)])


def _glossy_direction(n: np.ndarray, roughness: float) -> np.ndarray:
    """Where most of what surfaces with normals (n, 3) mirror toward a viewer at +z comes from.

    From the reflected direction, 2 (n.v) n - v, the rougher the nearer to the normal: the fit of Lagarde, de Rousiers,
    "Moving Frostbite to physically based rendering", 2014.
    """
    toward = 2 * n[:, 2:] * n
    toward[:, 2] -= 1
    smoothness = 1 - roughness
    toward = n + (toward - n) * np.float32(smoothness * (np.sqrt(smoothness) + roughness))
    return normalise_in_place(toward)


def reflectance(NoV: np.ndarray, roughness: float) -> np.ndarray:
    """The share of even light that a surface mirrors toward a viewer at n.v, of any shape, float32.

    The integral of shading.py's GGX, with the half vectors drawn as GGX distributes them (Karis 2013).
    """
    alpha2 = roughness**4
    share = (np.arange(SAMPLES) + 0.5) / SAMPLES
    cos_h = np.sqrt((1 - share) / (1 + (alpha2 - 1) * share))[:, None]
    around = np.cos(np.pi * share)[None]
    v = np.linspace(1 / SAMPLES, 1, SAMPLES)[:, None, None]
    VoH = cos_h * v + np.sqrt((1 - cos_h**2) * (1 - v**2)) * around
    NoL = np.maximum(2 * VoH * cos_h - v, 0)
    V = 0.5 / (NoL * np.sqrt(v**2 * (1 - alpha2) + alpha2) + v * np.sqrt(NoL**2 * (1 - alpha2) + alpha2))
    F = 0.04 + 0.96 * (1 - np.clip(VoH, 0, 1)) ** 5
    mean = (4 * V * F * NoL * np.maximum(VoH, 0) / cos_h).mean((1, 2))
    return np.interp(NoV, v.ravel(), mean).astype(np.float32)
