#!/usr/bin/env bash
# Podman with the plugin as its network, in namespaces of the script's own:
#
#     sudo examples/cni/podman_test.sh
#
# It needs podman with its CNI backend (Debian 12: podman, runc), busybox-static,
# nftables, Go and root, and fetches nothing: the image is made of busybox. Where
# something of it is missing, it says what, and ends with status 77.
set -Eeuo pipefail

if [[ ${1-} != inside ]]; then
	cd "$(dirname "$0")"
	for tool in runc busybox go nft; do
		command -v "$tool" >/dev/null || { echo "SKIP: there is no $tool" >&2; exit 77; }
	done
	dir=$(mktemp -d -t boxwire-podman.XXXXXX)
	# The containers' cgroups are below one of that name, in the machine's tree.
	tidy() {
		find /sys/fs/cgroup -depth -type d -path "*/${dir##*/}*" -exec rmdir {} + || true
		rm -rf "$dir"
	}
	trap tidy EXIT
	mkdir "$dir/bin"
	go build -o "$dir/bin/boxwire" .
	go -C ../.. build -o "$dir/bin/map" ./examples/map
	# Processes, mounts and links end with the namespaces. The host that podman
	# sees is one of these.
	unshare --net --mount --pid --fork --kill-child --mount-proc bash "$PWD/podman_test.sh" inside "$dir"
	exit
fi

dir=$2
step="start"
trap 'echo "FAIL: $step (line $LINENO)" >&2' ERR
fail() { echo "FAIL: $step: $*" >&2; exit 1; }
step() { step=$1; echo "== $1"; }

mount --make-rprivate /
# What podman keeps outside of its --root: locks, caches, results of plugins.
for place in /run /dev/shm /var/lib /var/tmp; do mount -t tmpfs private "$place"; done
mkdir /run/netns
ip link set lo up
export HOME=$dir CONTAINERS_CONF=$dir/containers.conf

mkdir "$dir"/{net.d,image,image/bin,image/www}
cat >"$dir/net.d/87-boxwire.conflist" <<END
{
  "cniVersion": "0.4.0", "name": "boxnet",
  "plugins": [{
    "type": "boxwire", "isDefaultGateway": true, "ipMasq": true,
    "capabilities": {"portMappings": true, "ips": true, "mac": true},
    "ipam": {"type": "boxwire", "ranges": [[{"subnet": "10.89.7.0/24"}], [{"subnet": "fd89:7::/64"}]]}
  }]
}
END
sed 's/boxnet/backnet/; s/10\.89\.7/10.89.8/; s/fd89:7/fd89:8/; s/"type": "boxwire", "isDef/"type": "boxwire", "bridge": "boxwire1", "isDef/' \
	"$dir/net.d/87-boxwire.conflist" >"$dir/net.d/88-boxwire.conflist"
cat >"$CONTAINERS_CONF" <<END
[network]
network_backend = "cni"
cni_plugin_dirs = ["$dir/bin"]
network_config_dir = "$dir/net.d"
default_network = "boxnet"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
END
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$dir/policy.json"
podman() { command podman --root "$dir/root" --runroot "$dir/run" --storage-driver vfs "$@"; }
run() { podman run --cgroup-parent "/${dir##*/}" "$@"; }
# get ADDRESS asks port 8080 and prints the last line of the answer.
get() {
	timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/8080"; printf "GET / HTTP/1.0\r\n\r\n" >&3; tail -n 1 <&3' "$1" 2>/dev/null
}

step "podman has a CNI backend"
if ! podman info >"$dir/info" 2>&1; then
	grep -q 'cni support is not enabled' "$dir/info" || fail "$(<"$dir/info")"
	echo "SKIP: $(command podman --version) is built without its CNI backend" >&2
	exit 77
fi

step "an image of busybox"
cp "$(command -v busybox)" "$dir/image/bin/busybox"
for applet in sh httpd sleep wget; do ln -s busybox "$dir/image/bin/$applet"; done
echo hello >"$dir/image/www/index.html"
tar -C "$dir/image" -cf "$dir/image.tar" .
podman import --quiet --signature-policy "$dir/policy.json" "$dir/image.tar" box

step "run -p"
run -d --name web -p 8080:80 box /bin/sh -c 'trap "exit 0" TERM; httpd -f -p 80 -h /www & wait' >/dev/null
for at in 127.0.0.1 10.89.7.1 fd89:7::1; do
	for try in {1..50}; do get "$at" >"$dir/got" && break; sleep 0.1; done
	[[ $(<"$dir/got") == hello ]] || fail "port 8080 of $at answers '$(<"$dir/got")' after $try tries"
	: >"$dir/got"
done

