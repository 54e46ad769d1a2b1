"""What a manifest may say of a graph: the contract between an exporter and the server, checked by both."""

from functools import cached_property
from typing import Annotated, Any, Dict, List, Literal, Mapping, Optional, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Role = Literal["depth", "normals", "mask", "visibility", "shading", "subject"]
ROLES: List[Role] = ["depth", "normals", "mask", "visibility", "shading", "subject"]
REBUILD = "python export/export_models.py"

Name = Annotated[str, Field(min_length=1)]
Pixels = Annotated[int, Field(ge=1, le=8192)]
Positive = Annotated[float, Field(ge=1e-9, le=1e9)]
Bounded = Annotated[float, Field(ge=-1e9, le=1e9)]
Axis = Literal["+x", "-x", "+y", "-y", "+z", "-z"]


class _Part(BaseModel):
    """Part of a manifest. What an exporter says beyond what the server reads is kept, for /models."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


class InputSpec(_Part):
    """How a photo becomes the tensor that the graph takes: (code * scale - mean) / std, by channel."""

    name: Name
    size: Pixels  # of the long or the short side, whichever the rule names
    size_rule: Literal["long_side", "short_side"]
    multiple: Pixels  # of which both sides are
    scale: Positive
    mean: List[Bounded] = Field(min_length=3, max_length=3)
    std: List[Positive] = Field(min_length=3, max_length=3)
    channels: Literal["RGB", "BGR"] = "RGB"
    mirror: bool = False  # average over the photo and its mirror image?
    scales: List[Annotated[float, Field(ge=0.1, le=10)]] = Field([1.0], min_length=1)  # of the size, averaged over
    fixed: bool = False  # does the graph take size x size alone?
    # An input (1,) int64: 1 where visibility and shading are wanted, which is at the smallest of the sizes, else 0
    light: Optional[Name] = None

    @model_validator(mode="after")
    def _fixed_has_one_size(self) -> "InputSpec":
        if self.fixed and (self.scales != [1] or self.multiple != self.size):
            raise ValueError("input.fixed: such a graph has one scale, and its size is its multiple")
        return self


class DepthOutput(_Part):
    """Disparity (larger is nearer), depth, or points whose z is the depth."""

    name: Name
    meaning: Literal["disparity", "depth", "points"]


class NormalsOutput(_Part):
    """Normals; `axes` tells where each channel points, in the axes of the server; `relief`: see Geometry."""

    name: Name
    axes: List[Axis]
    relief: float = Field(0.0, ge=0, le=1)

    @field_validator("axes")
    @classmethod
    def _each_axis_once(cls, axes: List[Axis]) -> List[Axis]:
        if sorted(axis[1] for axis in axes) != ["x", "y", "z"]:
            raise ValueError('three of "+x", "-x", "+y", ..., each axis once')
        return axes


class MaskOutput(_Part):
    """Where there is a surface, or what stands in front, as a probability or its logit."""

    name: Name
    meaning: Literal["probability", "logit"]


class VisibilityOutput(_Part):
    """How much of a distant light arrives from each of many directions, (1, K, h, w), as a probability or its logit.

    `directions`: the K unit vectors toward the light, in the axes of the server.
    """

    name: Name
    meaning: Literal["probability", "logit"]
    directions: List[Annotated[List[Bounded], Field(min_length=3, max_length=3)]] = Field(min_length=4, max_length=256)

    @field_validator("directions")
    @classmethod
    def _unit_vectors(cls, directions: List[List[float]]) -> List[List[float]]:
        if any(abs(sum(c * c for c in d) - 1) > 1e-3 for d in directions):
            raise ValueError("vectors of length 1")
        return directions

    @cached_property
    def mirror_images(self) -> List[int]:
        """For each direction, which one is its mirror image (x to -x). Raises ValueError where one has none."""
        found = []
        for x, y, z in self.directions:
            apart = [(a + x) ** 2 + (b - y) ** 2 + (c - z) ** 2 for a, b, c in self.directions]
            found.append(apart.index(min(apart)))
            if min(apart) > 1e-6:
                raise ValueError("with input.mirror each direction needs its mirror image among them")
        return found


class ShadingOutput(_Part):
    """The light that the photo was taken in, (1, 3, h, w), red, green and blue, each up to a factor.

    Linear, or its natural logarithm. `share`: see Geometry.
    """

    name: Name
    meaning: Literal["linear", "logarithm"]
    share: float = Field(0.5, ge=0, le=1)


Output = Union[DepthOutput, NormalsOutput, MaskOutput, VisibilityOutput, ShadingOutput]


class Outputs(BaseModel):
    """What the graph answers, by role."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    depth: Optional[DepthOutput] = None
    normals: Optional[NormalsOutput] = None
    mask: Optional[MaskOutput] = None
    visibility: Optional[VisibilityOutput] = None
    shading: Optional[ShadingOutput] = None
    subject: Optional[MaskOutput] = None

    @model_validator(mode="after")
    def _something(self) -> "Outputs":
        if not self.model_fields_set or any(getattr(self, role) is None for role in self.model_fields_set):
            raise ValueError("at least one role, and an object for each")
        return self

    def by_role(self) -> Dict[Role, Output]:
        """The outputs that there are."""
        return {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}


class Manifest(_Part):
    """A manifest that the server can follow; `model_dump(exclude_unset=True)` is what its author wrote."""

    name: str = ""
    sha256: str = ""
    rebuild: Optional[str] = None
    roles: List[str] = []
    input: InputSpec
    outputs: Outputs
    focal: Optional[Annotated[float, Field(ge=0.05, le=50)]] = None

    @model_validator(mode="after")
    def _roles_are_those_of_the_outputs(self) -> "Manifest":
        if "roles" in self.model_fields_set and sorted(self.roles) != sorted(self.outputs.by_role()):
            raise ValueError("roles: they are the outputs' names, at least one")
        return self

    @model_validator(mode="after")
    def _directions_can_be_mirrored(self) -> "Manifest":
        if self.input.mirror and self.outputs.visibility is not None:
            self.outputs.visibility.mirror_images  # noqa: B018  # it raises
        return self

    def described(self) -> Dict[str, Any]:
        """What its author wrote, for /models."""
        return self.model_dump(exclude_unset=True)


def parse(manifest: Mapping[str, Any]) -> Manifest:
    """The manifest. Raises ValueError, naming the entries and what they may be, unless the server can follow it."""
    try:
        return Manifest.model_validate(manifest)
    except ValidationError as exc:
        parts = []
        for e in exc.errors():
            where = ".".join(str(p) for p in e["loc"])
            said = e["msg"].removeprefix("Value error, ")
            parts.append(f"{where}: {said}" if where else said)
        raise ValueError("; ".join(parts)) from None
