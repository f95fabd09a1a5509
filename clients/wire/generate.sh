#!/bin/sh
# Writes muster.pb.go, muster.json.go and docs/protocol.md from muster.proto, below the
# directory given as $1 (default: the repository). Needs protoc; the plugins are built
# from the versions in go.mod.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:-$root}
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
cd "$root"
go build -o "$bin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
go build -o "$bin/protoc-gen-jsongen" ./clients/wire/internal/jsongen
mkdir -p "$out/docs"
protoc --plugin="$bin/protoc-gen-go" --plugin="$bin/protoc-gen-jsongen" \
  --go_out="$out" --go_opt=module=muster \
  --jsongen_out="$out" --jsongen_opt=module=muster \
  clients/wire/muster.proto
