#!/usr/bin/env bash
# ADD and DEL of a container with one published port, by this plugin and by the
# reference chain bridge + host-local + portmap, in turns: medians of 30.
#
#     sudo examples/cni/measure.sh [TURNS]
#
# It builds the reference plugins of the version below and needs Go and iptables.
# Every turn is in namespaces of the benchmark's own.
set -Eeuo pipefail
cd "$(dirname "$0")"
readonly version=v1.9.1 turns=${1:-30}

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for plugin in main/bridge ipam/host-local meta/portmap; do
	GOBIN=$dir GOFLAGS= go install "github.com/containernetworking/plugins/plugins/$plugin@$version"
done
BOXWIRE_CNI_PLUGINS=$dir go test -run '^$' -bench AddDelBesideTheReference -benchtime "${turns}x" . |
	tee "$dir/out" | grep -v '^Benchmark'
# name iterations {value unit}...
awk '/^Benchmark/ { for (i = 3; i < NF; i += 2) v[$(i + 1)] = $i }
END {
	if (!("reference-add-ms" in v)) { print "the reference chain did not run"; exit 1 }
	printf "%-36s %9s %9s\n", "median of '"$turns"', milliseconds", "ADD", "DEL"
	printf "%-36s %9.1f %9.1f\n", "bridge + host-local + portmap", v["reference-add-ms"], v["reference-del-ms"]
	printf "%-36s %9.1f %9.1f\n", "boxwire", v["boxwire-add-ms"], v["boxwire-del-ms"]
	printf "%-36s %8.1fx %8.1fx\n", "ratio", v["x-add"], v["x-del"]
}' "$dir/out"
