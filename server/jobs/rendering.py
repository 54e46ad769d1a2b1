"""Relit pictures of jobs: waiting for the analysis, prepared maps in memory, full pictures and previews."""

import asyncio
import logging
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, Callable, Dict, Optional, Tuple

import numpy as np

from ..errors import (
    DamagedFile,
    FileNotFound,
    MaskNotFound,
    ModelMissing,
    Overloaded,
    RelightError,
    StorageFull,
    StoreAway,
    Superseded,
    TakenOver,
)
from ..image.encode import encode_jpeg, encode_png
from ..image.resample import fit_within, shrink_image
from ..light.environment import pack
from ..light.lights import BUILT_IN, UPLOADED, Light, Mask, Rig, Vector
from ..light.maps import GridMaps, Maps, prepare_grid, prepare_picture, prepare_samples
from ..light.masks import GRIDS, built_in, feathered, in_picture, masked, scaled, told_by
from ..light.passes import (
    albedo_pass,
    deep_pass,
    shading_factor,
    shading_pass,
    surface_pass,
)
from ..light.shading import relight
from ..light.transfer import colour_of_light, own_light, seen_in
from ..memory import give_back
from ..metrics import StageTimer
from ..scene.geometry import Geometry, unpack
from ..scene.passes import depth_pass, normals_pass
from ..scene.subject import subject_pass
from . import glb, live, look, masks, surroundings
from .analysis import Analyst, IsDisconnected
from .base import LIT, JobFile, JobStore
from .cache import Cache
from .photos import Photos
from .pool import Pool
from .preview_queue import PreviewQueue, PreviewTicket
from .record import READY, Record, load_owned_record, save_record
from .sheet import SIDE, Looks, sheet
from .usage import JobsInUse, room_held

log = logging.getLogger("relight")
READS = 20  # of a mask that is being replaced
TRIES = 5  # to make a full picture with one
REPLACED = "A mask of this job is being replaced again and again. Retry after a moment."


@dataclass(frozen=True)
class PreviewOptions:
    """How large and how fine a preview is (pixels of its longer side, JPEG quality), and the stream it belongs to."""

    max_side: int
    quality: int
    stream: Optional[str] = None


