"""The bodies of requests and answers."""

import json
import struct
import zlib
from typing import Annotated, Any, Dict, List, Literal, Optional, Sequence, Tuple, Union

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..errors import InvalidLight
from ..jobs.base import parse_id
from ..jobs.masks import NAME as MASK_NAME
from ..jobs.motions import SIDES, MotionOrder, Orbit
from ..jobs.rendering import PreviewOptions
from ..light import lights, skies
from ..light.lights import Environment, Light, Rig
from .presets import PRESETS, SHEET

DEFAULT = Rig()
KEY = Light()
MAX_LIGHTS = 16
TEMPERATURES = 196  # every five mired
KINDS = ("directional", "point", "spot")  # of lights
SOURCES = ("preset", "upload", "photo")  # of environments

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-100, le=100)]
Direction = Tuple[Number, Number, Number]
Position = Tuple[Coordinate, Coordinate, Coordinate]


def place(loc: Sequence[Union[str, int]]) -> List[Union[str, int]]:
    """The field that a finding of pydantic's is about, without what tells which of several shapes was tried."""
    where = list(loc)[1:]  # after "body"
    if loc[:1] == ("query",):
        return where[:1]
    if where[:1] == ["lights"]:
        where[2:3] = [w for w in where[2:3] if w not in KINDS]
    if where[:1] == ["environment"]:
        where[1:2] = [w for w in where[1:2] if w not in SOURCES]
    return where


def _whole(value: Any) -> Any:
    """18.0 is an integer to JSON Schema, so to us."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(_whole)]


def _one_message(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Pydantic would tell of each thing that an exposure may be, in words of its own."""
    try:
        return handler(value)
    except ValidationError:
        raise PydanticCustomError("exposure", 'send stops from -5 to 5, or "auto"') from None


Stops = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-5, le=5)]
Exposure = Annotated[Optional[Union[Stops, Literal["auto"]]], WrapValidator(_one_message)]


def _number(default: Any, ge: float, le: float, description: str, **more: Any) -> Any:
    return Field(default, strict=True, allow_inf_nan=False, ge=ge, le=le, description=description, **more)


