#!/bin/bash
# The plots of docs/scaling.md: three minutes on a machine that does nothing else, 9 GiB.
#   PATH=.venv/bin:$PATH benchmarks/plots.sh [DIRECTORY]
set -euo pipefail
to=${1:-docs}
bench() { echo "\$ pyksm bench $*"; python3 -m pyksm bench "$@"; echo; }
bench swapoff --kind ksm --sweep ptes=1e3..3e5:6 --profile 3.9 --profile 6.18 --policy reread --policy memcpy \
	--walk literal --walk computed --repeat 3 --plot "$to/swapoff-ksm.svg"
bench swapoff --sweep ptes=1e3..1e5 --profile 3.9 --profile 6.18 --walk literal --walk computed \
	--transfer copy --transfer reference --repeat 3 --plot "$to/swapoff-distinct.svg"
bench scan --sweep ptes=1e3..1e6 --profile 3.9 --profile 4.19 --profile 6.18 --repeat 3 \
	--plot "$to/first-merge.svg"
bench rmap --sweep ptes=1e3..1e6 --page-bytes 64 --repeat 3 --plot "$to/rmap.svg"
