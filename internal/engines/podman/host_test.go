//go:build linux

// Package podman has the scenes with podman whose networks are those of the CNI plugin examples/cni.
package podman

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/boxes"
	"github.com/boxwire/boxwire/internal/engines/containers"
	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/netns"
)

func TestMain(m *testing.M) { machine.Main(m) }

// The networks of the plugin: name, bridge, and the middle of the prefixes 10.89.N.0/24 and fd89:N::/64.
var networks = []struct {
	name, bridge string
	n            int
}{{"boxnet", "cniboxes0", 7}, {"backnet", "cniboxes1", 8}}

// host is a machine with podman, the plugin, and boxes of the library.
type host struct {
	*machine.Machine
	*boxes.Host
	podman *containers.Podman

	world reach.World
}

// newHost makes the box lib, published on port 8070, in the library's network.
func newHost(t *testing.T, more ...string) *host {
	t.Helper()
	h := &host{Machine: machine.New(t, machine.Config{
		Packages: append(more, containers.Packages...), Engine: "podman", Version: []string{"podman", "--version"},
	})}
	// The file of the plugin is named after the directory.
	h.Run(t, "mv", h.Build(t, "./examples/cni"), "/usr/local/bin/boxwire")
	h.configure(t, "/etc/cni/net.d")
	h.podman = containers.New(t, h.Machine, "cni",
		`cni_plugin_dirs = ["/usr/local/bin"]`, `network_config_dir = "/etc/cni/net.d"`, `default_network = "boxnet"`)
	h.Host = boxes.New(t, h.Machine.NS)
	lib := h.Add(t, "lib", 2, 8070)
	reach.Serve(t, h.LAN, "lan", ":80")
	reach.Serve(t, h.Machine.NS, "host", ":80")
	h.world = reach.World{
		Places:  map[string]*netns.NS{"lan": h.LAN, "host": h.Machine.NS, "lib": lib},
		Targets: map[string]string{},
	}
	h.world.Add("lan", "192.0.2.1", "2001:db8:1::1", 80)
	h.world.Add("host", "192.0.2.2", "2001:db8:1::2", 80)
	for _, port := range []uint16{8070, 8080, 8081, 8082} {
		h.world.Add(fmt.Sprintf(":%d", port), "192.0.2.2", "2001:db8:1::2", port)
		h.world.Add(fmt.Sprintf("self:%d", port), "127.0.0.1", "", port)
	}
	h.world.Add("lib", "172.30.0.2", "fd30::2", 80)
	// The neighbour knows the way to boxes and containers, and must not reach them.
	boxes.Route(t, h.LAN, "192.0.2.2", "172.30.0.0/24", "10.89.0.0/16")
	boxes.Route(t, h.LAN, "2001:db8:1::2", "fd30::/64", "fd89::/16")
	return h
}

// configure writes the networks.
func (h *host) configure(t *testing.T, dir string) {
	t.Helper()
	for i, n := range networks {
		h.WriteFile(t, fmt.Sprintf("%s/%d-%s.conflist", dir, 87+i, n.name), fmt.Sprintf(`{
	"cniVersion": "0.4.0", "name": %q,
	"plugins": [{
		"type": "boxwire", "bridge": %q, "isDefaultGateway": true, "ipMasq": true,
		"capabilities": {"portMappings": true, "ips": true, "mac": true},
		"ipam": {"type": "boxwire", "ranges": [[{"subnet": "10.89.%d.0/24"}], [{"subnet": "fd89:%d::/64"}]]}
	}]
}`, n.name, n.bridge, n.n, n.n), 0o644)
	}
}

// add makes a container a place and, by its address in each network, a target: NAME.NETWORK.
func (h *host) add(t *testing.T, name string, in ...string) {
	t.Helper()
	h.world.Places[name] = h.podman.NS(t, name)
	for _, network := range in {
		v4, v6 := h.podman.Addrs(t, name, network)
		if v4 == "" {
			t.Fatalf("%s has no address in %s", name, network)
		}
		h.world.Add(name+"."+network, v4, v6, 80)
	}
}

// published are the elements for a host port in the plugin's table, as "family map: address".
func (h *host) published(t *testing.T, port int) (all []string) {
	t.Helper()
	for _, name := range []string{"any4", "any6"} {
		var out struct {
			Nftables []struct {
				Map struct{ Elem [][]json.RawMessage }
			}
		}
		text := h.Run(t, "nft", "-j", "list", "map", "inet", "boxwire-cni", name)
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for _, o := range out.Nftables {
			for _, e := range o.Map.Elem {
				if strings.Contains(string(e[0]), fmt.Sprintf(`, %d]`, port)) {
					all = append(all, fmt.Sprintf("%s: %s", name, e[1]))
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// empty wants nothing of containers left: no link, namespace, port, address or note.
func (h *host) empty(t *testing.T, when string) {
	t.Helper()
	for _, c := range [][]string{
		{"sh", "-c", "ip -o link show type veth | grep -E 'master cniboxes' || true"},
		{"sh", "-c", "ls /run/netns | grep ^cni- || true"},
		{"sh", "-c", "grep -l owner /run/boxwire-cni/*.json || true"},
		{"sh", "-c", "cat /run/boxwire-cni/waiting 2>/dev/null || true"},
	} {
		if out := h.Run(t, c[0], c[1:]...); out != "" {
			t.Errorf("%s, %v finds %s", when, c, out)
		}
	}
	for _, port := range []int{8080, 8081, 8082} {
		if left := h.published(t, port); len(left) > 0 {
			t.Errorf("%s, port %d is published: %v", when, port, left)
		}
	}
}
