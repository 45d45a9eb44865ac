package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// portVLANs are the VLANs of a port as bridge(8) has them: "100* 101 200-210" with *
// for that of frames without a tag, and u behind those that leave without one.
func portVLANs(t testing.TB, ns *netns.NS, port string) string {
	t.Helper()
	var ports []struct {
		IfName string
		VLANs  []struct {
			VLAN  int
			Flags []string
		}
	}
	testutil.JSON(t, ns, &ports, "bridge", "-j", "vlan", "show")
	var all []string
	first, last := 0, -1 // of a range of tagged ones
	for _, p := range ports {
		if p.IfName != port {
			continue
		}
		for _, v := range p.VLANs {
			s := fmt.Sprint(v.VLAN)
			if len(v.Flags) == 0 && v.VLAN == last+1 {
				s, all = fmt.Sprintf("%d-%d", first, v.VLAN), all[:len(all)-1]
			} else if first = v.VLAN; len(v.Flags) > 0 {
				first = -1
			}
			if last = v.VLAN; first < 0 {
				last = -1
			}
			if slices.Contains(v.Flags, "PVID") {
				s += "*"
			}
			if slices.Contains(v.Flags, "Egress Untagged") {
				s += "u"
			}
			all = append(all, s)
		}
	}
	return strings.Join(all, " ")
}