def _invalid_light(message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_light", message)


class Strict(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


MaskName = Annotated[str, Field(pattern=MASK_NAME)]


class Mask(Strict):
    name: MaskName = Field(description="one that was PUT to the job, or `subject` or `sky`, which are built in")
    invert: Annotated[bool, Field(strict=True)] = Field(False, description="where the mask is not?")
    feather: float = _number(
        0.0, 0, 0.1, "how far it fades to each side of its edge, in picture widths; not across edges of the picture"
    )

    def to_mask(self) -> lights.Mask:
        """As the engine takes it."""
        return lights.Mask(self.name, self.invert, self.feather)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _or_name(schema: Dict[str, Any]) -> None:
    """A name alone stands for the mask of that name."""
    schema["anyOf"] = [{"type": "string", "pattern": MASK_NAME}, *schema["anyOf"]]


def _mask(description: str) -> Any:
    return Field(None, description=description, json_schema_extra=_or_name, examples=["subject"])


AnyMask = Annotated[Optional[Mask], BeforeValidator(_named)]


NOT_BOTH_COLOURS: Dict[str, Any] = {
    "not": {
        "required": ["color", "temperature"],
        "properties": {"color": {"type": "string"}, "temperature": {"type": "number"}},
    }
}


def _none(*names: str) -> Dict[str, Any]:
    return {name: {"type": "null"} for name in names}


SHORTHAND: Dict[str, Any] = {
    "required": ["x", "y", "z"],
    "properties": {
        "x": {"type": "number"},
        "y": {"type": "number"},
        "z": {"type": "number"},
        **_none("lights", "preset"),
    },
    "not": {"properties": {"x": {"const": 0}, "y": {"const": 0}, "z": {"const": 0}}},
}
LIT_AROUND: Dict[str, Any] = {
    "required": ["environment"],
    "properties": {"environment": {"type": "object"}, **_none("x", "y", "z", "lights", "preset")},
}
RIG: Dict[str, Any] = {
    "required": ["lights"],
    "properties": {"lights": {"type": "array"}, **_none("x", "y", "z", "preset")},
}
NAMED: Dict[str, Any] = {
    "required": ["preset"],
    "properties": {"preset": {"type": "string"}, **_none("x", "y", "z", "lights")},
}
NOT_DARK: Dict[str, Any] = {
    "not": {
        "required": ["lights"],
        "properties": {"lights": {"type": "array", "maxItems": 0}, "environment": {"type": "null"}},
    }
}
# In allOf: generators of clients take a bare oneOf for a union of types
ONE_WAY: Dict[str, Any] = {"allOf": [{"oneOf": [SHORTHAND, RIG, NAMED, LIT_AROUND]}, NOT_DARK]}


class BaseLight(Strict):
    model_config = ConfigDict(extra="forbid", json_schema_extra=NOT_BOTH_COLOURS)

    color: Optional[Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]] = Field(
        None,
        description="sRGB #rrggbb, scaled to luminance 1; not #000000, and not together with temperature",
        examples=["#ffd9b0"],
    )
    temperature: Optional[Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1000, le=40000)]] = Field(
        None, description="kelvin, 6500 is neutral; not together with color", examples=[3200]
    )
    intensity: float = _number(KEY.intensity, 0, 100, "factor in linear light")
    shadow: Annotated[bool, Field(strict=True)] = Field(KEY.shadow, description="does it cast a shadow?")
    mask: AnyMask = _mask("where this light reaches; everywhere by default")

    @model_validator(mode="after")
    def _one_colour(self) -> "BaseLight":
        if self.color is not None and self.temperature is not None:
            raise _invalid_light("color and temperature exclude each other: send one of them")
        if self.color is not None and int(self.color[1:], 16) == 0:
            raise _invalid_light("color #000000 gives no light: use intensity 0 or leave the light out")
        return self

    def _common(self) -> Dict[str, Any]:
        color = (
            lights.hex_color(self.color)
            if self.color is not None
            else lights.blackbody(self.temperature)
            if self.temperature is not None
            else lights.WHITE
        )
        mask = self.mask.to_mask() if self.mask is not None else None
        return {"color": color, "intensity": self.intensity, "shadow": self.shadow, "mask": mask}


class DirectionalLight(BaseLight):
    type: Literal["directional"]
    direction: Direction = Field(
        description="toward the light: +x right, +y up, +z toward the viewer; not all 0", examples=[[-0.6, 0.4, 0.7]]
    )
    angle: float = _number(KEY.angle, 0, 90, "degrees; angular diameter of the source (the sun: 0.53)")

    @field_validator("direction")
    @classmethod
    def _not_zero(cls, value: Direction) -> Direction:
        if not any(value):
            raise _invalid_light("the three numbers must not all be 0")
        return value

    def to_light(self) -> Light:
        """As the engine takes it."""
        return Light(kind="directional", direction=lights.unit(self.direction), angle=self.angle, **self._common())


class Lamp(BaseLight):
    position: Position = Field(
        description="x -1..1 from left edge to right, y up, z 0 the median surface", examples=[[0.5, 0.3, 0.8]]
    )
    radius: float = _number(KEY.radius, 0, 10, "size of the lamp, half picture widths")
    range: Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=100)] = Field(
        KEY.range, description="falloff 1 / (1 + (d/range)^2)"
    )


class PointLight(Lamp):
    type: Literal["point"]

    def to_light(self) -> Light:
        """As the engine takes it."""
        return Light(kind="point", position=self.position, radius=self.radius, range=self.range, **self._common())


