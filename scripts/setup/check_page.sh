#!/bin/sh
# Checks format, rules and types of the live page's JavaScript (emotion/static) with biome and tsc, at the versions
# pinned in tests/emotion/page/package-lock.json. The files are served as they are; nothing is built.
#
# Without Node, or if npm gets no packages, it is left out with one line; FACEVOX_REQUIRE_NODE=1 makes that a
# failure. No options. Writes tests/emotion/page/node_modules. Exit codes: 0 no faults, or left out; 1 faults.
set -eu
cd "$(dirname "$0")/../.."
tools=tests/emotion/page

leave_out() {
    echo "page: the JavaScript of emotion/static is not checked: $1" >&2
    [ -z "${FACEVOX_REQUIRE_NODE:-}" ] || exit 1
    exit 0
}

command -v npm >/dev/null || leave_out "no npm on this machine (Debian: apt-get install nodejs npm)"
if [ ! "$tools/node_modules/.package-lock.json" -nt "$tools/package-lock.json" ]; then
    # One early retry: by default npm tries for minutes, which a machine without a network would wait each time.
    answer=$(npm ci --prefix "$tools" --ignore-scripts --no-audit --no-fund \
        --fetch-retries 1 --fetch-retry-mintimeout 1000 2>&1) ||
        leave_out "npm ci failed: $(printf '%s\n' "$answer" | head -n 1)"
fi
"$tools/node_modules/.bin/biome" check --error-on-warnings --config-path "$tools" emotion/static
"$tools/node_modules/.bin/tsc" --project "$tools"
