"""The job: load, merge, push out, swap off, look, verify; once for each policy.

Every policy gets a fresh machine that goes through exactly the same steps, so what differs
between two results is the policy.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pyksm.engine import POLICIES as engine_policies
from pyksm.engine import Config, Engine, policies_of
from pyksm.errors import InputError, MachineError
from pyksm.jobs.load import RUN, Loaded, Seen, advise, count_rebuilt, load, look, verify
from pyksm.jobs.plan import Plan, make_plan
from pyksm.jobs.watch import Nobody, Watch
from pyksm.profiles import DEFAULT, effective
from pyksm.targets.memory import PAGE_SIZE, Memory

MakeEngine = Callable[[Config], Engine]

#: sizeof(struct rmap_item) on x86-64, which general_profit takes off.
RMAP_ITEM_SIZE = 64

#: Counts that a scan moves unless it has changed nothing.
_MOVING = (
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "ksm_zero_pages",
    "stable_node_chains",
    "stable_node_dups",
)

#: Scans after which merging is taken as settled even if the counts still move.
MAX_SCANS = 32

#: Swapoff mm by mm, as Linux has had it since 5.1, and the two of those that go entry by entry.
PER_MM = "per-mm"
POLICIES = (PER_MM, *engine_policies)

#: Frames beyond one a page: swapoff with the memcpy policy holds a page and its copy at a time.
_SPARE_FRAMES = 64

#: Slots beyond one a frame: the area's header, and room for the allocator's clusters.
_SPARE_SLOTS = 2

#: Counters of swapoff that go into the report under their own name.
CALLS = (
    "try_to_unuse",
    "unuse_mm",
    "unuse_vma",
    "unuse_pte_range",
    "unuse_pte",
    "unuse_pte_compared",
    "find_next_to_unuse_slots",
    "page_address_in_vma",
    "ksm_might_need_to_copy",
    "swap_readpage",
    "swap_writepage",
    "unuse_copy",
    "copy_page",
)


@dataclass(frozen=True)
class Options:
    """What the user may choose. ``frames``: free at swapoff, None for as many as it may need.

    ``policies``: of :data:`POLICIES`, None for all that the profile's kernel can have: where its
    swapoff goes mm by mm that, and the two that go entry by entry on the same kernel otherwise.
    ``scans``: full scans of ksmd, None for as many as change something. ``ksm``: files of
    /sys/kernel/mm/ksm written before anything is advised.
    """

    policies: Sequence[str] | None = None
    advised_only: bool = False
    frames: int | None = None
    profile: str = DEFAULT
    scans: int | None = None
    ksm: Mapping[str, int] = field(default_factory=dict)

    def chosen(self) -> tuple[str, ...]:
        """The policies to run; InputError for one that there is not."""
        having = effective(self.profile)
        known = POLICIES if "swapoff-per-mm" in having else policies_of(having)
        for policy in self.policies or ():
            if policy not in known:
                raise InputError(
                    f"policy {policy} on profile {self.profile}: expected {' or '.join(known)}"
                )
        return known if self.policies is None else tuple(self.policies)


@dataclass
class ProcessResult:
    """One process after merging. ``ksm_ptes`` are mapped to KSM pages; profit in bytes."""

    pid: int
    name: str
    ptes: int
    zero_ptes: int
    mergeable_ptes: int
    ksm_ptes: int
    profit: int
    ksm_zero_ptes: int = 0  #: merged with the zero page (use_zero_pages)


@dataclass
class Merged:
    """Where KSM has settled. ``settled`` is False where the counts still moved at the last scan."""

    pages_shared: int
    pages_sharing: int
    pages_unshared: int
    pages_volatile: int
    rmap_items: int
    full_scans: int
    settled: bool
    bytes_saved: int  #: pages_sharing pages, as the kernel counts it
    general_profit: int  #: the same less the rmap_items, bytes
    frames_before: int  #: in use before and after merging
    frames_after: int
    #: Every file of /sys/kernel/mm/ksm that is a count, as the profile's kernel has them.
    counts: dict[str, int] = field(default_factory=dict)
    processes: list[ProcessResult] = field(default_factory=list)


@dataclass
class PolicyResult:
    """One swapoff."""

    policy: str
    errno: str | None  #: None: all slots are free and the area is off
    processes: int
    ptes: int  #: in swap when swapoff began
    slots: int  #: in use when swapoff began
    pages_shared: int
    pages_sharing: int
    bytes_saved: int
    page_reads: int
    page_rereads: int  #: reads beyond one a slot
    page_writes: int
    copies: int
    ptes_visited: int
    frames_free: int  #: when swapoff began
    frames_peak: int  #: most frames in use during swapoff
    shared_frames_after: int  #: mapped by two or more ptes
    shared_ptes_after: int
    ksm_frames_after: int
    swapped_ptes_after: int
    pages_verified: int
    pages_different: int
    pages_unread: int
    unchanged: bool  #: every byte of every page is as it was loaded
    seconds: dict[str, float]  #: by phase; only "swapoff" is the policy's own
    calls: dict[str, int]  #: counters during swapoff
    events: dict[str, int]  #: what a kernel would have warned about, and how often


@dataclass
class Sharing:
    """Frames that were really shared through fork, and how many ptes have that again."""

    frames: int
    ptes: int
    ptes_rebuilt: int


@dataclass
class Result:
    """Everything that a report says. ``policies`` is empty after an estimate."""

    merged: Merged
    sharing: Sharing
    machine_frames: int
    profile: str
    policies: list[PolicyResult] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Whether every swapoff ended well and changed nothing."""
        return all(p.errno is None and p.unchanged for p in self.policies)


