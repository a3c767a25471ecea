#!/bin/bash
# Line coverage of csrc by the test suite; fails under 90 %. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$PWD/build-coverage
BUILD=$build PACKAGE=$build/package tests/dev_build.sh -Db_coverage=true -Doptimization=1
find "$build" -name '*.gcda' -delete
# How fast the core is says nothing on a build that counts its lines; real kernels do not run it.
PYTHONPATH=$build/package pytest -q -p no:cacheprovider --ignore tests/test_speed_ratio.py \
	--ignore-glob 'tests/test_recorder_*' "$@"
gcovr --root . --filter csrc/ --fail-under-line 90 --print-summary "$build"
