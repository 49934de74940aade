#!/bin/sh
# Makes the indexes of old formats that lie beside this script, each with the code of a commit that
# wrote it, from `docs`. Run it in a clone with the whole history; it needs a few minutes and changes
# names and times in the indexes, not what is in them.
#
#   format-1   a commit of the first day, before identities of models had engines
#   format-2   the first commit with token vectors
#   format-3   the last commit before settings said how documents are cut
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'git -C "$here" worktree remove --force "$work/tree"; rm -rf "$work"' EXIT
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$work/target}"
export CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=false
# The documents are added from a folder that is the same everywhere, for its name is in the index.
docs=/tmp/topshelf-formats/docs
rm -rf /tmp/topshelf-formats
mkdir -p "$docs"
cp "$here"/docs/* "$docs"

git -C "$here" worktree add --detach "$work/tree"
for pair in 1:d8b2195 2:ee40134 3:a7893fa; do
    format=${pair%%:*}
    git -C "$work/tree" checkout --quiet --force "${pair#*:}"
    crate="$work/tree/crates/topshelf-index"
    mkdir -p "$crate/examples"
    api=$((format > 1 ? 2 : 1))
    sed "s|//$api: \{0,1\}||" "$here/fixture.rs" > "$crate/examples/fixture.rs"
    rm -rf "$here/format-$format"
    (cd "$work/tree" && cargo run --quiet --package topshelf-index --example fixture -- \
        "$docs" "$here/format-$format")
    # tantivy's locks are empty files that only a running process needs.
    rm -f "$here/format-$format"/text/.tantivy-*.lock
done
rm -rf /tmp/topshelf-formats
