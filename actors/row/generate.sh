#!/bin/sh
# Writes row.pb.go from row.proto. Needs protoc; the plugin is built from the version
# in go.mod.
set -eu
cd "$(dirname "$0")/../.."
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
go build -o "$bin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
protoc --plugin="$bin/protoc-gen-go" --go_out=. --go_opt=module=muster actors/row/row.proto
