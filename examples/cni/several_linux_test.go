package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/containernetworking/cni/libcni"
)

// second is another network of a host, and the container's attachment to it.
func (r *rig) second(c container, ifname, capabilities, conf string) (*rig, container) {
	r.Helper()
	other := *r
	other.list = r.parse("testnet2", "1.1.0", `"bridge": "boxwire1", "ipam": {"type": "boxwire", "dataDir": "DIR/state",
		"ranges": [[{"subnet": "10.90.0.0/24"}], [{"subnet": "fd90::/64"}]]}`+conf)
	rt := *c.RuntimeConf
	rt.IfName = ifname
	c.RuntimeConf = &rt
	return &other, c
}

type route4 struct {
	Dst, Gateway, Dev string
	Metric            int
}

func (r *rig) defaults(c container, family string) string {
	r.Helper()
	var routes []route4
	testutil.JSON(r, c.ns, &routes, "ip", "-j", family, "route", "show", "default")
	var all []string
	for _, r := range routes {
		all = append(all, fmt.Sprintf("%s %s %d", r.Gateway, r.Dev, r.Metric))
	}
	return strings.Join(all, ", ")
}

func TestASecondDefaultRouteGoesBehindTheFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.container("c1", "")
	r.add(c)
	r2, c2 := r.second(c, "eth1", "", "")
	result := r2.add(c2)
	for family, want := range map[string][2]string{
		"-4": {"10.89.0.1 eth0 0, 10.90.0.1 eth1 1", "10.90.0.1 eth1 1"},
		"-6": {"fd89::1 eth0 1024, fd90::1 eth1 1025", "fd90::1 eth1 1025"},
	} {
		if got := r.defaults(c, family); got != want[0] {
			t.Errorf("the default routes are %s, want %s", got, want[0])
		}
	}
	for _, to := range result.Routes {
		if to.Priority != 1 && to.Priority != 1025 {
			t.Errorf("ADD reports the route %v", to)
		}
	}
	for range 2 {
		if err := r2.check(c2); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
	if err := r.check(c); err != nil {
		t.Errorf("CHECK of the first: %v", err)
	}
	r.del(c)
	if got := r.defaults(c, "-4"); got != "10.90.0.1 eth1 1" {
		t.Errorf("when the first has gone, the default routes are %s", got)
	}
	r.add(c)
	for family, want := range map[string]string{"-4": "10.90.0.1 eth1 1, 10.89.0.1 eth0 2", "-6": "fd90::1 eth1 1025, fd89::1 eth0 1026"} {
		if got := r.defaults(c, family); got != want {
			t.Errorf("when the first has come back, the default routes are %s, want %s", got, want)
		}
	}
	r.del(c)
	if err := r2.check(c2); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	r2.del(c2)
	r.gc()
	r2.gc()
	r.clean()
}

// The same holds for any route, for one with a metric of its own, and of a route that
// something else has made in the container.
func TestOtherRoutesGoBehindTheFirst(t *testing.T) {
	t.Parallel()
	routes := func(priority int) string {
		return fmt.Sprintf(`, "ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "10.90.0.0/24",
			"routes": [{"dst": "0.0.0.0/0", "priority": %d}, {"dst": "198.51.100.0/24"}]}`, priority)
	}
	for _, test := range []struct{ priority, want int }{{0, 101}, {7, 7}, {100, 101}} {
		t.Run(fmt.Sprint(test.priority), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			c := r.container("c1", "")
			testutil.Run(t, c.ns, "ip", "link", "add", "mine", "type", "veth", "peer", "name", "mine2")
			testutil.Run(t, c.ns, "ip", "link", "set", "mine", "up")
			for _, add := range []string{"default dev mine", "default dev mine metric 100", "198.51.100.0/24 dev mine"} {
				testutil.Run(t, c.ns, "ip", append([]string{"route", "add"}, strings.Fields(add)...)...)
			}
			r2, c2 := r.second(c, "eth0", "", routes(test.priority))
			r2.add(c2)
			if got := r.defaults(c, "-4"); !strings.Contains(got, fmt.Sprintf("10.90.0.1 eth0 %d", test.want)) || strings.Count(got, "mine") != 2 {
				t.Errorf("the default routes are %s", got)
			}
			if out := testutil.Run(t, c.ns, "ip", "route", "show", "198.51.100.0/24"); !strings.Contains(out, "via 10.90.0.1 dev eth0 proto static metric 1") {
				t.Errorf("the others are %s", out)
			}
			if err := r2.check(c2); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			r2.del(c2)
			r2.gc()
		})
	}
}

