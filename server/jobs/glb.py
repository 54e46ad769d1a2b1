"""scene.glb: the surfaces of a photograph as a mesh, with the photograph and its albedo to show on it."""

from typing import Optional

import cv2
import numpy as np

from ..image.encode import encode_jpeg
from ..image.gltf import Camera, Look, encode_glb
from ..image.resample import shrink_image
from ..light.maps import Maps, prepare_picture
from ..light.passes import albedo_pass
from ..scene.mesh import Mesh, grid_size, mesh

SIDE = 2048  # pixels: the longer side of the textures, at most
QUALITY = 95  # of their JPEGs
GRIDS = (512, 256, 128)  # pixels: the longer side of what is made a mesh, the first that gives
TRIANGLES = 60_000  # at most: two a pixel are fewer on the last
BYTES = 32 * TRIANGLES + 12 * TRIANGLES + 2 * SIDE * SIDE  # of a file, at most as a rule
OPAQUE = 128  # the least alpha of what there is a surface of


def scene_mesh(maps: Maps, alpha: Optional[np.ndarray] = None, threads: int = 1) -> Mesh:
    """The mesh of a picture (H, W), where it is opaque: its alpha is (H, W) uint8, or None.

    Without any surface, all counts as one.
    """
    (h, w), shared = maps.size, maps.shared
    for side in GRIDS:
        size = grid_size((h, w), side)
        small = cv2.resize(maps.rgb, size[::-1], interpolation=cv2.INTER_AREA)
        grid, rows = prepare_picture(small, shared, threads), slice(0, size[0])
        band = grid.band(rows)
        surface = np.ones(size, bool) if band.share is None else band.share > 0.5
        if alpha is not None:
            surface &= cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_AREA) >= OPAQUE
        made = mesh(grid.depth(rows), surface, band.normals, shared.focal, h / w, TRIANGLES)
        if made is not None:
            return made
    raise ValueError("more than two triangles a pixel")


def scene_glb(maps: Maps, factor: float, alpha: Optional[np.ndarray] = None, threads: int = 1) -> bytes:
    """scene.glb of a picture, see scene_mesh. factor: that of its shading."""
    if max(maps.size) > SIDE:
        alpha = None if alpha is None else shrink_image(alpha, SIDE)
        maps = prepare_picture(shrink_image(maps.rgb, SIDE), maps.shared, threads)
    made = scene_mesh(maps, alpha, threads)
    depth = 2 * maps.shared.focal - made.positions[:, 2]
    h, w = maps.size
    return encode_glb(
        made.positions,
        made.normals,
        made.places,
        made.triangles,
        looks=(
            Look("photo", encode_jpeg(maps.rgb, QUALITY), lit=False),
            Look("albedo", encode_jpeg(albedo_pass(maps, factor, threads), QUALITY), lit=True),
        ),
        camera=Camera(
            z=2 * maps.shared.focal,
            height=h / w / maps.shared.focal,
            ratio=w / h,
            near=float(depth.min()) / 2,
            far=float(depth.max()) * 2,
        ),
    )