def estimate(
    memory: Memory, make: MakeEngine, options: Options, watch: Watch | None = None
) -> Result:
    """Load and merge, no more. InputError where there is no page to load."""
    job = _Job(memory, make, options, watch or Nobody())
    machine = job.machine(options.chosen()[0])
    try:
        return job.prepare(machine, "")
    finally:
        machine.close()


def swapoff(
    memory: Memory, make: MakeEngine, options: Options, watch: Watch | None = None
) -> Result:
    """The whole job. InputError where there is no page to load; a failed swapoff is a result."""
    job = _Job(memory, make, options, watch or Nobody())
    result: Result | None = None
    for policy in options.chosen():
        machine = job.machine(policy)
        try:
            prepared = job.prepare(machine, f"{policy}: ")
            result = result or prepared
            result.policies.append(job.swap_off(policy, prepared.merged))
        finally:
            machine.close()
    if result is None:
        raise InputError("no policy; expected reread, memcpy or both")
    return result


class _Job:
    def __init__(self, memory: Memory, make: MakeEngine, options: Options, watch: Watch) -> None:
        if not memory.ptes:
            raise InputError("no private anonymous page in these targets; expected at least one")
        self.memory = memory
        self.make = make
        self.options = options
        self.watch = watch
        watch.begin("plan")
        self.plan: Plan = make_plan(memory)
        # A page each for every pte, should nothing be shared after swapoff; and what loading
        # holds for a moment.
        needed = max(self.plan.writes, memory.ptes) + _SPARE_FRAMES
        self.frames = max(needed, options.frames or 0)
        self.seconds: dict[str, float] = {}
        self.loaded: Loaded

    def machine(self, policy: str) -> Engine:
        options = self.options
        per_entry = policy in engine_policies
        config = Config(
            frames=self.frames,
            policy=policy if per_entry else "reread",
            profile=options.profile,
            off=frozenset({"swapoff-per-mm"} if per_entry else ()),
        )
        engine = self.make(config)
        try:
            for key, value in options.ksm.items():
                _ksm_write(engine, key, value)
        except BaseException:
            engine.close()
            raise
        return engine

    def _phase(self, prefix: str, name: str) -> _Clock:
        self.watch.begin(prefix + name)
        return _Clock(self.seconds, name)

    def prepare(self, engine: Engine, prefix: str) -> Result:
        """Load and merge."""
        self.prefix = prefix
        self.seconds = {}
        with self._phase(prefix, "load"):
            self.loaded = load(engine, self.memory, self.plan, self.watch.advance)
            rebuilt = count_rebuilt(self.loaded)
        before = self.frames - engine.free_frames()
        with self._phase(prefix, "merge"):
            advise(self.loaded, everything=not self.options.advised_only)
            settled = _scan(engine, self.watch, self.options.scans)
        merged = self._merged(engine, before, settled)
        sharing = Sharing(self.plan.shared_frames, self.plan.shared_ptes, rebuilt)
        return Result(merged, sharing, self.frames, self.options.profile)

    def _merged(self, engine: Engine, before: int, settled: bool) -> Merged:
        counts = engine.ksm_counts()
        sharing = counts["pages_sharing"]
        unshared, volatile = counts["pages_unshared"], counts["pages_volatile"]
        # The kernel's own identity: pages_volatile is what is left of the rmap_items.
        items = counts["pages_shared"] + sharing + unshared + volatile
        return Merged(
            pages_shared=counts["pages_shared"],
            pages_sharing=sharing,
            pages_unshared=unshared,
            pages_volatile=volatile,
            rmap_items=items,
            full_scans=counts["full_scans"],
            settled=settled,
            bytes_saved=sharing * PAGE_SIZE,
            general_profit=counts.get(
                "general_profit", sharing * PAGE_SIZE - items * RMAP_ITEM_SIZE
            ),
            frames_before=before,
            frames_after=self.frames - engine.free_frames(),
            counts=dict(counts),
            processes=self._processes(),
        )

    def _processes(self) -> list[ProcessResult]:
        results = []
        engine = self.loaded.engine
        for (process, pid), seen in zip(self.loaded.each(), look(self.loaded), strict=True):
            vmas = [v for v in process.vmas if v.mergeable or not self.options.advised_only]
            edges = [(v.start // PAGE_SIZE, v.end // PAGE_SIZE) for v in vmas]
            cuts = np.searchsorted(process.vpn, np.array(edges, dtype=np.uint64).reshape(-1, 2))
            mergeable = int((cuts[:, 1] - cuts[:, 0]).sum())
            ksm, zero = int(np.count_nonzero(seen.ksm)), int(np.count_nonzero(seen.zero))
            results.append(
                ProcessResult(
                    pid=process.pid,
                    name=process.name,
                    ptes=len(process.vpn),
                    zero_ptes=len(process.zero_vpn),
                    mergeable_ptes=mergeable,
                    ksm_ptes=ksm,
                    profit=engine.ksm_stat(pid).get(
                        "ksm_process_profit", ksm * PAGE_SIZE - mergeable * RMAP_ITEM_SIZE
                    ),
                    ksm_zero_ptes=zero,
                )
            )
        return results

    # ------------------------------------------------------------------------------ swapoff

    def swap_off(self, policy: str, merged: Merged) -> PolicyResult:
        engine = self.loaded.engine
        with self._phase(self.prefix, "swapout"):
            area = engine.swapon(self.frames - engine.free_frames() + _SPARE_SLOTS)
            engine.swapout()
        slots = _used(engine, area)
        ptes = sum(int(np.count_nonzero(s.pfn < 0)) for s in look(self.loaded))
        filler, filled = self._fill_up(engine)
        free = engine.free_frames()
        engine.events()
        engine.peak_frames(reset=True)
        before = dict(engine.counters())
        with self._phase(self.prefix, "swapoff"):
            code = _swapoff(engine, area, slots, self.watch)
        calls = _difference(before, engine.counters())
        peak = engine.peak_frames() - filled
        events = engine.events()
        after = look(self.loaded)
        if filled:
            engine.exit(filler)
        with self._phase(self.prefix, "verify"):
            verified = verify(self.loaded, self.watch.advance)
        shared = _shared(after)
        reads = calls["swap_readpage"]
        return PolicyResult(
            policy=policy,
            errno=code,
            processes=len(self.memory.processes),
            ptes=ptes,
            slots=slots,
            pages_shared=merged.pages_shared,
            pages_sharing=merged.pages_sharing,
            bytes_saved=merged.bytes_saved,
            page_reads=reads,
            # Slots that were never read (found in the swap cache) make no re-read negative.
            page_rereads=max(0, reads - slots),
            page_writes=calls["swap_writepage"],
            copies=calls["copy_page"],
            ptes_visited=calls["unuse_pte_compared"],
            frames_free=free,
            frames_peak=peak,
            shared_frames_after=shared[0],
            shared_ptes_after=shared[1],
            ksm_frames_after=shared[2],
            swapped_ptes_after=sum(int(np.count_nonzero(s.pfn < 0)) for s in after),
            pages_verified=verified.same,
            pages_different=verified.different,
            pages_unread=verified.unread,
            unchanged=not verified.different and not verified.unread,
            seconds={name: round(value, 6) for name, value in self.seconds.items()},
            calls={name: calls[name] for name in CALLS},
            events={event: events.count(event) for event in sorted(set(events))},
        )

    def _fill_up(self, engine: Engine) -> tuple[int, int]:
        """Leave only as many frames free as the user's box has: a process that takes the rest.

        Its machine pid and how many frames it takes; 0 frames where there is no need for it.
        Loading and merging need more than that, as the box needed more before it swapped.
        """
        wanted = self.options.frames
        surplus = engine.free_frames() - wanted if wanted is not None else 0
        if surplus <= 0:
            return -1, 0
        pid = engine.spawn()
        start = engine.mmap(pid, surplus)
        for first in range(0, surplus, RUN):
            count = min(RUN, surplus - first)
            engine.touch(pid, start + first * PAGE_SIZE, count, write=True)
        return pid, surplus


class _Clock:
    """Adds the wall time of a ``with`` block, in seconds, under a name."""

    def __init__(self, seconds: dict[str, float], name: str) -> None:
        self.seconds = seconds
        self.name = name

    def __enter__(self) -> None:
        self.begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = time.perf_counter() - self.begin


def _ksm_write(engine: Engine, key: str, value: int) -> None:
    try:
        engine.ksm_write(key, value)
    except MachineError as exc:
        code = errno.errorcode.get(exc.errno or 0, str(exc.errno))
        raise InputError(
            f"ksm {key}={value}: {code} on profile {engine.config.profile}; expected a file of its "
            "/sys/kernel/mm/ksm and a value that it takes"
        ) from None


def _scan(engine: Engine, watch: Watch, scans: int | None) -> bool:
    """So many full scans, or until one changes no count; whether the last changed none.

    At least three without a number: checksum, unstable tree, stable tree.
    """
    last: dict[str, int] = {}
    settled = False
    for scan in range(MAX_SCANS if scans is None else scans):
        if not engine.ksm_scan(1):
            return True  # nothing is advised
        counts = {k: v for k, v in engine.ksm_counts().items() if k in _MOVING}
        settled, last = counts == last, counts
        if settled and scans is None and scan >= 2:
            break
        watch.advance(scan + 1, MAX_SCANS if scans is None else scans)
    return settled


def _used(engine: Engine, area: int) -> int:
    return sum(info.used for info in engine.areas() if info.type == area)


def _swapoff(engine: Engine, area: int, slots: int, watch: Watch) -> str | None:
    """The errno's name of a failure."""
    if watch.live:
        engine.set_hook(_Hook(engine, area, slots, watch))
    try:
        engine.swapoff(area)
    except MachineError as exc:
        return errno.errorcode.get(exc.errno or 0, str(exc.errno))
    finally:
        engine.set_hook(None)
    return None


class _Hook:
    """Progress from inside swapoff, ten times a second; and Ctrl-C, as the kernel takes it."""

    def __init__(self, engine: Engine, area: int, slots: int, watch: Watch) -> None:
        self.engine = engine
        self.area = area
        self.slots = slots
        self.watch = watch
        self.next = 0.0

    def __call__(self, point: str) -> None:
        try:
            now = time.monotonic()
            if point == "try_to_unuse:next_entry" and now >= self.next:
                self.next = now + 0.1
                left = _used(self.engine, self.area)
                self.watch.advance(self.slots - left, self.slots)
        except KeyboardInterrupt:
            self.engine.inject("signal", 1)
            raise


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: after[name] - before.get(name, 0) for name in after}


def _shared(seen: Sequence[Seen]) -> tuple[int, int, int]:
    """Frames with two or more ptes, those ptes of ours, frames that are KSM pages."""
    pfn = np.concatenate([s.pfn for s in seen])
    mapcount = np.concatenate([s.mapcount for s in seen])
    ksm = np.concatenate([s.ksm for s in seen])
    many = (pfn > 0) & (mapcount > 1)
    return len(np.unique(pfn[many])), int(np.count_nonzero(many)), len(np.unique(pfn[ksm]))