// An engine hands a container's ports to each of its networks.
func TestAPortGoesFromOneAttachmentToTheNext(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	for _, test := range []struct {
		name string
		gone func(*rig, container) // the first attachment
	}{
		{"DEL", func(r *rig, c container) { r.del(c) }},
		{"GC", func(r *rig, c container) {
			if err := r.cni.GCNetworkList(r.Context(), r.list, &libcni.GCArgs{}); err != nil {
				r.Error(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRigOn(t, host.NS, "")
			const ports = `"portMappings": [{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8081, "containerPort": 80, "hostIP": "127.0.0.1"}]`
			c := r.container("web", ports)
			serve(t, c)
			r.add(c)
			r2, c2 := r.second(c, "eth1", ports, "")
			c2.CapabilityArgs = map[string]any{"portMappings": []map[string]any{
				{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8082, "containerPort": 80},
			}}
			r2.add(c2)
			all := func(when string, at ...string) {
				t.Helper()
				for _, a := range at {
					from := outside.NS
					if strings.HasPrefix(a, "127.") {
						from = host.NS
					}
					if err := reach(t, from, a, "web"); err != nil {
						t.Errorf("%s: %v", when, err)
					}
				}
				if err := r2.check(c2); err != nil {
					t.Errorf("%s: CHECK of the second: %v", when, err)
				}
			}
			all("with both", "203.0.113.1:8080", "[2001:db8::1]:8080", "203.0.113.1:8082", "127.0.0.1:8081", "127.0.0.1:8082")
			if err := r.check(c); err != nil {
				t.Errorf("CHECK of the first: %v", err)
			}
			// Another container's is still refused.
			other := r.container("other", publish8080)
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, other.RuntimeConf); codeOf(err) != codePortTaken {
				t.Errorf("another container's ADD: %v", err)
			}
			r.del(other)
			test.gone(r, c)
			all("with the second", "203.0.113.1:8080", "[2001:db8::1]:8080", "203.0.113.1:8082")
			if rules := r.nft("list", "table", "inet", "boxwire-cni"); strings.Contains(rules, ". 8081 ") || strings.Contains(rules, "10.89.0.2 . 80 ") {
				t.Errorf("the first has left ports: %s", rules)
			}
			r2.del(c2)
			r.gc()
			r2.gc()
			if out := testutil.Run(t, host.NS, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
				t.Errorf("rules are left: %s", out)
			}
			// Other tests' hosts may have some.
			if b, err := os.ReadFile(waitingFile); err == nil && strings.Contains(string(b), fmt.Sprintf("%q: %d", "host", host.NS.ID().Ino)) {
				t.Errorf("waiting: %s", b)
			}
		})
	}
}

// An attachment that goes while it waits leaves no note: the next one of that name would take it for
// its own, with another address.
func TestAnAttachmentThatGoesWaitsNoMore(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.container("web", publish8080)
	r.add(c)
	r2, c2 := r.second(c, "eth1", "", "")
	r2.add(c2)
	note := fmt.Sprintf("%q: %d", "host", r.host.ID().Ino)
	if b, err := os.ReadFile(waitingFile); err != nil || !strings.Contains(string(b), note) {
		t.Errorf("with two: %s, %v", b, err)
	}
	r2.del(c2)
	if b, err := os.ReadFile(waitingFile); err == nil && strings.Contains(string(b), note) {
		t.Errorf("without the second: %s", b)
	}
	r.del(c)
	r.gc()
	r2.gc()
	r.clean()
}

// CHECK of an attachment that waits reports when no attachment has its port.
func TestCheckNoticesAPortThatNobodyHas(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.container("web", publish8080)
	r.add(c)
	r2, c2 := r.second(c, "eth1", "", "")
	r2.add(c2)
	if err := r2.check(c2); err != nil {
		t.Error(err)
	}
	testutil.Run(t, r.host, "nft", "delete", "element", "inet", "boxwire-cni", "any4", "{ tcp . 8080 }")
	if err := r2.check(c2); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "8080") {
		t.Errorf("CHECK: %v", err)
	}
	// The one that waits goes first; nothing is handed over then.
	r2.del(c2)
	r.del(c)
	r.gc()
	r2.gc()
	r.clean()
}