// needVLANs skips a test on a kernel whose bridges filter no VLANs.
func needVLANs(t *testing.T) {
	t.Helper()
	ns := netnstest.New(t)
	_, err := testutil.Try(t, ns, "ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1")
	if err == nil {
		_, err = testutil.Try(t, ns, "bridge", "vlan", "add", "dev", "br0", "vid", "7", "self")
	}
	if err == nil {
		_, err = testutil.Try(t, ns, "ip", "link", "add", "link", "br0", "name", "br0.7", "type", "vlan", "id", "7")
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	testutil.NeedKernel(t, 3, 9, "VLANs of bridges", err)
}

// unseen has the firewall not see what is bridged.
func (r *rig) unseen() *rig {
	testutil.Try(r, r.host, "sh", "-c", "for f in /proc/sys/net/bridge/bridge-nf-call-*; do echo 0 >$f; done")
	return r
}

const noIPAM = `"isGateway": false, "isDefaultGateway": false, "ipMasq": false, "ipam": {}`

func TestThePortHasItsVLANs(t *testing.T) {
	t.Parallel()
	needVLANs(t)
	for _, test := range []struct{ name, conf, want string }{
		{"a VLAN", `"vlan": 100`, "100*u"},
		{"a VLAN beside the default one", `"vlan": 100, "preserveDefaultVlan": true`, "1u 100*u"},
		{"a trunk", `"vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 210}]`, "1*u 101 200-210"},
		{"a VLAN and a trunk", `"vlan": 100, "vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 210}]`, "100*u 101 200-210"},
		{"a VLAN within the trunk", `"vlan": 100, "vlanTrunk": [{"minID": 99, "maxID": 102}]`, "99 100*u 101-102"},
		{"a trunk beside the default one", `"vlan": 100, "vlanTrunk": [{"id": 7}], "preserveDefaultVlan": true`, "1u 7 100*u"},
		{"every VLAN", `"vlanTrunk": [{"minID": 1, "maxID": 4094}]`, "1*u 2-4094"},
		{"an empty trunk", `"vlanTrunk": []`, "1*u"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, noIPAM+", "+test.conf)
			c := r.container("c1", "")
			r.add(c)
			port := attachment{"testnet", "c1", "eth0"}.link()
			if got := portVLANs(t, r.host, port); got != test.want {
				t.Errorf("the port has %q, want %q", got, test.want)
			}
			out := testutil.Run(t, r.host, "ip", "-d", "link", "show", "boxwire0")
			if on := strings.Contains(out, "vlan_filtering 1"); on != (test.name != "an empty trunk") {
				t.Errorf("the bridge is %s", out)
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			r.del(c)
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}

func TestCheckNoticesAChangedVLAN(t *testing.T) {
	t.Parallel()
	needVLANs(t)
	r := newRig(t, `"vlan": 100, "vlanTrunk": [{"minID": 200, "maxID": 210}]`).unseen()
	c := r.container("c1", "")
	r.add(c)
	port := attachment{"testnet", "c1", "eth0"}.link()
	for _, change := range []struct{ do, undo, says string }{
		{"vlan del dev PORT vid 205", "vlan add dev PORT vid 205", "the VLAN 205 is gone"},
		{"vlan add dev PORT vid 7", "vlan del dev PORT vid 7", "the VLAN 7 is added"},
		{"vlan add dev PORT vid 100 pvid", "vlan add dev PORT vid 100 pvid untagged", "100"},
	} {
		words := func(s string) []string { return strings.Fields(strings.ReplaceAll(s, "PORT", port)) }
		testutil.Run(t, r.host, "bridge", words(change.do)...)
		if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), change.says) {
			t.Errorf("CHECK after %s: %v", change.do, err)
		}
		testutil.Run(t, r.host, "bridge", words(change.undo)...)
		if err := r.check(c); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
	testutil.Run(t, r.host, "ip", "link", "del", "boxwire0.100")
	if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "boxwire0.100 is gone") {
		t.Errorf("CHECK without the host's link in the VLAN: %v", err)
	}
	r.del(c)
	r.gc()
	r.clean()
}

// vlanNet is the network of one VLAN on the bridge that several share.
func (r *rig) vlanNet(id int, conf string) *rig {
	r.Helper()
	other := *r
	other.list = r.parse(fmt.Sprint("vlan", id), "1.1.0", fmt.Sprintf(`"vlan": %d, "ipam": {"type": "boxwire", "dataDir": "DIR/state",
		"ranges": [[{"subnet": "10.%d.0.0/24"}], [{"subnet": "fd00:%d::/64"}]]}%s`, id, id, id, conf))
	return &other
}

func TestContainersOfAVLANAreApartFromOthers(t *testing.T) {
	t.Parallel()
	needVLANs(t)
	r := newRig(t, "").unseen()
	plain := r.container("plain", "")
	r.add(plain)
	r100, r200 := r.vlanNet(100, ""), r.vlanNet(200, "")
	a, b, other := r.container("a", publish8080), r.container("b", ""), r.container("other", "")
	result := r100.add(a)
	r100.add(b)
	r200.add(other)
	for _, c := range []container{plain, a, b, other} {
		serve(t, c)
	}
	if n := len(result.Interfaces); n != 4 || result.Interfaces[3].Name != "boxwire0.100" {
		t.Errorf("the interfaces are %v", result.Interfaces)
	}
	if got := portVLANs(t, r.host, "boxwire0"); got != "1*u 100 200" {
		t.Errorf("the bridge has the VLANs %q", got)
	}
	for _, at := range []string{"10.100.0.2", "[fd00:100::2]"} { // by the gateway, and by a sibling
		for _, from := range []*netns.NS{r.host, b.ns} {
			if err := reach(t, from, at, "a"); err != nil {
				t.Error(err)
			}
		}
	}
	if err := reach(t, r.host, "127.0.0.1:8080", "a"); err != nil {
		t.Errorf("the published port: %v", err)
	}
	if err := reach(t, other.ns, "10.200.0.1:8080", "a"); err != nil {
		t.Errorf("the published port, from another VLAN: %v", err)
	}
	// Not even one that takes an address of the other VLAN and asks for it on the link.
	for _, from := range []container{other, plain} {
		testutil.Run(t, from.ns, "ip", "addr", "add", "10.100.0.99/24", "dev", "eth0")
		if passes(t, from.ns, b.ns, frame(macOf(t, from.ns), 0, "leak")) {
			t.Errorf("a frame of %s arrives in the VLAN 100", from.ContainerID)
		}
	}
	if !arrives(t, a.ns, b.ns, frame(macOf(t, a.ns), 0, "fine")) {
		t.Error("no frame arrives within the VLAN")
	}
	for rig, all := range map[*rig][]container{r: {plain}, r100: {a, b}, r200: {other}} {
		for _, c := range all {
			if c.ContainerID != "plain" && c.ContainerID != "other" { // they have an address more
				if err := rig.check(c); err != nil {
					t.Errorf("CHECK %s: %v", c.ContainerID, err)
				}
			}
			rig.del(c)
		}
	}
	r100.gc()
	if links := r.links("vlan"); len(links) > 0 && slices.Contains(links, "boxwire0.100") {
		t.Errorf("there is %v", links)
	}
	r200.gc()
	r.gc()
	r.clean()
}

func TestATrunkCarriesItsVLANsAndNoOthers(t *testing.T) {
	t.Parallel()
	needVLANs(t)
	r := newRig(t, noIPAM+`, "vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 210}]`)
	trunk, box := r.container("trunk", ""), r.container("box", "")
	r.add(trunk)
	member := *r
	member.list = r.parse("member", "1.1.0", noIPAM+`, "vlan": 205`)
	member.add(box)
	for id, want := range map[uint16]bool{205: true, 206: false, 300: false, 0: false} {
		look := passes
		if want {
			look = arrives
		}
		if got := look(t, trunk.ns, box.ns, frame(macOf(t, trunk.ns), id, fmt.Sprintf("%04d", id))); got != want {
			t.Errorf("a frame of the VLAN %d passes: %t", id, got)
		}
	}
	r.del(trunk)
	member.del(box)
	member.gc()
	r.gc()
	r.clean()
}

// A bridge that filters no VLANs would mix them. The plugin's own one begins to; that
// of others is refused, and neither is changed by an ADD that fails.
func TestABridgeThatFiltersNoVLANs(t *testing.T) {
	t.Parallel()
	needVLANs(t)
	filtering := func(r *rig) bool {
		return strings.Contains(testutil.Run(r, r.host, "ip", "-d", "link", "show", "boxwire0"), "vlan_filtering 1")
	}
	t.Run("its own", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "").unseen()
		plain, c := r.container("plain", ""), r.container("c1", publish8080)
		r.add(plain)
		serve(t, plain)
		in := r.vlanNet(100, "")
		before := testutil.Run(t, r.host, "bridge", "vlan") + r.bridgeAddrs()
		testutil.Run(t, c.ns, "ip", "link", "add", "eth0", "type", "bridge") // ADD fails late
		if _, err := in.cni.AddNetworkList(t.Context(), in.list, c.RuntimeConf); err == nil {
			t.Error("ADD over a link that is there")
		}
		if after := testutil.Run(t, r.host, "bridge", "vlan") + r.bridgeAddrs(); filtering(r) || after != before || len(r.links("vlan")) > 0 {
			t.Errorf("a failed ADD leaves %s %v %t, there was %s", after, r.links("vlan"), filtering(r), before)
		}
		testutil.Run(t, c.ns, "ip", "link", "del", "eth0")
		in.add(c)
		if !filtering(r) {
			t.Error("the bridge filters no VLANs")
		}
		if err := reach(t, r.host, "10.89.0.2", "plain"); err != nil {
			t.Error(err)
		}
		in.del(c)
		r.del(plain)
		in.gc()
		r.gc()
		r.clean()
	})
	t.Run("another's", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "").unseen()
		testutil.Run(t, r.host, "ip", "link", "add", "boxwire0", "up", "type", "bridge")
		in := r.vlanNet(100, "")
		c := r.container("c1", "")
		if _, err := in.cni.AddNetworkList(t.Context(), in.list, c.RuntimeConf); codeOf(err) != 7 || !strings.Contains(err.Error(), "vlan_filtering 1") {
			t.Errorf("ADD: %v", err)
		}
		if filtering(r) || len(r.links("")) != 1 {
			t.Errorf("a failed ADD leaves %v", r.links(""))
		}
		testutil.Run(t, r.host, "ip", "link", "set", "boxwire0", "type", "bridge", "vlan_filtering", "1")
		in.add(c)
		in.del(c)
		in.gc()
		if got := portVLANs(t, r.host, "boxwire0"); got != "1*u" || len(r.links("")) != 1 {
			t.Errorf("at the end there is %v with %q", r.links(""), got)
		}
	})
}

func TestAPolicyAndVLANsExcludeEachOther(t *testing.T) {
	t.Parallel()
	for _, conf := range []string{`"vlan": 100`, `"vlanTrunk": [{"id": 7}]`} {
		r := newRig(t, conf+`, "policy": {"ingress": []}`)
		_, err := r.cni.AddNetworkList(t.Context(), r.list, r.container("c1", "").RuntimeConf)
		if codeOf(err) != 7 || !strings.Contains(err.Error(), "exclude each other") {
			t.Errorf("ADD: %v", err)
		}
		r.clean()
	}
}

func TestAGatewayInAVLANNeedsBridgedPacketsUnseen(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"vlan": 100`)
	if _, err := testutil.Try(t, r.host, "sh", "-c", "echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables"); err != nil {
		t.Skipf("this kernel has no br_netfilter: %v", err)
	}
	_, err := r.cni.AddNetworkList(t.Context(), r.list, r.container("c1", "").RuntimeConf)
	if codeOf(err) != 7 || !strings.Contains(err.Error(), "bridge-nf-call-iptables") {
		t.Errorf("ADD: %v", err)
	}
	r.gc()
	r.clean()
}
