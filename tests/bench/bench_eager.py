"""(e) the design this project replaces: PyTorch eager in the server process, shading with torch at full size, a PNG a
light.

The same network (random weights: they cost the same), the same terms: SH de-lighting, one light, ratio image, shoulder.
"""

import json
import os
import sys
import tempfile
import time

STARTED = time.perf_counter()


def eager(H, W, n=5):
    import cv2
    import torch
    from common import memory, photo
    from network import GeometryNet

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    net = GeometryNet().eval()
    rgb = photo(H, W)

    def linear(x):
        return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)

    def srgb(x):
        return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp(min=1e-9) ** (1 / 2.4) - 0.055)

    def harmonics(m):
        x, y, z = m
        return torch.stack([torch.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1])

    with torch.no_grad():
        picture = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
        small = torch.nn.functional.interpolate(picture, (288, 384), mode="area")
        _, normals, _ = net((small - 0.498) / 0.502)
        normals = torch.nn.functional.interpolate(normals, (H, W), mode="bilinear")[0]
        normals = normals / normals.norm(dim=0, keepdim=True).clamp(min=1e-6)
        lin = linear(picture[0])
        basis = harmonics(normals).flatten(1)[:, :: max(1, H * W // 60000)]
        luminance = (
            (lin * torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(0).flatten()[:: max(1, H * W // 60000)]
        )
        light = torch.linalg.lstsq(basis.T, luminance[:, None]).solution[:, 0]
        old = (light[:, None, None] * harmonics(normals)).sum(0).clamp(min=0.05 * luminance.mean())
        old = old / old.mean()
        folder = tempfile.mkdtemp()

        def relit(k):
            direction = torch.tensor([-0.6 + 0.01 * k, 0.4, 0.7])
            direction = direction / direction.norm()
            new = 0.2 + (normals * direction[:, None, None]).sum(0).clamp(min=0)
            out = lin * (new / old**0.6)
            before, after = lin.amax(0), out.amax(0)
            room, more = 1 - before, (after - before).clamp(min=0)
            kept = before + room * more / (room**2 + more**2 + 1e-12).sqrt()
            out = out * torch.where(after > before, kept / after.clamp(min=1e-9), torch.ones_like(after))
            codes = (srgb(out.clamp(0, 1)) * 255).round().byte().permute(1, 2, 0).numpy()
            cv2.imwrite(os.path.join(folder, "relit.png"), codes[..., ::-1])

        relit(0)
        first = time.perf_counter() - STARTED
        took = []
        for k in range(n):
            start = time.perf_counter()
            relit(k)
            took.append(time.perf_counter() - start)
    return {
        "first_picture_s": first,
        "rss_mb": memory()[0] / 1e6,
        "peak_mb": memory()[1] / 1e6,
        "light_change_s": min(took),
    }


def ours(H, W, n=20):
    """The server with its network: from starting the process to the first preview, and one preview after another."""
    from common import Server, memory, photo

    rgb = photo(H, W)
    with Server(engine="network") as server:
        job = server.upload(rgb)
        body = {"job_id": job, "x": -0.6, "y": 0.4, "z": 0.7}
        status, _, answer = server.request("POST", "/preview", body)
        first = time.perf_counter() - server.started
        assert status == 200, answer
        took = []
        for k in range(n):
            start = time.perf_counter()
            server.request("POST", "/preview", {**body, "x": -0.6 + 0.01 * k})
            took.append(time.perf_counter() - start)
        preview_rss = memory(server.process.pid)[0]
        start = time.perf_counter()
        server.request("POST", "/relight", body)
        full = time.perf_counter() - start
        return {
            "first_picture_s": first,
            "rss_mb": preview_rss / 1e6,
            "peak_mb": memory(server.process.pid)[1] / 1e6,
            "light_change_s": sorted(took)[n // 2],
            "full_relight_s": full,
        }


def run(megapixels=(1, 12)):
    from common import in_process, size_of

    rows = []
    for m in megapixels:
        a, b = (in_process(__file__, which, *size_of(m)) for which in ("eager", "ours"))
        rows.append(
            {
                "megapixels": m,
                "eager": a,
                "ours": b,
                "start_up_share": b["first_picture_s"] / a["first_picture_s"],
                "memory_share": b["rss_mb"] / a["rss_mb"],
                "light_change_share": b["light_change_s"] / a["light_change_s"],
            }
        )
    return rows


if __name__ == "__main__":
    print(json.dumps({"eager": eager, "ours": ours}[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]))))