// DEL takes a container's ports out of a table that another program has damaged.
func TestDelOfADamagedTable(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.container("web", `"portMappings": [{"hostPort": 8080, "containerPort": 8080, "protocol": "udp"}]`)
	other := r.container("other", `"portMappings": [{"hostPort": 8081, "containerPort": 8081, "protocol": "udp"}]`)
	r.add(c)
	r.add(other)
	testutil.Run(t, r.host, "nft", "flush", "set", "inet", "boxwire-cni", "own4")
	r.del(c)
	if out := r.nft("list", "table", "inet", "boxwire-cni"); strings.Contains(out, ". 8080 ") || !strings.Contains(out, "udp . 8081") {
		t.Errorf("after DEL:\n%s", out)
	}
	if err := r.check(other); err != nil {
		t.Errorf("CHECK of the other container: %v", err)
	}
	r.del(other)
	r.gc()
	r.clean()
}

func TestMappingsOfOneContainerMayOverlap(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, mappings string
		code           uint
		elements       string // of the table: ports of one address, of all, IPv4
	}{
		{"the same twice", `{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8080, "containerPort": 80}`, 0, "0 1"},
		{"all and one", `{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}`, 0, "0 1"},
		{"one and all", `{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}, {"hostPort": 8080, "containerPort": 80, "hostIP": "0.0.0.0"}`, 0, "0 1"},
		{"two and all", `{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}, {"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.2"}, {"hostPort": 8080, "containerPort": 80}`, 0, "0 1"},
		{"of IPv6", `{"hostPort": 8080, "containerPort": 80, "hostIP": "2001:db8::1"}, {"hostPort": 8080, "containerPort": 80, "hostIP": "::"}, {"hostPort": 8080, "containerPort": 80, "hostIP": "2001:db8::2"}`, 0, "0 0"},
		{"two protocols", `{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8080, "containerPort": 80, "protocol": "udp"}`, 0, "0 2"},
		{"two addresses", `{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}, {"hostPort": 8080, "containerPort": 81, "hostIP": "127.0.0.2"}`, 0, "2 0"},
		{"two places", `{"hostPort": 8080, "containerPort": 80}, {"hostPort": 8080, "containerPort": 81}`, 7, "0 0"},
		{"two places, one within", `{"hostPort": 8080, "containerPort": 80, "hostIP": "127.0.0.1"}, {"hostPort": 8080, "containerPort": 81}`, 7, "0 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			c := r.container("c1", `"portMappings": [`+test.mappings+`]`)
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			if test.code == 0 && err != nil || test.code != 0 && codeOf(err) != test.code {
				t.Errorf("ADD: %v", err)
			}
			if test.code == 0 {
				if err := r.check(c); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				one := strings.Count(r.nft("list", "map", "inet", "boxwire-cni", "pub4"), "8080")
				all := strings.Count(r.nft("list", "map", "inet", "boxwire-cni", "any4"), "8080")
				if got := fmt.Sprint(one, " ", all); got != test.elements {
					t.Errorf("there are %s ports, want %s", got, test.elements)
				}
			}
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}
