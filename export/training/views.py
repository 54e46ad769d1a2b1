"""Views of rendered pictures as other cameras would have taken them, with all that is known of each.

A window of a picture that lies off its middle is not what a camera shows that is pointed there: its principal point is
elsewhere, so that the same surface has other normals. Here the camera is turned: a homography for the pixels, a
rotation for normals and directions, the new z for the depth. Mirror images are turns by an orthogonal matrix of
determinant -1. Everything is a tensor operation on a batch and runs where the tensors are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import data, light
from .data import MEAN, STD, Shards
from .directions import directions

CLOSEST = 0.5  # of a picture's side: in smaller windows most of what casts shadows is out of sight
ENLARGED = 1.4  # no window is enlarged by more: it would be soft, and so the edges of its truth
LEVEL, TILT = 0.75, 12.0  # share of views that are not tilted, and the most degrees of the others
SHARPNESS = 80.0  # of the look-up between directions: at no turn 0.99 of a direction is itself
FOLLOWED = 0.6  # share of pictures recoloured so gently that their shading is still known


class Pictures(NamedTuple):
    """Pictures of one size as the generator makes them, see dataset.py and visibility.py.

    rgb uint8 (n, s, s, 3), inverse float16 (n, s, s), normals int8 (n, s, s, 3), mask uint8 (n, s, s), seen uint8
    (n, s/2, s/2, K/8), bits, albedo uint8 (n, s/2, s/2, 3), and focal float32 (n,), in widths of the picture.
    """

    rgb: Tensor
    inverse: Tensor
    normals: Tensor
    mask: Tensor
    seen: Tensor
    albedo: Tensor
    focal: Tensor


class Truth(NamedTuple):
    """What is known of a batch of views, float32 at half their size, channels first.

    disparity (n, 1, ...), normals (n, 3, ...), as long as they agree, mask (n, 1, ...), seen (n, K, ...), shading
    (n, 3, ...), its logarithm, albedo (n, 3, ...), linear, known (n, 1, ...), where these two are, and the indices of
    the directions that the pictures are lit from anew.
    """

    disparity: Tensor
    normals: Tensor
    mask: Tensor
    seen: Tensor
    shading: Tensor
    albedo: Tensor
    known: Tensor
    lights: Tensor


def camera(rng: np.random.Generator, focal: float, side: int, height: int, width: int) -> tuple[np.ndarray, float]:
    """A random camera beside that of a square picture of `focal` widths and `side` pixels, for a view (height, width).

    Returns `turn`, float32 (3, 3), orthogonal, from the old camera's axes to the new one's, and `reach`, the new
    view's half width at distance 1. All that it shows lies in the picture.
    """
    half, tall = 0.5 / focal, height / width
    closest = min(1.0, max(CLOSEST, (height * width) ** 0.5 / ENLARGED / side))
    whole = rng.random() < 0.25
    reach = half * min(1.0, 1 / tall) * (1.0 if whole else rng.uniform(closest, 1.0))
    x, y = (0.0 if whole else rng.uniform(-1, 1) * (half - r) for r in (reach, reach * tall))
    tilt = 0.0 if rng.random() < LEVEL else np.radians(rng.uniform(-TILT, TILT))
    turn = toward(x, y, tilt)
    if rng.random() < 0.5:
        turn = turn * np.array([[-1.0], [1.0], [1.0]])
    return turn.astype(np.float32), min(reach, furthest(turn, half, tall))


def toward(x: float, y: float, tilt: float) -> np.ndarray:
    """The turn (3, 3) to a camera that looks where the old one sees (x, y, -1), tilted by so many radians."""
    back = -np.array([x, y, -1.0]) / np.sqrt(x * x + y * y + 1)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    c, s = np.cos(tilt), np.sin(tilt)
    return np.stack([c * right + s * up, c * up - s * right, back])


def furthest(turn: np.ndarray, half: float, tall: float) -> float:
    """The largest reach with which all corners of a turned view, `tall` times as high as wide, lie in a square picture.

    A corner at reach r is r * across + ahead in the old camera's axes, and there |x| and |y| may be `half` times its
    depth -z: a bound on r for each corner and side.
    """
    bounds = []
    for a in (-1, 1):
        for b in (-tall, tall):
            across, ahead = np.array([a, b, 0.0]) @ turn, np.array([0.0, 0.0, -1.0]) @ turn
            for axis in (0, 1):
                for sign in (-1, 1):
                    grows, room = sign * across[axis] + half * across[2], -half * ahead[2] - sign * ahead[axis]
                    if grows > 1e-9:
                        bounds.append(room / grows)
    return float(min(bounds))


def rays(turn: Tensor, reach: Tensor, height: int, width: int) -> Tensor:
    """(n, height, width, 3): what the pixels' centres see, in the old camera's axes, at depth 1 of the new one."""
    x = (torch.arange(width, device=turn.device) + 0.5) / width * 2 - 1
    y = (1 - (torch.arange(height, device=turn.device) + 0.5) / height * 2) * (height / width)
    flat = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)
    across = torch.einsum("hwc,nck->nhwk", flat, turn[:, :2])
    return across * reach[:, None, None, None] - turn[:, None, None, 2]


def pick(image: Tensor, seen: Tensor, focal: Tensor, mode: str = "bilinear") -> Tensor:
    """The image (n, c, s, s) of the old camera where it sees the rays (n, h, w, 3): (n, c, h, w)."""
    place = seen[..., :2] / -seen[..., 2:] * (2 * focal[:, None, None, None])
    place = place * torch.tensor([1.0, -1.0], device=place.device)
    return F.grid_sample(image, place, mode=mode, padding_mode="border", align_corners=False)


def first(image: Tensor) -> Tensor:
    """An image with its channels last as float32 (n, c, s, s)."""
    return image.float().permute(0, 3, 1, 2)


def look(p: Pictures, turn: Tensor, reach: Tensor, height: int, width: int, lights: Tensor) -> tuple[Tensor, Truth]:
    """The pictures through other cameras (see camera; turn (n, 3, 3), reach (n,)): codes 0..255 (n, 3, height, width),
    float32, and the truth.

    Colours and normals are averaged, depth and light never: a mean across an edge is the depth of nothing.
    """
    twice, once, half = (rays(turn, reach, height * k // 2, width * k // 2) for k in (4, 2, 1))
    rgb = first(p.rgb)
    codes = F.avg_pool2d(pick(rgb, twice, p.focal), 2)
    before = F.avg_pool2d(pick(first(p.normals) / 127, once, p.focal), 2)
    mask = F.avg_pool2d(pick((p.mask[:, None] > 0).float(), once, p.focal), 2)
    # at depth d of the new camera, a ray of depth 1 there is at depth -z * d of the old one
    disparity = pick(p.inverse[:, None].float(), half, p.focal, "nearest") * -half[..., 2][:, None]
    shading, albedo, known = (pick(a, half, p.focal, "nearest") for a in lighting(rgb, first(p.albedo) / 255))
    bits = pick(first(p.seen), half, p.focal, "nearest").round().to(torch.uint8)
    shifts = torch.arange(7, -1, -1, device=bits.device, dtype=torch.uint8)
    open_ = ((bits[:, :, None] >> shifts[:, None, None]) & 1).flatten(1, 2).float()
    return codes, Truth(
        disparity,
        torch.einsum("nij,njhw->nihw", turn, before),
        (mask > 0.5).float(),
        turned(open_, before, turn),
        shading,
        albedo,
        known,
        lights,
    )


def lighting(rgb: Tensor, root: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The logarithm of the shading, the linear albedo, and where both are known (float32, 0 or 1).

    Of codes (n, 3, s, s) and the root of the albedo (n, 3, s/2, s/2), for the grid of the latter.
    """
    codes, albedo = F.avg_pool2d(rgb, 2), root * root
    shading = 2.2 * torch.log(codes.clamp(min=1) / 255) - torch.log(albedo.clamp(min=1e-3))
    bright, dark = codes.amax(1, keepdim=True), codes.amin(1, keepdim=True)
    known = (albedo.amin(1, keepdim=True) > light.DARK) & (bright < light.CLIPPED) & (dark > light.BLACK)
    return shading, albedo, known.float()


