package main

import (
	"net"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// Frames with another source than the container's are dropped, of whatever protocol
// and VLAN, and no other port takes the container's address.
func TestFramesWithAnotherSourceAreDropped(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, conf string
		vlan       uint16
	}{
		{"a plain switch", noIPAM, 0},
		{"with addresses and ports", "", 0},
		{"in a VLAN", `"vlan": 100`, 0},
		{"in a trunk", noIPAM + `, "vlanTrunk": [{"minID": 100, "maxID": 110}]`, 105},
		{"with a policy", `"policy": {"ingress": ["tcp 10.89.0.0/24 port 80"]}`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, strings.TrimPrefix(test.conf+`, "macspoofchk": true`, ", "))
			if strings.Contains(test.conf, "vlan") {
				needVLANs(t)
				r.unseen()
			}
			a, b := r.container("a", ""), r.container("b", "")
			res, err := r.cni.AddNetworkList(t.Context(), r.list, a.RuntimeConf)
			if err != nil && strings.Contains(err.Error(), "did not take Locked") {
				testutil.NeedKernel(t, 5, 18, "locked bridge ports", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			result, err := current.NewResultFromResult(res)
			if err != nil {
				t.Fatal(err)
			}
			plain := *r
			plain.list = r.parse("testnet", "1.1.0", test.conf)
			plain.add(b)
			if !strings.Contains(test.name, "policy") && !arrives(t, a.ns, b.ns, frame(macOf(t, a.ns), test.vlan, "mine")) {
				t.Error("its own frame does not arrive")
			}
			other, _ := net.ParseMAC("02:00:00:00:00:66")
			for name, mac := range map[string]net.HardwareAddr{"no one's": other, "its sibling's": macOf(t, b.ns)} {
				if passes(t, a.ns, b.ns, frame(mac, test.vlan, "evil")) {
					t.Errorf("a frame with %s address arrives", name)
				}
			}
			// The sibling is not checked. It claims the address, and does not get it.
			passes(t, b.ns, a.ns, frame(macOf(t, a.ns), test.vlan, "grab"))
			out := testutil.Run(t, r.host, "bridge", "fdb", "show", "br", "boxwire0")
			port := attachment{"testnet", "a", "eth0"}.link()
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, macOf(t, a.ns).String()) && !strings.Contains(line, port) || strings.HasPrefix(line, other.String()) {
					t.Errorf("the bridge has learned %s", line)
				}
			}
			if len(result.IPs) > 0 { // and it works as ever
				serve(t, a)
				if err := reach(t, r.host, addrOf(result, 0).String(), "a"); err != nil {
					t.Error(err)
				}
				if err := reach(t, b.ns, addrOf(result, 0).String(), "a"); err != nil {
					t.Error(err)
				}
			}
			if err := r.check(a); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			for _, change := range [][]string{
				{"ip", "link", "set", port, "type", "bridge_slave", "locked", "off"},
				{"bridge", "fdb", "add", other.String(), "dev", port, "master", "static"},
			} {
				testutil.Run(t, r.host, change[0], change[1:]...)
				if err := r.check(a); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "bound to the hardware address") {
					t.Errorf("CHECK after %v: %v", change, err)
				}
				testutil.Run(t, r.host, "ip", "link", "set", port, "type", "bridge_slave", "locked", "on")
			}
			r.del(a)
			plain.del(b)
			r.gc()
			r.clean()
		})
	}
}

func TestTheBridgeMayBePromiscuous(t *testing.T) {
	t.Parallel()
	promiscuous := func(r *rig) bool {
		return strings.Contains(testutil.Run(r, r.host, "ip", "link", "show", "boxwire0"), "PROMISC")
	}
	for _, prepared := range []bool{false, true} {
		r := newRig(t, `"promiscMode": true`)
		if prepared {
			testutil.Run(t, r.host, "ip", "link", "add", "boxwire0", "up", "type", "bridge")
			c := r.container("c0", "")
			testutil.Run(t, c.ns, "ip", "link", "add", "eth0", "type", "bridge")
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); err == nil || promiscuous(r) {
				t.Errorf("a failed ADD: %v, leaves the bridge promiscuous: %t", err, promiscuous(r))
			}
		}
		c := r.container("c1", publish8080)
		addr := addrOf(r.add(c), 0).String()
		serve(t, c)
		if !promiscuous(r) {
			t.Error("the bridge is not")
		}
		for _, at := range []string{addr, "127.0.0.1:8080"} {
			if err := reach(t, r.host, at, "c1"); err != nil {
				t.Error(err)
			}
		}
		if err := reach(t, c.ns, "10.89.0.1:8080", "c1"); err != nil {
			t.Errorf("its own port: %v", err)
		}
		if err := r.check(c); err != nil {
			t.Errorf("CHECK: %v", err)
		}
		testutil.Run(t, r.host, "ip", "link", "set", "boxwire0", "promisc", "off")
		if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "promiscuous") {
			t.Errorf("CHECK: %v", err)
		}
		r.del(c)
		r.gc()
	}
}

func TestDuplicatesAreDetectedOnDemand(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"enabledad": true`)
	c := r.container("c1", "")
	r.add(c)
	out := testutil.Run(t, c.ns, "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global")
	if strings.Contains(out, "nodad") || strings.Contains(out, "tentative") || !strings.Contains(out, "fd89::2/64") {
		t.Errorf("the container has %s", out)
	}
	// A host of the link that the allocator knows nothing of.
	testutil.Run(t, c.ns, "ip", "-6", "addr", "add", "fd89::77/64", "dev", "eth0", "nodad")
	late := r.container("late", `"ips": ["fd89::77"]`)
	if _, err := r.cni.AddNetworkList(t.Context(), r.list, late.RuntimeConf); err == nil || !strings.Contains(err.Error(), "duplicate address detection") {
		t.Errorf("ADD of an address that another host has: %v", err)
	}
	r.del(late)
	r.del(c)
	r.gc()
	r.clean()
}
