"""(a) fast against the float64 reference: time and peak memory; (d) growth with pixels and with lights. Arrays only."""

import json
import sys
import time
from functools import partial

from common import in_process, jpeg_seconds, memory, photo, reset_peak, size_of

FILE = __file__


def lights(n, shadow):
    from server.light.lights import key_light

    return tuple(key_light(-0.6 + 0.08 * k, 0.4 - 0.05 * k, 0.7, shadow) for k in range(n))


def scene(megapixels):
    from light_scenes import ball_and_wall, smooth_field

    from server.scene.fit import fit_scene
    from server.scene.geometry import Geometry

    rgb = photo(*size_of(megapixels))
    g = ball_and_wall(288, 384)[0]
    import numpy as np

    mask = smooth_field(np.random.default_rng(0), 288, 384, -0.3, 2.5).clip(0, 1).astype(np.float32)
    geometry = Geometry(g.inverse_depth, g.normals, mask, g.focal)
    return rgb, geometry, fit_scene(rgb, geometry)


def best(f, seconds=2.0, clock=time.process_time):
    """The least of many: processor time, so that other work on the machine counts little."""
    took, end = [], time.perf_counter() + seconds
    while not took or (time.perf_counter() < end and len(took) < 30):
        start = clock()
        f()
        took.append(clock() - start)
    return min(took)


def worker(which, megapixels, threads):
    """One measurement in this process.

    Seconds of one relight without cast shadows, bytes of peak above the photograph.
    """
    import cv2

    from server.light.lights import Rig
    from server.light.maps import prepare
    from server.light.shading import relight

    cv2.setNumThreads(1)
    rgb, geometry, fit = scene(megapixels)
    rig = Rig(lights=lights(1, False))
    if which == "fast":
        base = memory()[0]
        reset_peak()
        start = time.process_time()
        maps = prepare(rgb, geometry, fit)
        prepared = time.process_time() - start
        took = best(
            partial(relight, maps, rig, threads), clock=time.process_time if threads == 1 else time.perf_counter
        )
        return {"seconds": took, "prepare": prepared, "bytes": memory()[1] - base}
    import numpy as np
    import reference

    maps = prepare(rgb, geometry, fit)
    whole = slice(0, rgb.shape[0])
    band, q = maps.band(whole), maps.depth(whole)
    n, occlusion, mask = np.moveaxis(band.normals, 0, 2).copy(), band.occlusion, band.share
    del maps, band
    base = (
        memory()[0] - q.nbytes - n.nbytes - occlusion.nbytes - mask.nbytes
    )  # its maps are counted, as the other's are
    reset_peak()
    start = time.process_time()
    reference.relight(rgb, q, n, mask, occlusion, fit.light, fit.focal, rig)
    return {"seconds": time.process_time() - start, "bytes": memory()[1] - base}


def growth():
    """Seconds of relight with shadows in the cache: by pixels with one light, by lights at 1 megapixel."""
    import cv2

    from server.light.lights import Rig
    from server.light.maps import prepare
    from server.light.shading import relight

    cv2.setNumThreads(1)
    pixels, count = {}, {}
    for megapixels in (0.25, 1, 4, 12):
        maps = prepare(*scene(megapixels))
        pixels[megapixels] = best(partial(relight, maps, Rig(lights=lights(1, True))))
        if megapixels == 1:
            for n in (1, 2, 4, 8, 16):
                count[n] = best(partial(relight, maps, Rig(lights=lights(n, True))))
            from server.light.shadows import ShadowGrid

            grid = ShadowGrid(maps.shared.grid.q, maps.shared.focal)
            march = best(partial(grid.visibility, lights(1, True)[0]))
    return {"by_megapixels": pixels, "by_lights": count, "march": march}


def against_reference(sizes=(1, 4, 12), threads=2):
    rows = []
    for megapixels in sizes:
        one, all_cores = (in_process(FILE, "fast", megapixels, t) for t in (1, threads))
        slow = in_process(FILE, "reference", megapixels, 1)
        jpeg = jpeg_seconds(*size_of(megapixels))
        rows.append(
            {
                "megapixels": megapixels,
                "reference_s": slow["seconds"],
                "one_core_s": one["seconds"],
                "all_cores_s": all_cores["seconds"],
                "prepare_s": one["prepare"],
                "speedup_one_core": slow["seconds"] / one["seconds"],
                "speedup": slow["seconds"] / all_cores["seconds"],
                "reference_mb": slow["bytes"] / 1e6,
                "fast_mb": one["bytes"] / 1e6,
                "memory_share": one["bytes"] / slow["bytes"],
                "one_core_in_jpegs": one["seconds"] / jpeg,
            }
        )
    return rows


def measure_growth():
    return in_process(FILE, "growth")


if __name__ == "__main__":
    if sys.argv[1] == "growth":
        print(json.dumps(growth()))
    else:
        print(json.dumps(worker(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))))
