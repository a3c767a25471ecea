"""The agent's raw facts, and what an observation makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyksm.engine import PageInfo
from pyksm.recorder.link import PROTOCOL, RecorderError, Reply
from pyksm.scenario.kinds import PAGE_BYTES
from pyksm.scenario.world import Span

#: Lines of /proc/vmstat that an observation has.
VMSTAT = (
    "pswpin", "pswpout", "swpin_zero", "swpout_zero", "ksm_swpin_copy", "cow_ksm",
    "pgmigrate_success",
)  # fmt: skip
#: Counts of KSM that are given since the scenario began.
_RELATIVE = frozenset({"pages_scanned", "pages_skipped"})

_PRESENT, _SWAPPED = 1 << 63, 1 << 62
_PFN = (1 << 55) - 1
_SWAPCACHE_FLAG, _KSM_FLAG, _ZERO_FLAG = 1 << 13, 1 << 21, 1 << 24


@dataclass(frozen=True)
class Facts:
    """What the agent's hello said of its machine."""

    release: str
    areas: int
    zero_pfn: int
    ksm_flag: bool  #: KPF_KSM tells KSM pages from others (6.12 sets it on all anonymous ones)
    zones: tuple[tuple[int, int, int], ...]  #: node, first frame, frames

    def node_of(self, pfn: int) -> int:
        """The node of a frame; 0 where no zone has it."""
        return next((node for node, start, n in self.zones if start <= pfn < start + n), 0)

    @property
    def nodes(self) -> int:
        """How many nodes have memory."""
        return len({node for node, _, _ in self.zones}) or 1


def facts_of(hello: Reply) -> Facts:
    if hello.number("protocol") != PROTOCOL:
        said = " ".join(hello.words("protocol")) or "none"
        raise RecorderError(f"the agent speaks protocol {said}, expected {PROTOCOL}")
    release = " ".join(hello.words("release"))
    if not hello.number("has_ksm"):
        raise RecorderError(f"kernel {release} has no KSM, expected one with CONFIG_KSM")
    if not hello.number("has_swap"):
        raise RecorderError(f"kernel {release} has no swap, expected one with CONFIG_SWAP")
    if not hello.number("page_facts"):
        raise RecorderError(
            f"kernel {release} does not show its pages, expected one with CONFIG_PROC_PAGE_MONITOR"
        )
    zones = [line[1:] for line in hello.lines if line[0] == "zone"]
    return Facts(
        release=release,
        areas=hello.number("areas"),
        zero_pfn=hello.number("zero_pfn"),
        ksm_flag=bool(hello.number("ksm_flag")),
        zones=tuple((int(node), int(start), int(count)) for node, start, count in zones),
    )


class Observed:
    """The agent's facts of one moment, by kind."""

    def __init__(self, reply: Reply, facts: Facts) -> None:
        self.facts = facts
        self.pages: dict[tuple[int, int], list[str]] = {}
        self.mappings: dict[int, list[tuple[int, int, int | None]]] = {}
        self.ksm_stat: dict[int, dict[str, int]] = {}
        self.ksm: dict[str, int] = {}
        self.vmstat: dict[str, int] = {}
        self.used: dict[int, int] = {}
        self.says_ksm_pages = bool(reply.number("says_ksm_pages"))
        self.swapcached = reply.number("swapcached")
        for line in reply.lines:
            self._note(line)

    def _note(self, line: list[str]) -> None:
        kind, words = line[0], line[1:]
        if kind == "pages":
            self.pages[int(words[0]), int(words[1], 16)] = words[2:]
        elif kind == "mapping":
            merged = int(words[3]) if len(words) > 3 else None
            place = (int(words[1], 16), int(words[2], 16), merged)
            self.mappings.setdefault(int(words[0]), []).append(place)
        elif kind == "ksm_stat":
            self.ksm_stat.setdefault(int(words[0]), {})[words[1]] = int(words[2])
        elif kind == "swap":
            self.used[int(words[0])] = int(words[1])
        elif kind in ("ksm", "vmstat"):
            getattr(self, kind)[words[0]] = int(words[1])

    def infos(self, span: Span) -> list[PageInfo]:
        """The pages of a region."""
        mapped = [(begin, end) for begin, end, _ in self.mappings.get(span.pid, [])]
        words = self.pages[span.pid, span.addr]
        return [
            self._info(word, any(begin <= addr < end for begin, end in mapped))
            for addr, word in zip(
                range(span.addr, span.addr + span.npages * PAGE_BYTES, PAGE_BYTES),
                words,
                strict=True,
            )
        ]

    def _info(self, word: str, mapped: bool) -> PageInfo:
        parts = word.split(",")
        entry = int(parts[0], 16)
        if entry & _PRESENT:
            return self._present(entry & _PFN, int(parts[1], 16), int(parts[2]))
        state = "S" if entry & _SWAPPED else "." if mapped else "-"
        kind, offset = (entry & 31, (entry & _PFN) >> 5) if state == "S" else (-1, -1)
        return PageInfo(state, entry, -1, kind, offset, False, False, -1, -1)

    def _present(self, pfn: int, flags: int, count: int) -> PageInfo:
        zero = pfn == self.facts.zero_pfn or bool(flags & _ZERO_FLAG)
        return PageInfo(
            state="Z" if zero else "P",
            pte=0,
            pfn=pfn,
            swp_type=-1,
            swp_offset=-1,
            ksm=bool(flags & _KSM_FLAG) and not zero,
            swapcache=bool(flags & _SWAPCACHE_FLAG),
            mapcount=count,
            node=self.facts.node_of(pfn),
        )

    def ksm_pages(self, span: Span) -> int | None:
        """KSM pages that a region maps; None where the kernel's smaps does not say."""
        end = span.addr + span.npages * PAGE_BYTES
        if not self.says_ksm_pages:
            return None
        here = self.mappings.get(span.pid, [])
        return sum(merged or 0 for first, last, merged in here if span.addr <= first < last <= end)


def ksm_counts(seen: Observed, begin: Observed) -> dict[str, int]:
    return {
        key: value - begin.ksm.get(key, 0) if key in _RELATIVE else value
        for key, value in sorted(seen.ksm.items())
    }


def countable(stat: Mapping[str, int]) -> dict[str, int]:
    """Without the profit, which hangs on the sizes of the kernel's structs."""
    return {key: value for key, value in stat.items() if not key.endswith("_profit")}