class SpotLight(Lamp):
    type: Literal["spot"]
    target: Position = Field(description="the point it shines at; not its own position", examples=[[0, 0, 0]])
    cone: float = _number(KEY.cone, 1, 179, "degrees; full opening angle")
    blend: float = _number(KEY.blend, 0, 1, "outer share of the half angle over which it fades")

    @model_validator(mode="after")
    def _has_direction(self) -> "SpotLight":
        if self.position == self.target:
            raise _invalid_light("position and target must differ")
        return self

    def to_light(self) -> Light:
        """As the engine takes it."""
        return Light(
            kind="spot",
            position=self.position,
            target=self.target,
            cone=self.cone,
            blend=self.blend,
            radius=self.radius,
            range=self.range,
            **self._common(),
        )


AnyLight = Annotated[Union[DirectionalLight, PointLight, SpotLight], Field(discriminator="type")]


class Shadow(Strict):
    strength: float = _number(DEFAULT.shadow_strength, 0, 1, "how dark shadows are")


class Specular(Strict):
    strength: float = _number(DEFAULT.specular_strength, 0, 1, "how much light is mirrored")
    roughness: float = _number(DEFAULT.roughness, 0.05, 1, "GGX roughness")


class BaseEnvironment(Strict):
    intensity: float = _number(1.0, 0, 100, "factor in linear light")
    rotation: float = _number(0.0, -360, 360, "degrees about the vertical, counter-clockwise seen from above")

    def _made(self, **of: str) -> Environment:
        return Environment(intensity=self.intensity, rotation=self.rotation, **of)


class PresetEnvironment(BaseEnvironment):
    type: Literal["preset"]
    name: str = Field(description="one of those that GET /models lists", json_schema_extra={"enum": list(skies.SKIES)})

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in skies.SKIES:
            raise _invalid_light(f"there is none of that name; there are {', '.join(skies.SKIES)}")
        return value

    def to_environment(self) -> Environment:
        """As the engine takes it."""
        return self._made(texels=skies.TEXELS[self.name])


class UploadEnvironment(BaseEnvironment):
    type: Literal["upload"]

    def to_environment(self) -> Environment:
        """As the engine takes it."""
        return self._made(of=lights.UPLOADED)


class PhotoEnvironment(BaseEnvironment):
    type: Literal["photo"]
    job_id: str = Field(description="a job of yours: the light that its photo was taken in")

    def to_environment(self) -> Environment:
        """As the engine takes it. Raises JobNotFound."""
        return self._made(of=parse_id(self.job_id))


AnyEnvironment = Annotated[Union[PresetEnvironment, UploadEnvironment, PhotoEnvironment], Field(discriminator="type")]


