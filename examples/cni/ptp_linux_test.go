package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

const ptp = `"mode": "ptp", "isGateway": false, "isDefaultGateway": false, "ipam": {"type": "boxwire", "dataDir": "DIR/state",
	"ranges": [[{"subnet": "10.89.0.0/24"}], [{"subnet": "fd89::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`

func TestAPairWithoutABridge(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	r := newRigOn(t, host.NS, ptp+`, "mtu": 1400`)
	a, b := r.container("a", publish8080+limited), r.container("b", "")
	result := r.add(a)
	r.add(b)
	serve(t, a)
	serve(t, b)
	port := attachment{"testnet", "a", "eth0"}.link()
	if f := result.Interfaces; len(f) != 2 || f[0].Name != port || f[1].Sandbox != a.NetNS || f[1].Mac != macOf(t, a.ns).String() || f[1].Mtu != 1400 || *result.IPs[0].Interface != 1 {
		t.Errorf("the result is %v", result)
	}
	for _, want := range []string{"default via 10.89.0.1 dev eth0", "10.89.0.0/24 via 10.89.0.1 dev eth0 proto static src 10.89.0.2", "10.89.0.1 dev eth0 proto static scope link src 10.89.0.2"} {
		if out := testutil.Run(t, a.ns, "ip", "-4", "route"); !strings.Contains(out, want) {
			t.Errorf("the routes lack %q: %s", want, out)
		}
	}
	for _, want := range []string{"default via fd89::1 dev eth0", "fd89::/64 via fd89::1 dev eth0", "fd89::1 dev eth0"} {
		if out := testutil.Run(t, a.ns, "ip", "-6", "route"); !strings.Contains(out, want) {
			t.Errorf("the routes lack %q: %s", want, out)
		}
	}
	if out := testutil.Run(t, r.host, "ip", "-o", "addr", "show", port); !strings.Contains(out, "10.89.0.1/32") || !strings.Contains(out, "fd89::1/128") {
		t.Errorf("the host's end has %s", out)
	}
	for _, at := range []string{"10.89.0.2", "[fd89::2]", "127.0.0.1:8080"} {
		if err := reach(t, r.host, at, "a"); err != nil {
			t.Error(err)
		}
	}
	for _, at := range []string{"10.89.0.2", "[fd89::2]", "203.0.113.1:8080"} { // the sibling, by the host
		if err := reach(t, b.ns, at, "a"); err != nil {
			t.Error(err)
		}
	}
	if err := reach(t, a.ns, "10.89.0.3", "b"); err != nil {
		t.Error(err)
	}
	for _, at := range []string{"203.0.113.1:8080", "[2001:db8::1]:8080"} {
		if err := reach(t, outside.NS, at, "a"); err != nil {
			t.Error(err)
		}
	}
	ln, err := outside.Listen(t.Context(), "tcp", "203.0.113.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := a.ns.Dial(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatalf("the way out: %v", err)
	}
	defer conn.Close()
	seen, err := ln.Accept()
	if err != nil || !strings.HasPrefix(seen.RemoteAddr().String(), "203.0.113.1:") {
		t.Errorf("the outside sees %v, %v", seen, err)
	}
	seen.Close()
	for _, c := range []container{a, b} {
		if err := r.check(c); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
	if err := r.cni.GetStatusNetworkList(t.Context(), r.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	r.del(a)
	r.del(a)
	if err := reach(t, r.host, "10.89.0.3", "b"); err != nil {
		t.Errorf("the other after DEL: %v", err)
	}
	if err := r.check(b); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	testutil.Run(t, r.host, "ip", "link", "del", attachment{"testnet", "b", "eth0"}.link()) // without DEL
	late := r.container("late", `"ips": ["10.89.0.3"]`)
	r.add(late)
	r.gc(late)
	if err := r.check(late); err != nil {
		t.Errorf("CHECK after GC: %v", err)
	}
	late.NetNS = r.dir + "/gone" // and so is its link, some time later
	r.del(late)
	r.gc()
	if veths := r.links("veth"); len(veths) != 1 || len(r.links("ifb")) > 0 {
		t.Errorf("at the end there is %v %v", veths, r.links("ifb"))
	}
	if out := r.nft("list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("rules are left: %s", out)
	}
}

func TestPairsMayBeIsolatedAndHaveAPolicy(t *testing.T) {
	t.Parallel()
	for _, conf := range []string{`"isolate": true`, `"policy": {"egress": ["tcp 192.0.2.0/24 port 80"]}`, `"policy": {"ingress": ["tcp 10.89.0.99 port 80"]}`} {
		t.Run(conf, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ptp+", "+conf)
			a, b := r.container("a", ""), r.container("b", "")
			r.add(a)
			r.add(b)
			serve(t, a)
			if err := reach(t, r.host, "10.89.0.2", "a"); err != nil {
				t.Error(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if conn, err := b.ns.Dial(ctx, "tcp", "10.89.0.2:80"); err == nil {
				conn.Close()
				t.Error("a sibling reaches it")
			}
			for _, c := range []container{a, b} {
				if err := r.check(c); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				r.del(c)
			}
			r.gc()
			r.clean()
		})
	}
}

func TestCheckNoticesWhatIsGoneOfAPair(t *testing.T) {
	t.Parallel()
	port := attachment{"testnet", "c1", "eth0"}.link()
	for _, test := range []struct{ name, says, where, remove string }{
		{"the gateway's address", "10.89.0.1/32", "host", "ip addr del 10.89.0.1/32 dev " + port},
		{"the route to the container", "route to 10.89.0.2", "host", "ip route del 10.89.0.2/32 dev " + port},
		{"the pair", "is gone", "host", "ip link del " + port},
		{"the host's end is down", "is down", "host", "ip link set " + port + " down"},
		{"the route to the gateway", "route", "box", "ip route flush 10.89.0.1/32"},
		{"the route to the subnet", "route", "box", "ip route del 10.89.0.0/24"},
		{"the network", "network", "host", "nft delete element inet boxwire-cni ifs '{ " + port + " }'"},
		{"the table", "is gone", "host", "nft flush ruleset"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, ptp)
			c := r.container("c1", "")
			r.add(c)
			ns := r.host
			if test.where == "box" {
				ns = c.ns
			}
			if out, err := ns.Command(t.Context(), "sh", "-c", test.remove).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", test.remove, err, out)
			}
			if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), test.says) {
				t.Errorf("CHECK says %v, want %q", err, test.says)
			}
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}
