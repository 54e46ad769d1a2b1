"""Looks by name, in the words of the API: what a body of /relight says that names one, unless it says otherwise."""

from typing import Any, Dict, List, NamedTuple


class Preset(NamedTuple):
    """A look. title: for people. body: fields of /relight; without `exposure`, the photo's brightness is kept."""

    title: str
    body: Dict[str, Any]


def _sun(x: float, y: float, z: float, **more: Any) -> Dict[str, Any]:
    return {"type": "directional", "direction": [x, y, z], **more}


def _lamp(x: float, y: float, z: float, **more: Any) -> Dict[str, Any]:
    return {"type": "point", "position": [x, y, z], **more}


def _window(x: float) -> Dict[str, Any]:
    return {"lights": [_sun(x, 0.35, 0.55, angle=30, temperature=6000, intensity=1.25)], "ambient": 0.22}


PRESETS: Dict[str, Preset] = {
    "window-left": Preset("Window left", _window(-1)),
    "window-right": Preset("Window right", _window(1)),
    "rim": Preset(
        "Rim",
        {
            "lights": [
                _sun(-1, 0.45, -0.2, angle=6, temperature=8000, intensity=2.6),
                _sun(1, 0.45, -0.2, angle=6, temperature=4200, intensity=2.6),
            ],
            "ambient": 0.16,
            "specular": {"strength": 0.15, "roughness": 0.4},
            "exposure": -0.5,
        },
    ),
    "golden-hour": Preset(
        "Golden hour",
        {
            "lights": [
                _sun(1, 0.26, 0.4, angle=2, temperature=3000, intensity=1.7),
                _sun(-0.5, 1, 0.6, angle=90, temperature=12000, intensity=0.25, shadow=False),
            ],
            "ambient": 0.22,
        },
    ),
    "softbox": Preset(
        "Softbox",
        {"lights": [_lamp(0.6, 0.75, 1, radius=0.5, range=1.6, temperature=5600, intensity=1.5)], "ambient": 0.3},
    ),
    "butterfly": Preset(
        "Butterfly",
        {
            "lights": [
                _sun(0, 0.85, 0.7, angle=15, temperature=5600, intensity=1.3),
                _sun(0, -0.5, 1, angle=60, intensity=0.2, shadow=False),
            ],
            "ambient": 0.14,
        },
    ),
    "rembrandt": Preset(
        "Rembrandt",
        {
            "lights": [
                _sun(-0.75, 0.7, 0.65, angle=12, temperature=4800, intensity=1.5),
                _sun(1, 0.1, 0.9, angle=60, intensity=0.12, shadow=False),
            ],
            "ambient": 0.1,
        },
    ),
    "split": Preset(
        "Split", {"lights": [_sun(-1, 0.1, 0.06, angle=8, temperature=5200, intensity=2)], "ambient": 0.07}
    ),
    "clamshell": Preset(
        "Clamshell",
        {
            "lights": [
                _sun(0, 0.7, 0.9, angle=40, temperature=5600),
                _sun(0, -0.6, 0.9, angle=50, temperature=5600, intensity=0.55, shadow=False),
            ],
            "ambient": 0.2,
            "specular": {"strength": 0.15, "roughness": 0.45},
        },
    ),
    "from-below": Preset(
        "From below",
        {"lights": [_lamp(0, -0.8, 0.5, radius=0.08, range=0.9, temperature=2300, intensity=2.4)], "ambient": 0.1},
    ),
    "ring": Preset(
        "Ring",
        {
            "lights": [_lamp(0, 0, 0.9, radius=0.6, range=0.8, temperature=6500, intensity=2.6)],
            "ambient": 0.12,
            "specular": {"strength": 0.15, "roughness": 0.4},
        },
    ),
    "moonlight": Preset(
        "Moonlight",
        {
            "lights": [_sun(-0.45, 0.85, 0.35, angle=3, color="#8fb0ff", intensity=0.9)],
            "ambient": 0.08,
            "exposure": -1,
        },
    ),
    "neon-pair": Preset(
        "Neon pair",
        {
            "lights": [
                _lamp(-0.95, 0.1, 0.9, radius=0.3, range=0.9, color="#ff3d9a", intensity=2.2),
                _lamp(0.95, -0.05, 0.9, radius=0.3, range=0.9, color="#2de2ff", intensity=1.8),
            ],
            "ambient": 0.06,
            "specular": {"strength": 0.2, "roughness": 0.4},
        },
    ),
}
SHEET = ("window-left", "softbox", "rembrandt", "golden-hour", "rim", "neon-pair")  # those of sheet.jpg


def told() -> List[Dict[str, Any]]:
    """The presets, for /models and the page: name, title, and the fields of their bodies."""
    return [{"name": name, "title": preset.title, **preset.body} for name, preset in PRESETS.items()]