class Look(Strict):
    """Which lights, how much of what.

    Give x, y, z (one white distant light), or lights, or a preset; or an environment, or both.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=ONE_WAY)

    x: Optional[Number] = Field(None, description="toward the light, + right")
    y: Optional[Number] = Field(None, description="toward the light, + up")
    z: Optional[Number] = Field(None, description="toward the light, + toward the viewer")
    lights: Optional[List[AnyLight]] = Field(
        None, max_length=MAX_LIGHTS, description="at least one, unless there is an environment"
    )
    preset: Optional[str] = Field(
        None,
        description="lights by name, with the ambient light and so on that belong to them, as GET /models lists them; "
        "what else the body says goes before that",
        json_schema_extra={"anyOf": [{"type": "string", "enum": list(PRESETS)}, {"type": "null"}]},
    )
    environment: Optional[AnyEnvironment] = Field(
        None,
        description="light from all around: a built-in one, the job's own (PUT /job/{job_id}/environment), or "
        "the light that another of your photos was taken in",
        examples=[{"type": "preset", "name": "sky-overcast", "rotation": 30}],
    )
    ambient: float = _number(
        DEFAULT.ambient, 0, 10, "the light that comes from everywhere; with an environment, 0 by default"
    )
    strength: float = _number(
        DEFAULT.strength, 0, 1, "blend from the input (0) to the relit picture (1), in linear light"
    )
    delight: float = _number(DEFAULT.delight, 0, 1, "how much of the photo's own shading is divided out first")
    shadow: Shadow = Field(default_factory=Shadow)
    specular: Specular = Field(default_factory=Specular)
    mask: AnyMask = _mask("where the photo is relit; everywhere by default")
    exposure: Exposure = Field(
        None,
        description='stops; or "auto", as a camera does: what keeps the picture as bright as the photo was, within 2 '
        'stops. By default "auto" with x, y, z or a preset, and 0 with lights',
    )

    @model_validator(mode="after")
    def _one_way(self) -> "Look":
        short = (self.x, self.y, self.z)
        given = [v is not None for v in short]
        if (self.lights is not None) + (self.preset is not None) + any(given) > 1:
            name = "lights" if self.lights is not None else "preset"
            raise _invalid_light(f"{name}: send x, y, z, or lights, or a preset, not two of them")
        if self.preset is not None and self.preset not in PRESETS:
            raise _invalid_light(f"preset: there is none of that name; there are {', '.join(PRESETS)}")
        if self.lights == [] and self.environment is None:
            raise _invalid_light("lights: there must be at least one, unless there is an environment")
        dark = self.lights is None and self.preset is None and self.environment is None
        if (dark or any(given)) and not all(given):
            missing = ", ".join(n for n, g in zip("xyz", given) if not g)
            raise _invalid_light(f"{missing}: missing; send x, y and z, or lights, or a preset, or an environment")
        if all(given) and not any(short):
            raise _invalid_light("x, y, z: must not all be 0")
        return self

    def rig(self) -> Rig:
        """As the engine takes it. Raises JobNotFound for an environment of what cannot be a job."""
        around = self.environment
        if self.preset is not None:
            mine = (self.model_fields_set & set(Look.model_fields)) - {"preset"}
            said = {name: getattr(self, name) for name in mine if getattr(self, name) is not None}
            usual_body = {"exposure": lights.SHORTHAND_EXPOSURE, **PRESETS[self.preset].body}
            if around is not None:  # it takes the place of the preset's ambient light
                usual_body = {"exposure": DEFAULT.exposure, **PRESETS[self.preset].body, "ambient": 0.0}
            return Look(**{**usual_body, **said}).rig()
        made: Tuple[Light, ...] = tuple(light.to_light() for light in self.lights or ())
        usual = DEFAULT.exposure if self.lights or around is not None else lights.SHORTHAND_EXPOSURE
        if self.x is not None and self.y is not None and self.z is not None:
            made = (lights.key_light(self.x, self.y, self.z),)
        return Rig(
            lights=made,
            environment=around.to_environment() if around is not None else None,
            ambient=0.0 if around is not None and "ambient" not in self.model_fields_set else self.ambient,
            strength=self.strength,
            delight=self.delight,
            shadow_strength=self.shadow.strength,
            specular_strength=self.specular.strength,
            roughness=self.specular.roughness,
            exposure=usual if self.exposure is None else self.exposure,
            mask=self.mask.to_mask() if self.mask is not None else None,
        )


def sheet_looks() -> List[Tuple[str, Rig]]:
    """The looks of sheet.jpg with their titles."""
    return [(PRESETS[name].title, Look.model_validate({"preset": name}).rig()) for name in SHEET]


class RelightBody(Look):
    """Which job, which lights, how much of what.

    Give x, y, z (one white distant light), or lights, or a preset; or an environment, or both.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"job_id": "2f1f0f6e-5d3c-4c8e-9a53-0a4d5a0c7c11", "x": -0.6, "y": 0.4, "z": 0.7}],
            **ONE_WAY,
        },
    )

    job_id: str = Field(description="from POST /upload")


