package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

// One configuration, by the reference plugin and by this one under its name: the result,
// and what the container has, are the same but for names and hardware addresses that
// were drawn.
func TestAConfigurationOfTheReferencePluginsDoesTheSame(t *testing.T) {
	t.Parallel()
	reference := os.Getenv("BOXWIRE_CNI_PLUGINS")
	for _, name := range append([]string{"host-local"}, modes...) {
		if _, err := os.Stat(filepath.Join(reference, name)); err != nil || reference == "" {
			t.Skipf("BOXWIRE_CNI_PLUGINS names no directory with %s: %v", name, err)
		}
	}
	const ipam = `, "ipam": {"type": "host-local", "dataDir": "DIR/host-local", "ranges": [[{"subnet": "10.89.0.0/24"}], [{"subnet": "fd89::/64"}]], "routes": [{"dst": "192.0.2.0/24"}]}`
	for _, conf := range []string{
		`"type": "bridge"`,
		`"type": "bridge", "isDefaultGateway": true, "mtu": 1400, "hairpinMode": true` + ipam,
		`"type": "bridge", "isGateway": true, "portIsolation": true, "promiscMode": true` + ipam,
		`"type": "bridge", "disableContainerInterface": true`,
		`"type": "bridge", "vlan": 100`,
		`"type": "bridge", "vlan": 100, "preserveDefaultVlan": true`,
		`"type": "bridge", "vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 210}]`,
		`"type": "bridge", "vlan": 100, "vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 210}]`,
		`"type": "bridge", "vlan": 100, "isDefaultGateway": true` + ipam,
		`"type": "ptp", "mtu": 1400` + ipam,
		`"type": "macvlan", "master": "lan0"`,
		`"type": "macvlan", "master": "lan0", "mode": "vepa", "mtu": 1400, "bcqueuelen": 777` + ipam,
		`"type": "macvlan", "master": "lan0", "mode": "private"` + ipam,
		`"type": "macvlan", "master": "lan0", "mode": "passthru"` + ipam,
		`"type": "ipvlan", "master": "lan0"` + ipam,
		`"type": "ipvlan", "master": "lan0", "mode": "l3", "mtu": 1400` + ipam,
		`"type": "ipvlan", "master": "lan0", "mode": "l3s"` + ipam,
		`"type": "vlan", "master": "lan0", "vlanId": 100` + ipam,
		`"type": "vlan", "master": "lan0", "vlanId": 4094, "mtu": 1400` + ipam,
		`"type": "host-device", "device": "lan0"`,
		`"type": "host-device", "hwaddr": "02:00:00:00:1a:00"` + ipam,
		`"type": "tap", "mac": "02:00:00:00:00:11"`,
		`"type": "tap", "multiQueue": true, "owner": 4242, "group": 4243` + ipam,
	} {
		t.Run(conf, func(t *testing.T) {
			t.Parallel()
			if strings.Contains(conf, `"vlan`) {
				needVLANs(t)
			}
			var seen [2]string
			for i := range seen {
				r, _ := onLAN(t, "")
				r.unseen()
				if i == 0 {
					r.cni = libcni.NewCNIConfigWithCacheDir([]string{reference}, r.cache(), inside{r.host, &version.PluginDecoder{}})
				}
				b := fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "testnet", "plugins": [{%s}]}`, strings.ReplaceAll(conf, "DIR", r.dir))
				list, err := libcni.ConfListFromBytes(b)
				if err != nil {
					t.Fatal(err)
				}
				r.list = list
				c := r.container("c1", "")
				result, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
				if err != nil && strings.Contains(err.Error(), "not supported") {
					testutil.NeedKernel(t, 3, 19, "ipvlan", fmt.Errorf("%w: %w", errors.ErrUnsupported, err))
				}
				if err != nil {
					t.Fatalf("plugin %d: %v", i, err)
				}
				seen[i] = r.facts(c, result)
				if err := r.check(c); err != nil && i == 1 { // the reference's fails without ipam
					t.Errorf("CHECK: %v", err)
				}
				r.del(c)
				if out := testutil.Run(t, c.ns, "ip", "-o", "link"); strings.Contains(out, "eth0") {
					t.Errorf("plugin %d leaves %s", i, out)
				}
			}
			if seen[0] != seen[1] {
				t.Errorf("the reference plugin has made\n%s\nand this one\n%s", seen[0], seen[1])
			}
		})
	}
}

// facts are what one configuration should make the same each time.
func (r *rig) facts(c container, result any) string {
	r.Helper()
	var facts []string
	say := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	var res struct {
		Interfaces []struct{ Name, Sandbox string }
		IPs        []struct {
			Address, Gateway string
			Interface        *int
		}
		Routes []struct{ Dst, GW string }
	}
	b, _ := json.Marshal(result)
	if err := json.Unmarshal(b, &res); err != nil {
		r.Fatal(err)
	}
	for _, f := range res.Interfaces {
		name := f.Name
		if f.Sandbox == "" && name != "cni0" && !strings.HasPrefix(name, "cni0.") {
			name = "the host's end"
		}
		say("interface %s, in a sandbox: %t", name, f.Sandbox != "")
	}
	for _, ip := range res.IPs {
		say("address %s of interface %d, gateway %s", ip.Address, *ip.Interface, ip.Gateway)
	}
	for _, to := range res.Routes {
		say("route %s by %s", to.Dst, to.GW)
	}
	var links []struct {
		MTU      int
		Flags    []string
		LinkInfo struct {
			Kind string         `json:"info_kind"`
			Data map[string]any `json:"info_data"`
		}
	}
	testutil.JSON(r, c.ns, &links, "ip", "-j", "-d", "link", "show", "eth0")
	d := links[0].LinkInfo.Data
	say("eth0: %s, mtu %d, up %t, mode %v, queue %v, type %v, multi queue %v, user %v, group %v", links[0].LinkInfo.Kind, links[0].MTU,
		slices.Contains(links[0].Flags, "UP"), cmp.Or(d["mode"], d["id"]), d["bc_queue_len"], d["type"], d["multi_queue"], d["user"], d["group"])
	for _, family := range []string{"-4", "-6"} {
		for line := range strings.Lines(testutil.Run(r, c.ns, "ip", "-o", family, "addr", "show", "dev", "eth0", "scope", "global")) {
			say("%s", strings.Join(strings.Fields(line)[2:4], " "))
		}
		var routes []struct {
			Dst, Gateway, PrefSrc string
		}
		testutil.JSON(r, c.ns, &routes, "ip", "-j", family, "route")
		var all []string
		for _, to := range routes {
			if !strings.HasPrefix(to.Dst, "fe80") && !strings.HasPrefix(to.Dst, "multicast") {
				all = append(all, fmt.Sprintf("%s via %s", to.Dst, to.Gateway))
			}
		}
		slices.Sort(all)
		say("routes %s", strings.Join(all, ", "))
	}
	var ports []struct {
		IfName            string
		Hairpin, Isolated bool
	}
	testutil.JSON(r, r.host, &ports, "bridge", "-j", "-d", "link")
	for _, p := range ports {
		if p.IfName != "cni0" && !strings.HasPrefix(portVLANs(r, r.host, p.IfName), "100*") || len(ports) == 1 {
			say("port: hairpin %t, isolated %t, VLANs %s", p.Hairpin, p.Isolated, portVLANs(r, r.host, p.IfName))
		}
	}
	if out, err := testutil.Try(r, r.host, "ip", "-d", "link", "show", "cni0"); err == nil {
		say("bridge: promiscuous %t, filters %t", strings.Contains(out, "PROMISC"), strings.Contains(out, "vlan_filtering 1"))
		for line := range strings.Lines(testutil.Run(r, r.host, "ip", "-o", "-4", "addr")) {
			say("host: %s", strings.Join(strings.Fields(line)[1:4], " "))
		}
	}
	return strings.Join(facts, "\n")
}
