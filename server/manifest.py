"""What a manifest may say of a graph: the contract between an exporter and the server, checked by both."""

from typing import Any, Iterable, Mapping

ROLES = ("depth", "normals", "mask")
AXES = {"x": 0, "y": 1, "z": 2}
MEANINGS = {"depth": ("disparity", "depth", "points"), "mask": ("probability", "logit")}
SIZE_RULES = ("long_side", "short_side")
CHANNELS = ("RGB", "BGR")
REBUILD = "python export/export_models.py"


def check(manifest: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the entry and what it may be, unless the server can do what the manifest says.

    `input`: name, size, multiple, size_rule, scale, mean, std; optionally channels, mirror, scales (multiples of the
    size that are averaged) and fixed (the graph takes size x size alone). `outputs`: role -> name, and for depth and
    mask the meaning, for normals the axes (where each channel points in ours) and optionally relief, 0..1.
    """
    spec, outputs = _mapping(manifest, "input"), _mapping(manifest, "outputs")
    _text(spec, "name", "input.name")
    _one_of(spec.get("size_rule"), SIZE_RULES, "input.size_rule")
    _one_of(spec.get("channels", "RGB"), CHANNELS, "input.channels")
    _numbers([spec.get("size")], 1, 8192, "input.size", whole=True)
    _numbers([spec.get("multiple")], 1, 8192, "input.multiple", whole=True)
    _numbers([spec.get("scale")], 1e-9, 1e9, "input.scale")
    for key, least in (("mean", -1e9), ("std", 1e-9)):
        _numbers(_list(spec.get(key), 3, f"input.{key}"), least, 1e9, f"input.{key}")
    scales = spec.get("scales", [1])
    _numbers(_list(scales, None, "input.scales"), 0.1, 10, "input.scales")
    for key in ("mirror", "fixed"):
        _one_of(spec.get(key, False), (True, False), f"input.{key}")
    if spec.get("fixed") and (list(scales) != [1] or spec["multiple"] != spec["size"]):
        raise ValueError("input.fixed: such a graph has one scale, and its size is its multiple")
    roles = manifest.get("roles", list(outputs))
    if not outputs or not isinstance(roles, list) or sorted(map(str, roles)) != sorted(outputs):
        raise ValueError("roles: they are the outputs' names, at least one")
    for role, output in outputs.items():
        _one_of(role, ROLES, "outputs")
        _text(output, "name", f"outputs.{role}.name")
        if role in MEANINGS:
            _one_of(output.get("meaning"), MEANINGS[role], f"outputs.{role}.meaning")
        else:
            check_axes(output.get("axes"))
            _numbers([output.get("relief", 0)], 0, 1, f"outputs.{role}.relief")
    if manifest.get("focal") is not None:
        _numbers([manifest["focal"]], 0.05, 50, "focal")


def check_axes(axes: Any) -> None:
    """Raise ValueError unless these are three signed axes, each of x, y, z once: ["+x", "-y", "+z"]."""
    good = isinstance(axes, (list, tuple)) and all(isinstance(a, str) and len(a) == 2 and a[0] in "+-" for a in axes)
    if not good or sorted(a[1] for a in axes) != ["x", "y", "z"]:
        raise ValueError('outputs.normals.axes: three of "+x", "-x", "+y", ..., each axis once')


def _mapping(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = of.get(key) if isinstance(of, Mapping) else None
    if not isinstance(value, Mapping) or not all(
        isinstance(v, Mapping) for v in (value.values() if key == "outputs" else ())
    ):
        raise ValueError(f"{key}: an object")
    return value


def _list(value: Any, length: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)) or not value or (length and len(value) != length):
        raise ValueError(f"{where}: a list of {length or 'one or more'} numbers")
    return value


def _text(of: Mapping[str, Any], key: str, where: str) -> None:
    if not isinstance(of.get(key), str) or not of[key]:
        raise ValueError(f"{where}: a name")


def _one_of(value: Any, allowed: Iterable[Any], where: str) -> None:
    if value not in allowed:
        raise ValueError(f"{where}: one of {', '.join(map(str, allowed))}")


def _numbers(values: Iterable[Any], least: float, most: float, where: str, whole: bool = False) -> None:
    for v in values:
        good = isinstance(v, int) if whole else isinstance(v, (int, float))
        if not good or isinstance(v, bool) or not least <= v <= most:
            raise ValueError(f"{where}: {'a whole number' if whole else 'a number'} from {least:g} to {most:g}")