class PreviewBody(RelightBody):
    """The body of /relight, and how large and how fine."""

    max_side: Integer = Field(
        1024, strict=True, ge=64, le=4096, description="pixels; the longer side of the answer, never enlarged"
    )
    quality: Integer = Field(85, strict=True, ge=1, le=100, description="JPEG quality")
    stream: Optional[Annotated[str, Field(max_length=64)]] = Field(
        None, description="of the previews of one job and one stream that wait, only the newest is computed"
    )

    def options(self) -> PreviewOptions:
        """How the renderer takes it."""
        return PreviewOptions(max_side=self.max_side, quality=self.quality, stream=self.stream)


ONE_MOTION: Dict[str, Any] = {
    "allOf": [
        {
            "oneOf": [
                {"required": ["keyframes"], "properties": {"keyframes": {"type": "array"}, **_none("orbit")}},
                {"required": ["orbit"], "properties": {"orbit": {"type": "object"}, **_none("keyframes")}},
            ]
        },
        {
            "if": {"required": ["format"], "properties": {"format": {"const": "gif"}}},
            "then": {"properties": {"max_side": {"maximum": SIDES["gif"]}}},
        },
    ]
}
TURNS = {"anyOf": [{"minimum": 0.25, "maximum": 4}, {"minimum": -4, "maximum": -0.25}]}


class OrbitBody(Strict):
    """A white light that goes round the viewer's axis, from the top."""

    turns: float = _number(Orbit().turns, -4, 4, "how often, at least a quarter; + clockwise", json_schema_extra=TURNS)
    elevation: float = _number(Orbit().elevation, -80, 80, "degrees toward the viewer from the picture's plane")

    @field_validator("turns")
    @classmethod
    def _some(cls, value: float) -> float:
        if abs(value) < 0.25:
            raise _invalid_light("at least a quarter, 0.25 or -0.25")
        return value