step "a second container reaches the first"
address=$(podman inspect web --format '{{.NetworkSettings.Networks.boxnet.IPAddress}}')
[[ $(run --rm box /bin/wget -q -O - "http://$address/") == hello ]] || fail "http://$address/"
[[ $(run --rm box /bin/wget -q -O - http://10.89.7.1:8080/) == hello ]] || fail "by the published port"

step "the map shows the containers and a namespace made by hand"
run -d --name beside --network container:web box /bin/sleep 1000 >/dev/null # two containers, one namespace
ip netns add byhand
ip -n byhand link set lo up
"$dir/bin/map" -json >"$dir/map.json"
"$dir/bin/map" >"$dir/map.txt"
for name in web beside; do
	grep -q "\"id\": \"$(podman inspect $name --format '{{.Id}}')\"" "$dir/map.json" || fail "no container $name in $(<"$dir/map.json")"
done
grep -q '"/run/netns/byhand"' "$dir/map.json" || fail "no name byhand in $(<"$dir/map.json")"
grep -E "port  :8080 → $address:80 .*--- " "$dir/map.txt" >/dev/null || fail "no port 8080 in $(<"$dir/map.txt")"
grep -F "$(ip -brief -4 addr show boxwire0 | awk '{ print $3 }')" "$dir/map.txt" | grep -q 'boxwire0 (bridge)' || fail "no bridge in $(<"$dir/map.txt")"
# lsns shows the namespaces that have a process; the map has these, and the one made by hand.
sed -n 's/^      "inode": \([0-9]*\),$/\1/p' "$dir/map.json" | sort >"$dir/shown"
{ lsns --noheadings --output NS --type net; stat --format %i /run/netns/byhand; } | tr -d ' ' | sort -u >"$dir/there"
diff "$dir/there" "$dir/shown" >&2 || fail "other namespaces than lsns shows"
"$dir/bin/map" -why 8080 >"$dir/why"
grep -q 'no cause is found' "$dir/why" || fail "$(<"$dir/why")"
ip netns del byhand
podman rm -f -t 0 beside >/dev/null

step "--ip and --mac-address"
[[ $(run --rm --ip 10.89.7.99 --mac-address 02:00:00:00:00:63 box /bin/busybox ip addr show eth0) == *02:00:00:00:00:63*10.89.7.99/24* ]] || fail "not as asked for"

step "a port that is taken"
run --rm -p 8080:80 box /bin/busybox true 2>"$dir/err" && fail "it was published twice"
grep -q 'boxnet/.*eth0' "$dir/err" || fail "$(<"$dir/err")"

step "stop and start"
podman stop -t 5 web >/dev/null
get 127.0.0.1 >/dev/null && fail "the port of a stopped container answers"
podman start web >/dev/null
for try in {1..50}; do get 127.0.0.1 >"$dir/got" && break; sleep 0.1; done
[[ $(<"$dir/got") == hello ]] || fail "after the start"

step "two networks"
run -d --name both --network boxnet,backnet -p 8081:80 box /bin/sh -c 'trap "exit 0" TERM; httpd -f -p 80 -h /www & wait' >/dev/null
# get2 asks port 8081 of 127.0.0.1.
get2() { timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/8081"; printf "GET / HTTP/1.0\r\n\r\n" >&3; tail -n 1 <&3' 2>/dev/null; }
for try in {1..50}; do get2 >"$dir/got" && break; sleep 0.1; done
[[ $(<"$dir/got") == hello ]] || fail "port 8081 answers '$(<"$dir/got")' after $try tries"
routes=$(podman exec both /bin/busybox ip route | grep -c '^default')
((routes == 2)) || fail "there are $routes default routes"
nft list map inet boxwire-cni any4 >"$dir/map"
# A name of a container has the digits of a port, too, at times; only a port follows a point and a space.
(($(grep -c '\. 8081 ' "$dir/map") == 1)) || fail "published more than once: $(<"$dir/map")"

step "one of two networks goes, and the other one has the port"
for net in boxnet backnet; do
	address=$(podman inspect both --format "{{.NetworkSettings.Networks.$net.IPAddress}}")
	if grep -qF " $address . " "$dir/map"; then first=$net; else second=$net; fi
done
podman network disconnect "$first" both
[[ $(get2) == hello ]] || fail "port 8081 does not answer by $second"
podman rm -f -t 5 both >/dev/null
get2 >/dev/null && fail "the port of a removed container answers"
[[ ! -e /run/boxwire-cni/waiting ]] || fail "left: $(</run/boxwire-cni/waiting)"

step "rm"
podman rm -f -t 5 web >/dev/null
left=$(ip -brief link show type veth)
[[ -z $left ]] || fail "left: $left"
nft list table inet boxwire-cni | grep '\. 8080 ' && fail "the port is still published"
grep -q owner /run/boxwire-cni/boxnet.json && fail "the address is still assigned"

echo "PASS"