@dataclass(frozen=True)
class PreparedImage:
    """A picture ready to be relit at one size."""

    maps: Maps
    alpha: Optional[np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return int(self.maps.nbytes) + (self.alpha.nbytes if self.alpha is not None else 0)


@dataclass(frozen=True)
class CachedGeometry:
    """Geometry in the cache."""

    geometry: Geometry

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        g = self.geometry
        held = [g.inverse_depth, g.normals, g.mask, g.shading, g.subject, *(g.visibility or ())]
        return sum(a.nbytes for a in held if a is not None)


@dataclass(frozen=True)
class OwnLight:
    """The light that a photo was taken in; see transfer.py."""

    radiance: np.ndarray
    colour: Vector

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.radiance.nbytes


class Renderer:
    """Makes relit pictures. Methods that are `async` run on the event loop and never block it."""

    def __init__(
        self,
        store: JobStore,
        photos: Photos,
        previews: PreviewQueue,
        analyst: Analyst,
        pool: Pool,
        cache: Cache,
        in_use: JobsInUse,
        observe: Callable[[str, float], None],
        looks: Looks,
    ):
        self.store, self.photos, self.previews, self.analyst = store, photos, previews, analyst
        self.pool, self.cache, self.in_use, self.observe, self.looks = pool, cache, in_use, observe, looks
        self._mesh_lock = threading.Lock()

    def _geometry(self, record: Record) -> Geometry:
        def make() -> CachedGeometry:
            try:
                return CachedGeometry(unpack(self.store.get(record.job_id, JobFile.GEOMETRY)))
            except (FileNotFound, DamagedFile) as exc:
                raise self.damaged(record) from exc

        cached: CachedGeometry = self.cache.get((record.job_id, "geometry"), make)
        return cached.geometry

    def _shared(self, record: Record) -> GridMaps:
        def make() -> GridMaps:
            geometry = self._geometry(record)
            if record.fit is None:
                raise self.damaged(record)
            return prepare_grid(geometry, record.fit)

        shared: GridMaps = self.cache.get((record.job_id, "grid"), make)
        return shared

    def _photo(self, record: Record) -> np.ndarray:
        try:
            return self.photos.read(record)
        except (FileNotFound, DamagedFile) as exc:
            raise self.damaged(record) from exc

    def damaged(self, record: Record) -> RelightError:
        """A ready job whose files were lost is analysed anew, once; meanwhile the client is told to come back.

        What is damaged still, right after it was made anew, is a fault of ours: analysing it again and again would not
        end. Without an engine it stays what it is: some of its passes may still be whole.
        """
        if self.analyst.engine is None:
            return ModelMissing()
        if record.healing:
            return RelightError(
                "The files of this job were damaged, and are so again after it was analysed anew. "
                "Upload the photo again."
            )
        log.error("job %s: its files are missing or damaged; analysing it again", record.job_id)
        self.cache.drop(record.job_id)
        self.store.unregister(record.fingerprint, record.job_id)  # no twin may take over what is damaged
        record.attempts = 1  # its analysis went well before
        record.healing = True
        with suppress(TakenOver):  # another process is at it
            self.analyst.adopt(record)
        return Overloaded("The files of this job were damaged; it is being analysed again. Retry after a moment.")

    def note_whole(self, record: Record) -> None:
        """Note that a job which was analysed anew could be read: should it be damaged again, it is healed again."""
        if record.healing:
            record.healing = False
            with suppress(StorageFull, StoreAway, TakenOver):  # it is lit all the same
                save_record(self.store, record)

    def _prepared(self, record: Record, max_side: int) -> PreparedImage:
        side = min(max_side, max(record.width, record.height))

        def make() -> PreparedImage:
            shared, pixels = self._shared(record), self._photo(record)
            self.note_whole(record)
            samples = prepare_samples(pixels[..., :3], shared)  # the same for all sizes
            pixels = shrink_image(pixels, side)
            alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None
            rgb = np.ascontiguousarray(pixels[..., :3])
            return PreparedImage(prepare_picture(rgb, shared, self.pool.threads_per_task(), samples), alpha)

        prepared: PreparedImage = self.cache.get((record.job_id, side), make)
        # A picture holds what it shares with other sizes: used last, that leaves the cache last, and counts till then.
        self.cache.get((record.job_id, "grid"), lambda: prepared.maps.shared)
        return prepared

    async def _ready(self, job_id: str, owner: str, is_disconnected: IsDisconnected) -> Record:
        record = await asyncio.to_thread(load_owned_record, self.store, job_id, owner)
        await asyncio.to_thread(self.store.touch, record.job_id)
        if record.state == READY:
            return record
        return await self.analyst.ready(record.job_id, is_disconnected)

    async def _resolved(self, record: Record, rig: Rig, owner: str, is_disconnected: IsDisconnected) -> Rig:
        """A rig whose environment is known: the job's own or the light of another photo, which is waited for.

        Raises EnvironmentNotFound; for another job, JobNotFound and what its analysis failed with.
        """
        around = rig.environment
        if around is None or not around.of:
            return rig
        if around.of == UPLOADED:
            radiance = await asyncio.to_thread(surroundings.radiance, self.store, record.job_id)
        else:
            source = await self._ready(around.of, owner, is_disconnected)
            theirs, ours = [await self.pool.run(self._own_light, r, admitted=True) for r in (source, record)]
            radiance = seen_in(theirs.radiance, theirs.colour, ours.colour, rig.delight)
        return replace(rig, environment=replace(around, texels=pack(radiance), of=""))

    def _own_light(self, record: Record) -> OwnLight:
        """The light that the photo of a job was taken in."""

        def make() -> OwnLight:
            shared, geometry = self._shared(record), self._geometry(record)
            return OwnLight(own_light(shared), colour_of_light(self._photo(record)[..., :3], geometry))

        found: OwnLight = self.cache.get((record.job_id, "light"), make)
        return found

    def _masked(self, record: Record, rig: Rig, maps: Maps) -> Tuple[Rig, Maps]:
        """A rig with its masks looked up, and the maps with them. Raises MaskNotFound, Overloaded."""
        if not rig.masks:
            return rig, maps
        tried: Optional[Rig] = None
        for _ in range(READS):
            resolved = masks.found(self.store, record, rig, lambda: told_by(self._geometry(record)))
            try:
                return resolved, masked(maps, resolved, partial(self._mask, record))
            except MaskNotFound:
                if resolved == tried:
                    raise
                tried = resolved  # it was replaced meanwhile, or else is the same the next time
        raise Overloaded(REPLACED)

    def _mask(self, record: Record, mask: Mask, maps: Maps) -> np.ndarray:
        """A mask as it is before it is inverted, (H, W) uint8 at the size of maps. Raises MaskNotFound."""
        which = (record.job_id, "mask", mask.version or mask.name, mask.feather)

        def whole(at: Maps) -> np.ndarray:
            if not mask.version:
                return built_in(mask.name, at, self._geometry(record), self._photo(record))
            return masks.read_version(self.store, record.job_id, mask.version)

        def soft() -> np.ndarray:
            drawn = whole(maps if mask.version else self._prepared(record, GRIDS[-1]).maps)
            return feathered(drawn, self._photo(record)[..., :3], mask.feather)

        def make() -> np.ndarray:
            if mask.feather:
                return in_picture(self.cache.get(which, soft), maps.rgb)
            return scaled(whole(maps), maps.size)

        found: np.ndarray = self.cache.get((*which, maps.size, maps.samples is None), make)
        return found

    async def mask(
        self,
        job_id: str,
        mask: Mask,
        max_side: Optional[int],
        owner: str,
        is_wanted: Callable[[str], bool],
        is_disconnected: IsDisconnected,
    ) -> Optional[bytes]:
        """The PNG of a mask, at the size of pictures of at most that side; None: of the photo.

        is_wanted is told what tells it from others, and where it says no, there is no PNG. What is built in or
        feathered waits for the analysis. Raises JobNotFound, MaskNotFound, Overloaded; what the analysis failed with,
        what `damaged` tells.
        """
        if mask.name in BUILT_IN or mask.feather > 0:
            record = await self._ready(job_id, owner, is_disconnected)
        else:
            record = await asyncio.to_thread(load_owned_record, self.store, job_id, owner)
            await asyncio.to_thread(self.store.touch, record.job_id)
        tried: Optional[Mask] = None
        for _ in range(READS):
            found = await asyncio.to_thread(self._found, record, mask)
            tag = f"{found.version or record.fingerprint} {found.name} {found.invert} {found.feather} {max_side}"
            if not is_wanted(tag):
                return None
            try:
                with self.in_use.hold(record.job_id):
                    data: bytes = await self.pool.run(self._encode_mask, record, found, max_side)
                    return data
            except MaskNotFound:
                if found == tried:
                    raise
                tried = found  # as in _masked
        raise Overloaded(REPLACED)

    def _found(self, record: Record, mask: Mask) -> Mask:
        named = masks.versions(self.store, record.job_id)
        return masks.resolved(mask, named, lambda: told_by(self._geometry(record)))

    def _encode_mask(self, record: Record, mask: Mask, max_side: Optional[int]) -> bytes:
        side = max_side or max(record.width, record.height)
        if mask.feather or not mask.version:
            pixels = self._mask(record, mask, self._prepared(record, side).maps)
            self.cache.trim()
        else:
            drawn = masks.read_version(self.store, record.job_id, mask.version)
            pixels = scaled(drawn, fit_within(drawn.shape, side))
        return encode_png(255 - pixels if mask.invert else pixels, self.pool.threads_per_task())

    def _shade(
        self, record: Record, max_side: int, rig: Rig, timer: StageTimer
    ) -> Tuple[np.ndarray, PreparedImage, Rig]:
        """(the relit picture, what it is made of, the rig with its masks looked up)."""
        prepared = self._prepared(record, max_side)
        timer.lap("maps")
        rig, maps = self._masked(record, rig, prepared.maps)
        out = relight(maps, rig, threads=self.pool.threads_per_task())
        self.cache.trim()
        return out, prepared, rig

    async def relight(
        self, job_id: str, rig: Rig, owner: str, is_disconnected: IsDisconnected
    ) -> Tuple[Record, Dict[str, float]]:
        """Make relit.png; returns when it is whole on disk. Also returns seconds by stage."""
        timer = StageTimer(self.observe)
        with self.pool.admitted(), self.in_use.hold(job_id):
            record = await self._ready(job_id, owner, is_disconnected)
            rig = await self._resolved(record, rig, owner, is_disconnected)
            timer.lap("wait")
            await self.pool.run(self._relight, record, rig, timer, admitted=True)
        return record, timer.seconds

    def _relight(self, record: Record, rig: Rig, timer: StageTimer) -> None:
        timer.lap("queue")
        for _ in range(TRIES):
            out, prepared, resolved = self._shade(record, max(record.width, record.height), rig, timer)
            out = look.with_alpha(out, prepared.alpha)
            timer.lap("shade")
            data = encode_png(out, self.pool.threads_per_task(), look.dump(resolved))
            timer.lap("encode")
            stored = self._store_relit(record, resolved, data)
            timer.lap("store")
            del out, data
            give_back()
            if stored:
                return
        raise Overloaded(REPLACED)

    def _store_relit(self, record: Record, rig: Rig, data: bytes) -> bool:
        """Put relit.png in its place. False where a mask that it was made with has gone meanwhile: passes take those.

        Raises JobNotFound, StorageFull, Overloaded.
        """
        drawn = any(mask.version for mask in rig.masks)
        with room_held(self.analyst.processes) if drawn else nullcontext():
            if drawn and not masks.are_kept(self.store, record.job_id, rig):
                return False
            self.store.put(record.job_id, JobFile.RELIT, data)
        self.store.discard(record.job_id, list(LIT))
        return True

    async def settled(
        self, job_id: str, rigs: Tuple[Rig, ...], owner: str, is_disconnected: IsDisconnected
    ) -> Tuple[Record, Tuple[Rig, ...]]:
        """A job once it is ready, and rigs whose environments are known. Raises what `relight` does."""
        record = await self._ready(job_id, owner, is_disconnected)
        return record, tuple([await self._resolved(record, rig, owner, is_disconnected) for rig in rigs])

    def prepared(
        self, record: Record, rigs: Tuple[Rig, ...], max_side: int
    ) -> Tuple[Tuple[Rig, ...], Maps, Optional[np.ndarray]]:
        """(rigs with their masks looked up, maps with all those masks, alpha) of a job's picture, ready to be relit.

        Its longer side is at most max_side. Raises MaskNotFound, what `damaged` tells.
        """
        prepared = self._prepared(record, max_side)
        asked = list(dict.fromkeys(mask for rig in rigs for mask in rig.masks))
        together = Rig(lights=tuple(Light(mask=mask) for mask in asked))
        together, maps = self._masked(record, together, prepared.maps)
        known: Dict[Optional[Mask], Optional[Mask]] = {a: light.mask for a, light in zip(asked, together.lights)}
        named = (
            replace(
                rig,
                mask=known.get(rig.mask),
                lights=tuple(replace(light, mask=known.get(light.mask)) for light in rig.lights),
            )
            for rig in rigs
        )
        return tuple(named), maps, prepared.alpha

    async def make_pass(self, record: Record, file: JobFile) -> None:
        """Make one of the passes that follow from the geometry of a job that is ready, and from its last lights.

        Raises Overloaded, StorageFull, JobNotFound, FileNotFound, MaskNotFound; what `damaged` tells.
        """
        with self.pool.admitted(), self.in_use.hold(record.job_id):
            await self.pool.run(self._make_pass, record, file, admitted=True)

    def _make_pass(self, record: Record, file: JobFile) -> None:
        threads, size = self.pool.threads_per_task(), (record.height, record.width)
        if file in LIT:
            self._make_lit_pass(record, file, threads)
            return
        if file == JobFile.GLB:
            self._make_glb(record, threads)
            return
        if file == JobFile.SHEET:
            self.store.put(record.job_id, file, sheet(self._prepared(record, SIDE).maps, self.looks, threads))
            return
        if file in (JobFile.NORMALS, JobFile.DEPTH):
            make = normals_pass if file == JobFile.NORMALS else depth_pass
            pixels = make(self._geometry(record), size, threads)
        elif file == JobFile.SUBJECT:
            photo = self._photo(record)
            alpha = photo[..., 3] if photo.shape[2] == 4 else None
            pixels = subject_pass(self._geometry(record), photo[..., :3], alpha, threads)
        else:
            maps = self._prepared(record, max(size)).maps
            if file == JobFile.SURFACE:
                pixels = surface_pass(maps, threads)
            else:
                lit = albedo_pass if file == JobFile.ALBEDO else shading_pass
                pixels = lit(maps, self._shading_factor(record, maps), threads)
            self.cache.trim()
        self.store.put(record.job_id, file, encode_png(pixels, threads))

    def _make_glb(self, record: Record, threads: int) -> None:
        with self._mesh_lock:  # one at a time: whoever waits for the same one finds it made
            if JobFile.GLB in self.store.names(record.job_id):
                return
            prepared = self._prepared(record, glb.SIDE)
            factor = self._shading_factor(record, prepared.maps)
            self.store.put(record.job_id, JobFile.GLB, glb.scene_glb(prepared.maps, factor, prepared.alpha, threads))
        self.cache.trim()

    def _make_lit_pass(self, record: Record, file: JobFile, threads: int) -> None:
        try:
            with self.store.open(record.job_id, JobFile.RELIT) as relit:
                text = look.carried(relit.read(look.HEAD))
            rig = look.parse(text)
        except (FileNotFound, DamagedFile):  # or one that an older version made
            raise FileNotFound(f"{file.value} is made with the lights of relit.png. Relight the job first.") from None
        prepared = self._prepared(record, max(record.width, record.height))
        try:
            _, maps = self._masked(record, rig, prepared.maps)  # the rig has the masks it had then
        except MaskNotFound:
            raise MaskNotFound(
                f"{file.value} is made with the masks of the last relight, one of which is gone. Relight the job first."
            ) from None
        if file == JobFile.RELIT16:
            pixels = look.with_alpha(deep_pass(maps, rig, threads), prepared.alpha)
            self.store.put(record.job_id, file, encode_png(pixels, threads, text))
        else:
            self.store.put_written(
                record.job_id, file, lambda path: look.write_exr(path, maps, prepared.alpha, rig, text)
            )
        self.cache.trim()
        give_back()

    def is_current(self, job_id: str, stream: BinaryIO) -> bool:
        """Was a pass of LIT, open and at its beginning, made with the lights of relit.png? It stays at its beginning.

        Raises FileNotFound where there is no relit.png.
        """
        with self.store.open(job_id, JobFile.RELIT) as relit:
            wanted = look.carried(relit.read(look.HEAD))
        found = look.carried(stream.read(look.HEAD))
        stream.seek(0)
        return bool(wanted) and found == wanted

    async def open_maps(self, job_id: str, max_side: int, owner: str, is_disconnected: IsDisconnected) -> BinaryIO:
        """The maps by which a browser lights a photo, open for reading; made where they are not there.

        max_side: one of MAPS. Raises Overloaded, StorageFull, JobNotFound; what the analysis failed with, and what
        `damaged` tells.
        """
        record = await self._ready(job_id, owner, is_disconnected)
        file = live.maps_file(max_side, record.width, record.height)
        stream = await asyncio.to_thread(self._open_maps, record, file)
        if stream is None:
            with self.pool.admitted(), self.in_use.hold(record.job_id):
                await self.pool.run(self._make_maps, record, file, admitted=True)
            stream = await asyncio.to_thread(self.store.open, record.job_id, file)
        return stream

    def _open_maps(self, record: Record, file: JobFile) -> Optional[BinaryIO]:
        """The maps that are there, open and at their beginning; None: there are none that a browser could read."""
        try:
            stream = self.store.open(record.job_id, file)
        except FileNotFound:
            return None
        if stream.read(len(live.MARK)) != live.MARK:
            stream.close()
            return None
        stream.seek(0)
        return stream

    def _make_maps(self, record: Record, file: JobFile) -> None:
        if live.can_be_lit(self._geometry(record)):
            data = live.pack_maps(self._photo(record), live.side_of(file), self._shared(record))
        else:
            data = live.no_maps(record.width, record.height, record.alpha)
        self.note_whole(record)
        self.store.put(record.job_id, file, data)
        self.cache.trim()

    def _shading_factor(self, record: Record, maps: Maps) -> float:
        """That of the record. A job that an older version analysed is given one."""
        if record.shading_factor is None:
            record.shading_factor = shading_factor(maps.shared.light_samples)
            with suppress(TakenOver):
                save_record(self.store, record)
        return record.shading_factor

    async def preview(
        self, job_id: str, rig: Rig, options: PreviewOptions, owner: str, is_disconnected: IsDisconnected
    ) -> Tuple[bytes, Dict[str, float]]:
        """A relit JPEG from memory, and seconds by stage. Raises Superseded when a newer one came."""
        timer = StageTimer(self.observe)
        with self.previews.enter(job_id, owner, options.stream) as ticket:
            work: asyncio.Future[Any] = asyncio.ensure_future(
                self._preview(job_id, rig, options, owner, ticket, timer, is_disconnected)
            )
            try:
                await asyncio.wait({work, ticket.replaced}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise Superseded()
                return work.result(), timer.seconds
            finally:
                work.cancel()

    async def _preview(
        self,
        job_id: str,
        rig: Rig,
        options: PreviewOptions,
        owner: str,
        ticket: PreviewTicket,
        timer: StageTimer,
        is_disconnected: IsDisconnected,
    ) -> bytes:
        with self.pool.admitted(force=ticket.inherits_place), self.in_use.hold(job_id):
            if ticket.stream:
                await asyncio.to_thread(self.previews.announce, ticket)
            record = await self._ready(job_id, owner, is_disconnected)
            rig = await self._resolved(record, rig, owner, is_disconnected)
            timer.lap("wait")
            if await is_disconnected():
                raise Superseded("The client has gone.")
            data: bytes = await self.pool.run(self._render_preview, record, rig, options, ticket, timer, admitted=True)
            return data

    def _render_preview(
        self, record: Record, rig: Rig, options: PreviewOptions, ticket: PreviewTicket, timer: StageTimer
    ) -> bytes:
        self.previews.begin(ticket)
        timer.lap("queue")
        out, _, _ = self._shade(record, options.max_side, rig, timer)
        timer.lap("shade")
        data = encode_jpeg(out, options.quality)
        timer.lap("encode")
        return data