def turned(seen: Tensor, normals: Tensor, turn: Tensor) -> Tensor:
    """Visibility (n, K, h, w) for the directions of turned cameras, from that for the same set of the old ones'.

    It is a mean of the nearest old directions, of those above the surface, whose normals (n, 3, h, w) are the old ones.
    """
    d = torch.from_numpy(directions()).to(turn)
    shares = torch.softmax(SHARPNESS * (d @ turn) @ d.T, 2)
    above = (torch.einsum("kc,nchw->nkhw", d, normals) > 0).float()
    total, known = (torch.einsum("nkj,njhw->nkhw", shares, t) for t in (seen * above, above))
    return total / known.clamp(min=0.02)


def one(shards: Shards, k: int, rng: np.random.Generator) -> Pictures:
    """Picture k of the shards as a batch of one, half of those with a sky under another one."""
    _, inverse, normals, mask, seen, albedo = shards.rows(k)
    whole = shards[k]
    rgb = data.paint_sky(whole, rng).rgb if rng.random() < 0.5 else whole.rgb
    arrays = (rgb, inverse, normals, mask, seen, albedo)
    return Pictures._make([*(torch.from_numpy(np.array(a))[None] for a in arrays), torch.tensor([shards.focal(k)])])


def sample(shards: Shards, rng: np.random.Generator, height: int, width: int, lights: Tensor) -> tuple[Tensor, Truth]:
    """A random view (1, 3, height, width), normalised, and its truth.

    Some are recoloured so that their shading can follow, the others as strongly as cameras and the web do.
    """
    p = one(shards, data.draw(shards, rng), rng)
    turn, reach = camera(rng, float(p.focal), p.rgb.shape[1], height, width)
    codes, truth = look(p, torch.from_numpy(turn)[None], torch.tensor([reach]), height, width, lights)
    rgb = np.ascontiguousarray(codes[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
    if rng.random() < FOLLOWED:
        shading = truth.shading[0].permute(1, 2, 0).numpy()
        rgb, shading = light.recolour(rgb, shading, rng)
        truth = truth._replace(shading=torch.from_numpy(shading.copy()).permute(2, 0, 1)[None])
    else:
        rgb, truth = data.recolour(rgb, rng), truth._replace(known=torch.zeros_like(truth.known))
    return normalised(first(torch.from_numpy(rgb)[None])), truth


def normalised(codes: Tensor) -> Tensor:
    """What the network takes, of codes 0..255."""
    return (codes - MEAN) / STD


def batch(shards: Shards, seed: int, step: int, size: int, part: range) -> tuple[Tensor, Truth]:
    """Samples `part` of one step's batch: a function of seed, step, shards and size alone.

    So a resumed run sees what it would have seen. `size` is the side of a square of the same area; the pictures are
    square, landscape or upright.
    """
    height, width = data.shape_of(size, np.random.default_rng([seed, step]))
    lights = torch.from_numpy(np.random.default_rng([seed, step, part.start]).permutation(light.facing())[: light.LIT])
    samples = [sample(shards, np.random.default_rng([seed, step, j]), height, width, lights) for j in part]
    truths = [truth for _, truth in samples]
    return torch.cat([image for image, _ in samples]), Truth._make([*map(torch.cat, list(zip(*truths))[:-1]), lights])
