"""The museum: bugs that Linux really had, each a switch of the core that is off unless asked for.

One row a bug. The core's ``kernel_bugs.h`` is generated from this table when it is built
(``csrc/gen_bugs.py`` runs this file by itself, so it imports nothing of the package), and the
switch is at the place of the real mistake: ``bugged(m, BUG_…)``. Only the build of the core that
runs tasks (``pyksm._tasks``) has them; in the plain one they are compiled away.

``commits`` are those of the fix, ``introduced`` and ``fixed`` the releases between which kernels
had the bug, as far as is known. ``needs`` are features (:mod:`pyksm.features`) without which the
switch has nothing to break, ``lacks`` those with which it has none left. ``corrected`` says what
was wrong about the bug in the catalogue that this museum was furnished from.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("sequential", "sequential+fault", "interleaving", "interleaving+fault", "check")


@dataclass(frozen=True)
class Bug:
    """One bug. ``place``: kernel file and function; ``invariants``: what it breaks, I1 to I10."""

    name: str
    kind: str
    place: str
    commits: tuple[str, ...]
    introduced: str
    fixed: str
    invariants: tuple[str, ...]
    summary: str
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    corrected: str = ""


BUGS: tuple[Bug, ...] = (
    # ---- mm/ksm.c ----
    Bug(
        "ksm-lost-dirty-on-merge", "sequential", "mm/ksm.c: write_protect_page",
        ("4e31635c367a",), "2.6.33", "2.6.36", ("I1",),
        "a pte that is made read-only keeps its dirty bit, which the page never hears of",
        lacks=("stable-page-dirty",),
    ),
    Bug(
        "ksm-write-protect-failure-ignored", "sequential", "mm/ksm.c: try_to_merge_one_page",
        (), "4.5", "4.12", ("I6", "I4"),
        "the splitting of a huge page leaves no error behind, and that the pte then could not be "
        "made read-only goes unnoticed",
        corrected="the splitting stands for every page's here, and no failure has to be ordered, a "
        "pin will do; the hash that the catalogue has "
        "from memory could not be looked up",
    ),
    Bug(
        "ksm-mlock-merge-accounting", "sequential", "mm/ksm.c: try_to_merge_one_page",
        (), "2.6.32", "2.6.33", ("I8",),
        "a locked page that is merged away takes the lock with it: it is freed with the mark on, "
        "and the KSM page in its place has none",
        lacks=("mlock-count",),
        corrected="the fix was not traced to a commit; that a page's last mapping takes the mark "
        "off whatever else happens is of 3.7 (e6c509f85455), and undone with it",
    ),
    Bug(
        "ksm-zero-page-rss", "sequential", "mm/ksm.c: replace_page",
        (), "4.11", "4.17", ("I8",),
        "a page that goes for the zero page is still counted as one of its process's",
        needs=("zero-pages",),
        corrected="the hash that the catalogue has from memory could not be looked up",
    ),
    Bug(
        "ksm-fault-in-during-unmerge", "sequential", "mm/ksm.c: ksm_might_need_to_copy",
        ("cbf86cfe04a6",), "2.6.33", "3.9", ("I7",),
        "a KSM page that is in the swap cache is mapped as it is, whatever ksm/run says",
    ),
    Bug(
        "ksm-copy-not-uptodate", "sequential+fault", "mm/ksm.c: ksm_does_need_to_copy",
        ("cbf86cfe04a6",), "2.6.33", "3.9", ("I1",),
        "of a page that could not be read a copy is made, which passes for one that was",
        needs=("swapoff-keeps-shared-cache",),
        corrected="such a page must have been mapped by somebody and stayed in the swap cache: "
        "only 4.14 to 5.0 leave it there (swapoff-keeps-shared-cache)",
    ),
    Bug(
        "ksm-copied-page-uncharged", "sequential", "mm/ksm.c: ksm_might_need_to_copy",
        ("62fdb1632bcb",), "5.8", "5.9", ("I8",),
        "the copy that a process gets of a page of the swap cache is charged to nobody",
        needs=("swapin-charged-at-read",),
    ),
    Bug(
        "ksm-stale-nodes-on-mode-switch", "sequential", "mm/ksm.c: merge_across_nodes_store",
        ("cbf86cfe04a6",), "3.9", "3.9", ("I6", "I7"),
        "what has no items left counts as gone when merge_across_nodes changes, nodes stay in "
        "their trees",
    ),
    Bug(
        "ksm-migrate-missing-rmap-item", "sequential",
        "mm/ksm.c: remove_rmap_item_from_tree",
        ("c89a384e2551",), "3.9", "5.13", ("I4", "I8"),
        "an item that has left a stable node still looks as if it were on it",
        needs=("stable-head-cleared",),
        corrected="no failure has to be ordered: a KSM page is never replaced by another, so the "
        "merge that fails does so by itself where the other node has a page of the same content",
    ),
    Bug(
        "ksm-misplaced-node-after-migration", "sequential", "mm/ksm.c: stable_tree_search",
        ("4146d2d673e8",), "3.9", "3.9", ("I6",),
        "nobody looks whether a KSM page still is on the memory node that its tree is for",
    ),
    Bug(
        "ksm-rmap-walk-flagged-address", "sequential", "mm/ksm.c: rmap_walk_ksm",
        (), "2.6.33", "4.19", ("I4",),
        "a walk hands an item's address on with the flags in its low bits",
        corrected="no pte is missed by it: tables are looked up without those bits. What went "
        "wrong was outside, in KVM on ARM, and that warned. The hash that the catalogue has from "
        "memory could not be looked up",
    ),
    Bug(
        "ksm-rmap-walk-wrong-pgoff", "sequential", "mm/ksm.c: rmap_walk_ksm",
        (), "7.3", "7.3", ("I4",),
        "a walk looks up the vmas at the page's address, which mremap has parted from its index",
        needs=("ksm-rmap-by-index",),
        corrected="of no release: the reviewers of the patch found it",
    ),
    Bug(
        "ksm-break-cow-ignores-oom", "sequential+fault", "mm/ksm.c: break_ksm",
        (), "2.6.32", "2.6.32", ("I9",),
        "the breaking of a KSM page is tried again for ever where there is no memory for it",
        corrected="a bug of the months before 2.6.32, of no release; the hash that the catalogue "
        "has from memory could not be looked up",
    ),
    Bug(
        "ksm-ebusy-path-keeps-unstable-item", "interleaving", "mm/ksm.c: cmp_and_merge_page",
        (), "5.1", "5.1", ("I5", "I6"),
        "where the KSM page that was found is locked, the item is left in the unstable tree",
        needs=("swapoff-per-mm",), lacks=("checksum-first",),
        corrected="of no release: the patch was mended while it was in mmotm",
    ),
    Bug(
        "ksm-unmerge-vs-exit-warn", "interleaving", "mm/ksm.c: remove_stable_node",
        ("9a63236f1ad8",), "3.9", "5.4", ("I7",),
        "a stable node whose page a process that is just exiting still maps is warned of",
        needs=("stable-node-busy-quiet",),
    ),
    Bug(
        "ksm-migration-hides-page-from-unmerge", "interleaving", "mm/ksm.c: break_ksm",
        ("5117b3b835f2",), "3.9", "3.9", ("I7",),
        "a page that is on its way to another frame is taken for none, and is not unmerged",
    ),
    Bug(
        "ksm-enter-behind-unmerge-cursor", "interleaving", "mm/ksm.c: __ksm_enter",
        ("cbf86cfe04a6",), "2.6.32", "3.9", ("I7",),
        "who registers while all is being unmerged is put where the unmerging has already been",
    ),
    Bug(
        "ksm-exec-fork-flag-lost", "interleaving", "mm/ksm.c: scan_get_next_rmap_item",
        ("590c03ca6a3f",), "6.4", "6.19", ("I8",),
        "ksmd, which drops a process with nothing mergeable from its list, also forgets that all "
        "of it was to be merged",
        needs=("merge-any",),
        corrected="neither exec nor fork is needed: a process that has asked before it has any "
        "memory will do",
    ),
    Bug(
        "ksm-chain-collapse-uaf", "sequential", "mm/ksm.c: stable_tree_search",
        ("b4fecc67cc56",), "4.13", "4.13", ("I5", "I8", "I6"),
        "a chain that was dissolved on the way, and freed, is added to",
        needs=("max-page-sharing",),
    ),
    Bug(
        "ksm-scan-null-mm", "interleaving", "mm/ksm.c: scan_get_next_rmap_item",
        ("2b472611a32a",), "2.6.32", "3.0", ("I5",),
        "the list had a process when ksmd looked, and what it then takes for one is its head",
    ),
    Bug(
        "ksm-mm-freed-after-cursor-advance", "interleaving", "mm/ksm.c: scan_get_next_rmap_item",
        (), "2.6.32", "4.7", ("I5",),
        "ksmd lets go of the list before it lets go of the process's mmap_sem, which may have gone",
        corrected="the hash that the catalogue has from memory could not be looked up",
    ),
    Bug(
        "ksm-zero-page-null-vma", "interleaving", "mm/ksm.c: cmp_and_merge_page",
        ("56df70a63ed5",), "4.11", "5.7", ("I5",),
        "nobody asks whether the vma of a page of zeros is still there when it is merged",
        needs=("zero-pages",),
    ),
    Bug(
        "ksm-iterate-torn-mm", "interleaving", "mm/ksm.c: unmerge_and_remove_all_rmap_items",
        ("6db504ce55bd",), "6.1", "6.3", ("I5",),
        "the vmas of a process that has exited are looked up before it is asked whether it has",
        needs=("ksm-rmap-items",),
        corrected="the tree is empty by then, and what was seen of it is lockdep's complaint, for "
        "which an assertion stands here; the process may have exited long before",
    ),
    Bug(
        "ksm-oom-deadlock", "interleaving", "mm/ksm.c: __ksm_exit",
        ("9ba692948008",), "2.6.32", "2.6.32", ("I9",),
        "who exits waits for ksm_thread_mutex, and who has that for the memory which then is free",
        corrected="a bug of the months before 2.6.32, of no release; only the breaking of pages "
        "waits for the OOM killer's victim, other allocations fail here",
    ),
    Bug(
        "ksm-madvise-drops-high-flags", "sequential", "mm/ksm.c: ksm_madvise",
        ("f04aad36a07c",), "5.13", "6.18", ("I8",),
        "the mask that takes VM_MERGEABLE away is 32 bits wide, and takes what is above them too",
        needs=("mseal",),
        corrected="the flag above is VM_SEALED here: userfaultfd's of 5.13 is never that of "
        "anonymous memory",
    ),
    Bug(
        "ksm-copy-check-reads-freed-anon-vma", "sequential", "mm/ksm.c: ksm_might_need_to_copy",
        ("e1c63e110f97",), "2.6.33", "5.18", ("I5",),
        "the owner of a page in the swap cache is looked at before it is asked whether the page "
        "can be the one of this address; it may have gone with all its mappings",
    ),
    Bug(
        "ksm-uffd-wp-unmerge-noop", "sequential+fault", "mm/ksm.c: break_ksm",
        ("6cce3314b928",), "5.7", "6.2", ("I7",),
        "a page is unmerged by a write fault, which a userfaultfd refuses: it counts as done",
        needs=("unshare-break", "uffd-wp"),
        corrected="profile 6.1 has it without a switch, as its kernel does",
    ),
    # ---- include/linux/ksm.h ----
    Bug(
        "ksm-fork-inherits-counters", "sequential", "include/linux/ksm.h: ksm_fork",
        ("4d6fc29f3634",), "5.19", "6.18", ("I8",),
        "a child's counts begin as its parent's, and its zero pages are not counted",
        needs=("ksm-counts-start-at-zero",),
    ),
    Bug(
        "ksm-zero-pages-nonatomic", "interleaving",
        "include/linux/ksm.h: ksm_might_unmap_zero_page",
        ("c2dc78b86e08",), "6.6", "6.10", ("I8",),
        "the count of zero pages is read, and written back when somebody else has changed it",
        needs=("zero-pages-counted",),
    ),
    # ---- kernel/fork.c ----
    Bug(
        "ksm-fork-failure-registers-broken-mm", "interleaving+fault", "kernel/fork.c: dup_mmap",
        ("985da552a98e",), "6.8", "6.12", ("I5",),
        "a child is handed to ksmd before it is copied, and stays so when the copying fails",
        needs=("ksm-fork-late",),
    ),
    # ---- mm/memory.c, mm/vmscan.c ----
    Bug(
        "cow-gup-wrong-side", "sequential", "mm/memory.c: do_wp_page",
        ("17839856fd58", "09854ba94c6a"), "2.6", "5.9", ("I10",),
        "a write goes to a page that is mapped here alone, though another process has it pinned",
        needs=("reuse-by-refcount",),
        corrected="17839856fd58 (5.8) was withdrawn for 09854ba94c6a (5.9), whose rule this undoes",
    ),
    Bug(
        "cow-pinned-page-swapcache", "sequential", "mm/vmscan.c: shrink_page_list",
        ("feb889fb40fa",), "5.9", "5.11", ("I10",),
        "reclaim puts a page pinned for I/O into the swap cache and unmaps it: mapped again to "
        "read, it is copied by the next write",
        needs=("pins-counted",), lacks=("anon-exclusive",),
        corrected="a write alone, without a read before it, takes the page over where it is; since "
        "5.19 such a page's pte does not go at all",
    ),
    Bug(
        "swapoff-hang-mmlist-orphan", "interleaving", "mm/memory.c: copy_one_pte",
        ("2022b4d18a49",), "2.6.18", "3.18", ("I9", "I3"),
        "fork takes a migration entry for swap: the child goes beside its parent on swapoff's "
        "list, on which the parent is not",
    ),
    Bug(
        "rss-leak-across-migration", "interleaving", "mm/memory.c: copy_one_pte, zap_pte_range",
        ("9f9f1acd713d",), "2.6.18", "3.4", ("I8",),
        "a page under migration is counted neither where fork copies its entry nor where it is "
        "unmapped",
    ),
    Bug(
        "swapin-cache-page-removed-aba", "interleaving", "mm/memory.c: do_swap_page",
        ("4969c1192d15",), "2.6", "2.6.36", ("I1",),
        "a fault that waited for the page's lock does not ask whether it is still in the swap "
        "cache",
    ),
    Bug(
        "swapin-cache-page-moved-aba", "interleaving", "mm/memory.c: do_swap_page",
        ("31c4a3d3a0f8",), "2.6", "2.6.36", ("I1",),
        "a fault that waited for the page's lock asks whether it is in the swap cache, but not for "
        "which slot",
    ),
    Bug(
        "swapoff-vs-sync-swapin", "interleaving", "mm/memory.c: do_swap_page",
        ("2799e77529c2",), "4.15", "5.14", ("I5", "I1"),
        "a fault that reads its slot past the swap cache does not hold on to the area, which may "
        "be gone when it does",
        needs=("swap-synchronous", "swap-device-pinned"), lacks=("swapin-claims",),
    ),
    Bug(
        "swap-skip-cache-aba", "interleaving", "mm/memory.c: do_swap_page",
        ("13ddaf26be32",), "4.15", "6.8", ("I1",),
        "of two faults that read a slot past the swap cache the slower one may map what it has "
        "read long after, when pages have gone and come again",
        needs=("swap-synchronous", "swapin-claims", "swap-device-pinned"),
    ),
    # ---- mm/page_io.c ----
    Bug(
        "swap-slot-freed-while-shared", "interleaving", "mm/page_io.c: swap_slot_free_notify",
        ("5df373e95689",), "4.15", "5.4", ("I1", "I2"),
        "zram's copy goes when a page has been read into the swap cache, whoever else refers to "
        "the slot",
        needs=("swap-synchronous", "swap-device-pinned"), lacks=("swapin-claims",),
    ),
    Bug(
        "swap-clone-vm-zeroed", "interleaving", "mm/page_io.c: swap_slot_free_notify",
        ("e914d8f00391",), "4.15", "5.18", ("I1", "I2"),
        "zram's copy goes when a page has been read into the swap cache for the only pte that "
        "refers to the slot, of which two threads may be at work",
        needs=("swap-synchronous", "swap-device-pinned"), lacks=("swapin-claims",),
        corrected="a page that is read past the swap cache discards nothing: the first of the two "
        "has to read it into the swap cache",
    ),
    # ---- mm/rmap.c ----
    Bug(
        "unmap-failure-leaks-swap-count", "sequential", "mm/rmap.c: try_to_unmap_one",
        ("322842ea3c72",), "4.17", "5.19", ("I3", "I9"),
        "where unmapping fails after the slot's count was raised, the count stays raised",
        needs=("anon-exclusive", "pins-counted"),
        corrected="arch_unmap_one(), which failed then, does nothing on x86; the test for a pinned "
        "page, which came with the same series, fails at the same place without an injection",
    ),
    Bug(
        "ksm-half-page-oops", "sequential+fault", "mm/rmap.c: page_address_in_vma",
        ("4829b906cc06",), "2.6.36", "2.6.36", ("I5",),
        "the root of a page's anon_vma is asked for where a KSM page has none",
        corrected="nothing has to fail in the kernel's own work: that a page is pinned will do",
    ),
    # ---- mm/swapfile.c ----
    Bug(
        "ksm-swapoff-resurrects-ksm-page", "sequential", "mm/swapfile.c: unuse_pte",
        ("9e16b7fb1d06",), "2.6.33", "3.9", ("I7", "I4"),
        "swapoff maps the page of the swap cache as it is, a KSM page too, whatever ksm/run says",
    ),
    Bug(
        "ksm-swapoff-loop-4.19.0", "sequential", "mm/swapfile.c: try_to_unuse",
        ("e07098294adf", "7af7a8e19f0c"), "4.14", "5.0", ("I9",),
        "an entry that others need stays in the swap cache: of a KSM page it is found there again "
        "for ever",
        lacks=("swapoff-keeps-shared-cache", "swapoff-per-mm"),
    ),
    Bug(
        "swapoff-unuse-eio-garbage", "sequential+fault", "mm/swapfile.c: unuse_pte",
        ("9f186f9e5fa9",), "2.4", "5.19", ("I1",),
        "swapoff maps a page that it could not read as if it had been",
        needs=("swapoff-error-entries",),
        corrected="its content is zeros here, where a real one has whatever was in the frame",
    ),
    Bug(
        "swapoff-loses-pte-bits", "sequential", "mm/swapfile.c: unuse_pte",
        ("14a762dd1977",), "3.11", "5.19", ("I8",),
        "swapoff makes the pte from the vma's protection alone: the soft-dirty bit is lost",
        needs=("swapoff-soft-dirty",),
    ),
    Bug(
        "swapoff-signal-and-late-stop", "sequential+fault", "mm/swapfile.c: try_to_unuse",
        (), "5.1-rc1", "5.1-rc5", ("I9",),
        "a signal ends the walk over the mms and is forgotten where swapoff tries again, for ever",
        needs=("swapoff-per-mm",),
        corrected="the commit was not traced, its patch was "
        "(alpine.LSU.2.11.1904081258200.1523@eggly.anvils); the signal need not come between two "
        "mms, one that is pending from the start will do. With the limit of three tries, which the "
        "same series took away, it ended as EBUSY",
    ),
    Bug(
        "swapoff-spurious-ebusy", "interleaving", "mm/swapfile.c: try_to_unuse",
        (), "5.1-rc1", "5.1-rc5", ("I9", "I7"),
        "after three rounds swapoff gives up, though all it has to do is to wait for an exit",
        needs=("swapoff-per-mm",),
        corrected="the commit was not traced, its patch was "
        "(alpine.LSU.2.11.1904081256170.1523@eggly.anvils)",
    ),
    Bug(
        "swapoff-avail-list-readd", "interleaving", "mm/swapfile.c: swapoff",
        ("6fe7d6b99211",), "4.14", "6.3", ("I3", "I5"),
        "swapoff takes the area off the list of those with room before it has the area's lock: "
        "whoever frees a slot puts it back",
        needs=("swap-avail-plist",),
    ),
    Bug(
        "swapoff-vs-failed-fork", "interleaving+fault", "mm/swapfile.c: unuse_mm",
        ("1367da7eb875",), "6.8", "6.18", ("I5", "I9"),
        "swapoff walks the vmas of a child whose copying has failed half way, and takes what marks "
        "the end of what was copied for a vma",
        needs=("ksm-fork-late",),
        corrected="the release that maple trees are copied whole in (6.8) has no feature of its "
        "own here, 6.12 is the first profile that has it",
    ),
    Bug(
        "nr-swap-pages-race", "interleaving", "mm/swapfile.c: get_swap_pages",
        ("b50da6e9f42a",), "4.11", "5.11", ("I8",),
        "who wants slots takes them off the count of free ones before it has the lock under which "
        "it gets them: for a moment there may be less than none",
        needs=("swap-avail-plist",),
    ),
    Bug(
        "swap-continuation-race", "interleaving", "mm/swapfile.c: add_swap_count_continuation",
        (), "4.11", "4.14", ("I3",),
        "pages with higher digits of the counts of neighbouring slots are on one list, to which "
        "two may add at a time, as each has the lock of its own cluster",
        corrected="the hash that the catalogue has from memory could not be looked up; the limit "
        "is not scaled down, 62 forks do it",
    ),
    Bug(
        "swapoff-vs-free-swap", "interleaving", "mm/swapfile.c: free_swap_and_cache",
        ("82b1c07a0af6",), "4.11", "6.9", ("I5",),
        "who frees the last reference to a slot looks at its area once more after that, when "
        "swapoff may have been waiting for nothing else",
        needs=("swap-device-pinned",),
    ),
    Bug(
        "swapoff-vs-swap-readers", "interleaving", "mm/swapfile.c: __swap_duplicate",
        ("eb085574a752",), "2.6", "5.3", ("I5",),
        "who looks at a slot does not hold on to its area, whose swap_map may be freed meanwhile",
        needs=("swap-device-pinned",),
        corrected="3.10 finds and locks the area under one lock, so that there it is not open; the "
        "window came with the locks of areas and clusters",
    ),
    # ---- mm/swap_state.c ----
    Bug(
        "swap-cache-prepare-busy-wait", "interleaving", "mm/swap_state.c: read_swap_cache_async",
        ("029c4628b2eb",), "2.6.31", "5.18", ("I9",),
        "who finds a slot claimed for the swap cache tries again and again, and the one that has "
        "claimed it never gets the processor",
        corrected="mended three times, each time that something that sleeps had come between the "
        "claim and the page: in 2.6.32 and 3.10 (commits not traced), and in 5.18",
    ),
    # ---- mm/rmap.c ----
    Bug(
        "anonvma-not-oldest", "sequential", "mm/rmap.c: __page_set_anon_rmap",
        ("ea90002b0fa7",), "2.6.34-rc1", "2.6.34-rc4", ("I4", "I5"),
        "a page that comes in from swap belongs to the anon_vma of whoever touches it first, not "
        "to the oldest one, which all who share it are on",
    ),
    Bug(
        "anonvma-degree-merge", "sequential", "mm/mmap.c: vma_adjust",
        ("b800c91a0517",), "3.19-rc4", "3.19-rc4", ("I3",),
        "a vma that takes pages over is cloned onto its neighbour's anon_vmas before it is told "
        "which of them is its own, so its use of that one is not counted",
        needs=("anon-vma-reuse",),
        corrected="both commits came with 3.19-rc4; and no chain of forks is needed: the count is "
        "short wherever a vma without an anon_vma takes over a neighbour that has one",
    ),
    Bug(
        "anonvma-degree-underflow-enomem", "sequential+fault", "mm/rmap.c: anon_vma_clone",
        ("3fe89b3e2a7b",), "3.19", "4.0", ("I3",),
        "a clone that runs out of memory takes back a use of the anon_vma that it had not counted",
        needs=("anon-vma-reuse",),
        corrected="splitting a vma is enough, and always does it: the new half comes with its "
        "anon_vma set, a fork's vma only if it has found one to reuse",
    ),
    Bug(
        "anonvma-double-reuse", "sequential", "mm/rmap.c: anon_vma_clone",
        ("2555283eb40d",), "3.19", "6.0", ("I3", "I4", "I5"),
        "whether an anon_vma is idle is told by one number for children and users together, so one "
        "that is in use is given to a second vma, whose chain is another",
        needs=("anon-vma-active-vmas",),
    ),
    Bug(
        "vma-adjust-enomem-uaf", "sequential+fault", "mm/mmap.c: vma_adjust",
        ("734537c9cb72",), "not traced", "4.8", ("I5",),
        "a vma that takes two others over is put on the second one's anon_vma when the first has "
        "gone: without memory for that, the one that has gone is gone on with",
        corrected="not in the catalogue: the hunter found it in the model, where 3.9 and 4.19 had "
        "it without a switch; now none of the profiles has",
    ),
    Bug(
        "anonvma-dup-error-leak", "sequential+fault", "mm/mmap.c: vma_expand, vma_merge",
        ("824135c46b00",), "6.1", "6.7", ("I3",),
        "a merge for which there is no memory leaves the vma on the anon_vma that it was to take "
        "over",
        needs=("maple-tree",),
    ),
    # ---- mm/migrate.c, mm/mremap.c ----
    Bug(
        "migrate-anonvma-not-pinned", "interleaving", "mm/migrate.c: unmap_and_move",
        ("3f6c82728f4e",), "not traced", "2.6.35", ("I5",),
        "migration finds its way back by the anon_vma that the page names, and does not keep it "
        "from going when nothing maps the page any more",
    ),
    Bug(
        "mremap-rmap-walk-order", "interleaving", "mm/mremap.c: move_ptes", (), "not traced", "3.3",
        ("I4", "I9"),
        "a walk that comes to the destination before mremap moves a pte there, and to the source "
        "after that, finds it in neither: a migration entry stays for ever",
        corrected="the commit was not traced. It kept the vmas in an order in which a walk misses "
        "nothing; since 3.7 (108d6642ad81) the walk is kept out by the lock that the switch takes "
        "away, and it needs a destination that comes first, by a merge, as the bug did",
    ),
    # ---- mm/vma.c ----
    Bug(
        "mremap-unfaulted-merge-uaf", "sequential", "mm/vma.c: vma_expand",
        ("61f67c230a5e",), "6.16", "6.19", ("I4", "I5"),
        "pages that mremap moves into a vma that was never written bring no anon_vma along",
        needs=("merge-with-unfaulted",),
        corrected="MREMAP_DONTUNMAP is not needed: the old vma loses its anon_vma all the same",
    ),
)  # fmt: skip

#: No bugs that Linux had, but its checks, each taken away to prove what it is good for.
CHECKS: tuple[Bug, ...] = (
    Bug(
        "unuse_pte-no-pte_same", "check", "mm/swapfile.c: unuse_pte", (), "never", "never",
        ("I3", "I8", "I9"),
        "swapoff does not look again, with the pte locked, whether it is still the swap entry",
    ),
    Bug(
        "do_swap_page-no-pte_same", "check", "mm/memory.c: do_swap_page", (), "never", "never",
        ("I3", "I8", "I9"),
        "a fault does not look again, with the pte locked, whether it is still the swap entry",
    ),
    Bug(
        "copy_pte-no-mmlist", "check", "mm/memory.c: copy_one_pte", (), "never", "never", ("I9",),
        "fork does not put a child with swap entries on swapoff's list",
    ),
    Bug(
        "try_to_unuse-no-mm_users", "check", "mm/swapfile.c: try_to_unuse", (), "never", "never",
        ("I3", "I5"),
        "swapoff takes a reference to an mm that has no users any more",
    ),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(each.name for each in (*BUGS, *CHECKS))

_BY_NAME = {each.name: each for each in (*BUGS, *CHECKS)}


def find(name: str) -> Bug:
    """The bug of that name; KeyError where there is none."""
    return _BY_NAME[name]


def exists_in(bug: Bug, features: frozenset[str]) -> bool:
    """Whether a kernel with these features has the place that the bug breaks."""
    return features >= set(bug.needs) and not features & set(bug.lacks)
