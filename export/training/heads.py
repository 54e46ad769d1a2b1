"""New faces from a blend-shape head: identity, expression, a cap of hair, coloured brows, lips, beard and eyes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .geometry import Mesh, vector, vertex_normals, waves
from .materials import Material

if TYPE_CHECKING:
    from .assets import Library

f32 = np.float32
SKIN = np.array(
    [
        [0.62, 0.42, 0.32],
        [0.55, 0.34, 0.24],
        [0.45, 0.27, 0.18],
        [0.3, 0.17, 0.1],
        [0.14, 0.075, 0.045],
        [0.66, 0.48, 0.39],
    ]
)
HIDDEN = ("M_LacrimalFluid", "M_EyeBlend", "M_EyeOcclusion", "M_EyeLashes", "M_IrisLeft", "M_IrisRight")
PARTS = ("skin", "hair", "brow", "lip", "beard", "gum", "tooth", "white", "iris", "pupil")


def skin_colour(rng: np.random.Generator) -> np.ndarray:
    """A linear RGB skin colour (3,) between very dark and very fair."""
    return rng.dirichlet(np.ones(len(SKIN)) * 0.4) @ SKIN * rng.uniform(0.8, 1.15)


def hair_colour(rng: np.random.Generator) -> np.ndarray:
    """A linear RGB hair colour (3,): mostly dark, else brown to blond, or gray."""
    k = rng.random()
    if k < 0.5:
        return np.array([0.02, 0.015, 0.012]) * rng.uniform(0.5, 3)
    t = rng.random()
    return (
        np.array([0.06, 0.03, 0.015]) * (1 - t) + np.array([0.45, 0.3, 0.14]) * t * rng.uniform(0.8, 1.1, 3)
        if k < 0.85
        else np.ones(3) * rng.uniform(0.25, 0.7)
    )


class Heads:
    """The arrays of heads/ict_face.npz (centimetres, +Y up, +Z forward)."""

    def __init__(self, path: Path):
        d = np.load(path)
        names = [str(x) for x in d["material_names"]]
        fm = d["fm"].astype(int)
        keep = ~np.isin(fm, [names.index(n) for n in HIDDEN])
        self.v, self.f, self.uv = d["v"].astype(f32), d["f"][keep].astype(np.int32), d["uv"][d["fuv"][keep]].astype(f32)
        self.identity, self.expression, self.names = d["id_delta"], d["expr_delta"], [str(x) for x in d["expr_names"]]
        kind = np.array(names)[fm[keep]]
        c = self.v[self.f].mean(1)
        x, y, z = np.abs(c[:, 0]), c[:, 1], c[:, 2]
        self.on_skin = np.isin(kind, ("M_Face", "M_BackHead"))
        self.skin_vertex = np.zeros(len(self.v), bool)
        self.skin_vertex[np.unique(self.f[self.on_skin])] = True
        self.part = np.zeros(len(self.f), int)
        self.part[kind == "M_GumsTongue"] = PARTS.index("gum")
        self.part[kind == "M_Teeth"] = PARTS.index("tooth")
        for side in ("Left", "Right"):
            k = kind == f"M_Sclera{side}"
            centre = (c[k].max(0) + c[k].min(0)) / 2
            ray = c[k] - centre
            cos = ray[:, 2] / (np.linalg.norm(ray, axis=1) + 1e-9)
            self.part[k] = np.where(
                cos > 0.975, PARTS.index("pupil"), np.where(cos > 0.91, PARTS.index("iris"), PARTS.index("white"))
            )
        self.brow = (
            self.on_skin & (x > 1.1) & (x < 5.3) & (np.abs(y - 5.75 - 0.25 * np.sin((x - 1.1) * 0.75)) < 0.5) & (z > 6)
        )
        self.lip = (
            self.on_skin
            & (x < 2.5)
            & (np.abs(y + 3.45) < 1.25 * np.sqrt(np.clip(1 - (x / 2.5) ** 2, 0, 1)))
            & (z > 8.6)
        )
        self.beard = self.on_skin & (
            (y < -4.9) & (y > -10) & (z > 1)
            | (y < -1.6) & (y > -10) & (z > 8) & (x < 3.4) & (y > -10) & ~((y > -2.2) & (x < 0.7))
        )

    def hairiness(self, p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """How much hair covers points p (n, 3) of the neutral head, 0..1, with a hairline of random height."""
        x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        front, low = rng.uniform(8, 10.6), rng.choice([rng.uniform(-8, -4), rng.uniform(-2, 3)])
        line = np.interp(z, [-8, -4, -1, 2, 6, 9.5], [low, low + 1, 4.2, 6.2, front - 0.5, front]) - rng.uniform(
            0, 0.8
        ) * np.cos(x * 0.9)
        ear = (x > 7.3) & (y < 5.2) & (z < 3)
        return np.clip((y - line) / 1.0, 0, 1) * ~ear

    def random(self, rng: np.random.Generator, library: Library, stone: Material | None = None) -> Mesh:
        """A new face in metres, its mid-head at the origin. With `stone`, all of it is of that material."""
        k = rng.choice(100, 40, replace=False)
        v = self.v + np.tensordot(rng.normal(0, 1.1, 40).astype(f32), self.identity[k].astype(f32), 1)
        free = [i for i, n in enumerate(self.names) if n != "mouthClose"]  # it needs an open jaw
        for i in rng.choice(free, int(rng.integers(0, 6)), replace=False):
            v += f32(rng.uniform(0.1, 1)) * self.expression[i].astype(f32)
        n = vertex_normals(v, self.f)
        part = self.part.copy()
        if rng.random() < 0.8:
            state = int(rng.integers(1 << 30))
            h = self.hairiness(self.v, np.random.default_rng(state)) * self.skin_vertex
            bumps = waves(rng, self.v / 10, 0.25, [rng.uniform(3, 8), rng.uniform(12, 30)]) + waves(
                rng, self.v / 10 * vector([1, 0.15, 1]), 0.2, [rng.uniform(15, 40)]
            )
            v = v + n * (h * rng.uniform(0.2, 2.4) * np.clip(1 + bumps, 0.2, 2))[:, None].astype(f32)
            part[self.on_skin & (self.hairiness(self.v[self.f].mean(1), np.random.default_rng(state)) > 0.12)] = (
                PARTS.index("hair")
            )
            n = vertex_normals(v, self.f)
        plain = part == 0
        part[plain & self.brow] = PARTS.index("brow")
        part[plain & self.lip] = PARTS.index("lip")
        if rng.random() < 0.25:
            part[plain & self.beard & ~self.lip] = PARTS.index("beard")
        c, hc = skin_colour(rng), hair_colour(rng)
        noise, streak = library.made(rng, "noise"), library.made(rng, "streak")
        skin = Material(
            tuple(c), tuple(c * [0.85, 0.68, 0.64]), noise, "mix", rng.uniform(2, 6), rough=rng.uniform(0.38, 0.65)
        )
        hair = Material(
            tuple(hc * 0.5),
            tuple(np.minimum(hc * 1.6, 0.9)),
            streak,
            "mix",
            rng.uniform(3, 8),
            rough=rng.uniform(0.35, 0.7),
            bump=rng.uniform(0, 0.5),
        )
        lip = skin.but(color=tuple(c * [1, 0.62, 0.62]), color2=tuple(c * [0.9, 0.5, 0.5]), rough=0.35)
        if rng.random() < 0.15:
            lip = lip.but(color=(0.45, 0.03, 0.05), color2=(0.5, 0.06, 0.08))
        beard = skin.but(color=tuple(c * 0.4 + hc * 0.6), color2=tuple(c * 0.2 + hc * 0.8), tile=8.0, rough=0.8)
        iris = Material(
            tuple(
                rng.choice([[0.04, 0.02, 0.01], [0.1, 0.05, 0.02], [0.05, 0.12, 0.2], [0.06, 0.12, 0.06]])
                * rng.uniform(0.7, 1.3)
            ),
            rough=0.12,
        )
        mats = [
            skin,
            hair,
            beard if rng.random() < 0.7 else hair,
            lip,
            beard,
            Material((0.35, 0.1, 0.09), rough=0.3),
            Material((0.62, 0.57, 0.48), rough=0.3),
            Material((0.66, 0.63, 0.6), rough=0.15),
            iris,
            Material((0.004,) * 3, rough=0.1),
        ]
        if stone:
            mats = [stone] * len(mats)
        v = ((v + vector([0, 1, 0])) * f32(0.01)).astype(f32)
        return Mesh(v, self.f, n, self.uv, None, part, mats, head=np.zeros(3, f32), forward=vector([0, 0, 1]))
