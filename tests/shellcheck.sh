#!/bin/sh
# Checks every shell script of the project, where shellcheck is installed.
set -eu
if ! command -v shellcheck >/dev/null; then
    echo "skipped: shellcheck is not installed"
    test -z "${FORKLINE_TEST_ALL:-}"
    exit
fi
shellcheck .ci/* tests/*.sh tests/suite/*.sh tests/kernels/*.sh \
    deploy/debian/build.sh deploy/debian/p*
