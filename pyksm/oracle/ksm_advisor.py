"""mm/ksm.c: the scan-time advisor (6.8, 4e5fa4f5eff6), which sets pages_to_scan after each scan.

ksmd takes no time of its own here: what a scan took is what the machine's clock moved meanwhile,
and its share of a CPU is always the least, one per cent.
"""

from __future__ import annotations

from pyksm.oracle.structs import Machine

DEFAULT_PAGES_TO_SCAN = 100
MIN_CPU = 10  #: KSM_ADVISOR_MIN_CPU, per cent
EWMA_WEIGHT = 30
CPU_PERCENT = 1

_ULONG = (1 << 64) - 1
_UINT = (1 << 32) - 1


def set_advisor_defaults(m: Machine) -> None:
    """The mode has changed."""
    advisor = m.ksm.advisor
    if not advisor.mode:
        m.ksm.pages_to_scan = DEFAULT_PAGES_TO_SCAN
        return
    advisor.start_scan = advisor.scan_time = advisor.change = 0
    m.ksm.pages_to_scan = advisor.min_pages_to_scan & _UINT


def advisor_start_scan(m: Machine) -> None:
    if m.ksm.advisor.mode:
        m.ksm.advisor.start_scan = m.clock


def advisor_stop_scan(m: Machine) -> None:
    if m.ksm.advisor.mode:
        scan_time_advisor(m)


def scan_time_advisor(m: Machine) -> None:
    """More or fewer pages a batch, so that a scan takes the time wanted; of unsigned longs."""
    advisor = m.ksm.advisor
    scan_time = max((m.clock - advisor.start_scan) // 1000, 1)
    last_scan_time = advisor.scan_time or scan_time
    factor = max((advisor.target_scan_time * 100 & _ULONG) // scan_time, 1)
    change = max(scan_time * 100 // last_scan_time, 1)
    change = ((100 - EWMA_WEIGHT) * advisor.change + EWMA_WEIGHT * change) // 100
    pages = (m.ksm.pages_to_scan * 100 & _UINT) // factor  # an unsigned int until here
    pages = (pages * change & _ULONG) // 100
    per_page_cost = max(m.ksm.pages_to_scan // CPU_PERCENT, 1)
    pages = min(pages, per_page_cost * advisor.max_cpu)
    pages = max(pages, per_page_cost * MIN_CPU)
    pages = min(pages, advisor.max_pages_to_scan)
    advisor.change, advisor.scan_time = change, scan_time
    m.ksm.pages_to_scan = pages & _UINT
