"""The passes that follow from a photograph's maps: albedo.png, shading.png, surface.png; relit16.png, passes.exr.

The shading is the photograph's own light, as relighting divides it out with delight 1; its mean over the surfaces is 1.
The albedo is the photograph without it: linear photograph = albedo * shading * factor, of the 8-bit files too. Where
the photograph is brighter than any albedo would make it, the shading is brighter instead; what is no surface keeps its
colours as its albedo.
"""

from dataclasses import replace
from typing import Any, Callable, Dict, List, Tuple

import cv2
import numpy as np

from ..image.resample import in_threads
from ..image.srgb import decode, encode, linear_to_srgb
from .lights import Mask, Rig
from .maps import Maps, mean_of_light
from .shading import exposure_of, illuminate, linear_rows, shades_of

# Times the mean: the greatest factor. With more, a code of a dark albedo would be more than a code of the photograph.
BRIGHTEST = 2.4


def shading_factor(samples: np.ndarray) -> float:
    """What shading.png is scaled by, 1..BRIGHTEST, from the logarithm of a photograph's own light (n,) float32."""
    bright = float(np.exp(np.percentile(samples, 99.5))) / mean_of_light(samples, 1.0)
    return round(min(max(bright, 1.0), BRIGHTEST), 4)


def own_light(maps: Maps, rows: slice, factor: float) -> Tuple[np.ndarray, List[np.ndarray]]:
    """Rows of shading.png, (r, W) uint8, and of albedo.png, three planes (r, W) uint8."""
    band = maps.band(rows)
    photo = [decode(c) for c in band.codes]
    shading = band.log_light - np.float32(np.log(mean_of_light(maps.shared.light_samples, 1.0)))
    if band.share is not None:
        shading *= band.share
    shading = np.exp(shading - np.float32(np.log(factor)), out=shading)
    largest = cv2.max(cv2.max(photo[0], photo[1]), photo[2]).reshape(shading.shape)
    shading = np.minimum(np.maximum(shading, largest * np.float32(1 / factor)), 1)
    codes = np.maximum(encode(shading), 1)
    scale = np.float32(1 / factor) / decode(codes)
    return codes, [encode(c * scale) for c in photo]


def shading_pass(maps: Maps, factor: float, threads: int = 1) -> np.ndarray:
    """shading.png, (H, W, 3) uint8."""
    out = np.empty((*maps.size, 3), np.uint8)

    def fill(rows: slice) -> None:
        out[rows] = own_light(maps, rows, factor)[0][..., None]

    in_threads(fill, maps.bands(threads), threads)
    return out


def albedo_pass(maps: Maps, factor: float, threads: int = 1) -> np.ndarray:
    """albedo.png, (H, W, 3) uint8."""
    out = np.empty((*maps.size, 3), np.uint8)

    def fill(rows: slice) -> None:
        cv2.merge(own_light(maps, rows, factor)[1], dst=out[rows])

    in_threads(fill, maps.bands(threads), threads)
    return out


def surface_pass(maps: Maps, threads: int = 1) -> np.ndarray:
    """surface.png, (H, W) uint8: 255 a surface, 0 sky or void."""
    out = np.full(maps.size, 255, np.uint8)

    def fill(rows: slice) -> None:
        share = maps.band(rows).share
        if share is not None:
            np.rint(share * np.float32(255), out=out[rows], casting="unsafe")

    in_threads(fill, maps.bands(threads), threads)
    return out


def deep_pass(maps: Maps, rig: Rig, threads: int = 1) -> np.ndarray:
    """relit16.png, (H, W, 3) uint16: the relit picture in sRGB codes of 16 bits."""
    out, light = np.empty((*maps.size, 3), np.uint16), linear_rows(maps, rig)

    def fill(rows: slice) -> None:
        for k, plane in enumerate(light(rows)):
            np.rint(linear_to_srgb(np.clip(plane, 0, 1)) * 65535, out=out[rows, :, k], casting="unsafe")

    in_threads(fill, maps.bands(threads), threads)
    return out


def layer_names(rig: Rig) -> Dict[str, Any]:
    """The channels of passes.exr but for alpha, with their types."""
    colours = [f"{layer}{c}" for layer in ("", "albedo.", "shading.") for c in "RGB"]
    colours += [f"environment.{c}" for c in "RGB"] if rig.environment is not None else []
    others = ["N.X", "N.Y", "N.Z", "surface.Y", "occlusion.Y", *(f"shadow{k:02d}.Y" for k in range(len(rig.lights)))]
    others += mask_layers(rig)
    return {**dict.fromkeys([*colours, *others], np.float16), "Z": np.float32}


def mask_layers(rig: Rig) -> Dict[str, Mask]:
    """The masks of a rig by the names of their layers: `mask.Y` of the picture, `mask00.Y` ... of lights."""
    named = {"mask.Y": rig.mask, **{f"mask{k:02d}.Y": lamp.mask for k, lamp in enumerate(rig.lights)}}
    return {name: mask for name, mask in named.items() if mask is not None}


def layers(maps: Maps, rig: Rig) -> Tuple[Callable[[slice], Dict[str, np.ndarray]], float]:
    """What passes.exr holds: (a function of rows that gives the planes (r, W) float32 by name, the gain of the light).

    All is linear. Where there is a surface, wholly in the picture's mask, R, G, B is, before the tone curve and with
    the lights' irradiance E (that of the ambient light times `occlusion`, of each light times its `shadow`, which here
    has full strength, and its mask, and that of an environment, `environment`, shadows and all):
    albedo * shading ** (1 - delight) * E * gain. In sky and void shading is 1 and Z infinite.
    """
    light = linear_rows(maps, rig)
    mean, stops = mean_of_light(maps.shared.light_samples, 1.0), exposure_of(maps, rig)
    shadows = [maps.on_grid(maps.shared.visibility(lamp)) if lamp.shadow else None for lamp in rig.lights]
    around = replace(rig, lights=(), ambient=0.0, specular_strength=0.0)
    shades = shades_of(maps, around)
    gain = mean_of_light(maps.shared.light_samples, rig.delight) * mean**-rig.delight * 2.0**stops

    def of(rows: slice) -> Dict[str, np.ndarray]:
        band = maps.band(rows)
        shading = np.exp(band.log_light - np.float32(np.log(mean)))
        if band.share is not None:
            shading[band.share == 0] = 1
        planes = dict(zip("RGB", light(rows)))
        planes.update({f"albedo.{c}": decode(codes) / shading for c, codes in zip("RGB", band.codes)})
        planes.update({f"shading.{c}": shading for c in "RGB"})
        planes.update({f"N.{axis}": plane for axis, plane in zip("XYZ", band.normals)})
        surface = np.ones_like(shading) if band.share is None else band.share
        planes["Z"] = np.where(surface > 0.5, 1 / maps.depth(rows), np.float32(np.inf))
        planes["surface.Y"], planes["occlusion.Y"] = surface, band.occlusion
        for k, shadow in enumerate(shadows):
            planes[f"shadow{k:02d}.Y"] = np.ones_like(shading) if shadow is None else maps.from_grid(shadow, rows)
        planes.update({name: maps.mask(mask, rows) for name, mask in mask_layers(rig).items()})
        if rig.environment is not None:
            arrives, _ = illuminate(maps, around, rows, shades)
            planes.update({f"environment.{c}": plane for c, plane in zip("RGB", arrives)})
        return planes

    return of, gain
