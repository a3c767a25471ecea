#!/bin/bash
# Line coverage of csrc by the test suite; fails under 90 %. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$PWD/build-coverage
BUILD=$build PACKAGE=$build/package tests/dev_build.sh -Db_coverage=true -Doptimization=1
find "$build" -name '*.gcda' -delete
# How fast the core is says nothing on a build that counts its lines; real kernels and the oracle do not run it.
# Of the recordings the oldest kernel's and today's are enough: the others go the same ways, and take a minute.
# Programs against the oracle spend their time in it, and the bench's tests in the core's loops, that others go through.
PYTHONPATH=$build/package pytest -q -p no:cacheprovider --ignore tests/test_speed_ratio.py \
	--ignore tests/test_differential.py --ignore tests/test_bench.py \
	--ignore-glob 'tests/test_recorder_*' -k 'not oracle and (not test_recordings or 3.10.65 or 6.18)' "$@"
# What is in both builds, and in them at different lines, is one function to us.
# Two threads of an exploration count without waiting for each other, so that a count may come out below zero.
gcovr --root . --filter csrc/ --merge-mode-functions=separate --fail-under-line 90 --print-summary \
	--gcov-ignore-parse-errors=negative_hits.warn_once_per_file "$build"