class AnimateBody(Strict):
    """Which job, how its light moves, and what the file is to be. Give key frames or an orbit."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"job_id": "2f1f0f6e-5d3c-4c8e-9a53-0a4d5a0c7c11", "orbit": {"turns": 1, "elevation": 35}},
            ],
            **ONE_MOTION,
        },
    )

    job_id: str = Field(description="from POST /upload")
    keyframes: Optional[List[Look]] = Field(
        None,
        min_length=2,
        max_length=16,
        description="bodies of /relight without job_id, evenly apart in time, with the same number and types of lights",
    )
    orbit: Optional[OrbitBody] = Field(None, description="instead: one light round the viewer's axis")
    frames: Integer = Field(MotionOrder.frames, strict=True, ge=2, le=120)
    fps: Integer = Field(MotionOrder.fps, strict=True, ge=1, le=30, description="frames a second")
    loop: Annotated[bool, Field(strict=True)] = Field(
        MotionOrder.loop,
        description="goes on for ever: key frames lead from the last to the first again, and no frame is twice",
    )
    max_side: Optional[Annotated[int, Field(strict=True, ge=64, le=1280), BeforeValidator(_whole)]] = Field(
        None,
        description=f"pixels; the longer side, never enlarged; by default {MotionOrder.max_side}, of a GIF "
        f"{SIDES['gif']}, which is its largest",
    )
    format: Literal["webp", "gif", "mp4"] = Field("webp", description="GET /models lists those of this server")

    @model_validator(mode="after")
    def _one_motion(self) -> "AnimateBody":
        if (self.keyframes is None) == (self.orbit is None):
            raise PydanticCustomError("motion", "keyframes: send either key frames or an orbit")
        if self.format == "gif" and (self.max_side or 0) > SIDES["gif"]:
            raise PydanticCustomError("motion", f"max_side: at most {SIDES['gif']} for a GIF")
        return self

    def order(self) -> MotionOrder:
        """How the renderer takes it. Raises InvalidLight, and JobNotFound as Look does."""
        way: Any = ()
        if self.orbit is not None:
            way = Orbit(self.orbit.turns, self.orbit.elevation)
        elif self.keyframes is not None:
            way = tuple(look.rig() for look in self.keyframes)
            first, *others = [[light.kind for light in rig.lights] for rig in way]
            for k, kinds in enumerate(others, 1):
                if kinds != first:
                    raise InvalidLight(
                        f"keyframes.{k}.lights: the same number and types as in the first: {', '.join(first) or 'none'}"
                    )
        side = SIDES[self.format] if self.max_side is None else self.max_side
        return MotionOrder(way, self.format, self.frames, self.fps, self.loop, side)


def contract() -> bytes:
    """What relight.js must know of the server, before the maps of any photo: a length (uint32, least byte first), then
    JSON as a zlib stream.

    The defaults, the presets, the environments, the JSON Schema of a body, and the colours of black bodies, evenly
    spaced in mired.
    """
    mired = np.linspace(1e6 / 1000, 1e6 / 40000, TEMPERATURES)
    told = {
        "defaults": defaults(),
        "presets": {name: preset.body for name, preset in PRESETS.items()},
        "environments": {"rows": skies.ROWS, "texels": skies.TEXELS},
        "body": RelightBody.model_json_schema(),
        "temperatures": {
            "from": float(mired[0]),
            "to": float(mired[-1]),
            "colors": [[round(c, 5) for c in lights.blackbody(1e6 / m)] for m in mired],
        },
    }
    text = zlib.compress(json.dumps(told, separators=(",", ":")).encode(), 9)
    return struct.pack("<I", len(text)) + text


class UploadAnswer(BaseModel):
    job_id: str
    job_dir: str
    status: str
    width: int
    height: int


class RelightAnswer(BaseModel):
    status: Literal["ok"]
    job_id: str
    relit_path: str
    width: int
    height: int
    timings: Dict[str, float] = Field(description="seconds by stage")


class AnimateAnswer(BaseModel):
    status: Literal["rendering"]
    motion_path: str


class DeleteAnswer(BaseModel):
    status: Literal["deleted"]


class Size(BaseModel):
    width: int
    height: int


class MotionState(BaseModel):
    state: Literal["rendering", "ready", "failed"]
    progress: float = Field(ge=0, le=1)
    error: Optional[Dict[str, Any]] = None


class MaskAnswer(Size):
    name: str


class JobState(BaseModel):
    job_id: str
    job_dir: str
    state: Literal["queued", "analysing", "ready", "failed"]
    progress: float = Field(ge=0, le=1)
    stage: str
    width: int
    height: int
    alpha: bool
    focal: Optional[float] = Field(None, description="focal length in picture widths, from EXIF")
    models: List[str]
    timings: Dict[str, float] = Field(description="seconds by stage")
    depth_range: Optional[List[float]] = Field(None, description="inverse depth at 0 and at 65535 of depth.png")
    shading_factor: Optional[float] = Field(
        None, description="linear photo = albedo.png * shading.png * this; null for jobs of older versions, until asked"
    )
    environment: Optional[Size] = Field(None, description="of the light from all around that it was given")
    motion: Optional[MotionState] = Field(None, description="the last that was asked for by POST /animate")
    masks: List[str] = Field(description="the names of the masks that it was given")
    files: List[str]
    created: str
    expires: str = Field(description="when it is deleted if it is not used again")
    error: Optional[Dict[str, Any]] = None


class Problem(BaseModel):
    """RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str


def defaults() -> Dict[str, Any]:
    """The defaults of /relight, for /models and the page."""
    return {
        "ambient": DEFAULT.ambient,
        "strength": DEFAULT.strength,
        "delight": DEFAULT.delight,
        "exposure": DEFAULT.exposure,
        "exposure_shorthand": lights.SHORTHAND_EXPOSURE,
        "shadow": {"strength": DEFAULT.shadow_strength},
        "specular": {"strength": DEFAULT.specular_strength, "roughness": DEFAULT.roughness},
        "angle": KEY.angle,
        "radius": KEY.radius,
        "range": KEY.range,
        "cone": KEY.cone,
        "blend": KEY.blend,
        "intensity": KEY.intensity,
        "max_side": 1024,
        "quality": 85,
    }
