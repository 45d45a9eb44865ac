package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

const policed = `"policy": {"egress": ["tcp 203.0.113.0/24 port 443", "tcp 2001:db8::/64 port 443", "tcp host port 80"], "ingress": [], "refuse": true}`

// open answers TCP connections to ports of a namespace by closing them.
func open(t *testing.T, ns *netns.NS, ports ...int) {
	t.Helper()
	for _, p := range ports {
		ln, err := ns.Listen(t.Context(), "tcp", fmt.Sprint(":", p))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
}

// wantReach compares which TCP addresses are reached from a namespace.
func wantReach(t *testing.T, from *netns.NS, want map[string]bool) {
	t.Helper()
	for to, reached := range want {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := from.Dial(ctx, "tcp", to)
		cancel()
		if err == nil {
			c.Close()
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: no answer, and the policy refuses", to)
		}
		if (err == nil) != reached {
			t.Errorf("%s is reached: %t (%v), want %t", to, err == nil, err, reached)
		}
	}
}

func TestAPolicyIsWhatAContainerReaches(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	host, outside := netnstest.Host(t)
	r := newRigOn(t, host.NS, policed)
	open(t, host.NS, 80, 81)
	open(t, outside.NS, 443, 80)
	c := r.container("c1", publish8080)
	r.add(c)
	serve(t, c)
	allowed := map[string]bool{
		"203.0.113.2:443": true, "[2001:db8::2]:443": true, "10.89.0.1:80": true, "[fd89::1]:80": true, "203.0.113.1:80": true,
		"203.0.113.2:80": false, "[2001:db8::2]:80": false, "10.89.0.1:81": false, "[fd89::1]:81": false,
	}
	wantReach(t, c.ns, allowed)
	// A published port is no way around; the host itself reaches it.
	visits := map[string]bool{"203.0.113.1:8080": false, "[2001:db8::1]:8080": false}
	wantReach(t, outside.NS, visits)
	wantReach(t, host.NS, map[string]bool{"10.89.0.2:80": true, "[fd89::2]:80": true})
	if err := r.check(c); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	out := r.nft("list", "table", "inet", table)
	for _, owned := range []string{"testnet/c1/eth0", "tcp 203.0.113.0/24 port 443"} {
		if !strings.Contains(out, owned) {
			t.Errorf("the table has no %q", owned)
		}
	}
	// CHECK notices what is gone, and DEL takes away what is left.
	for _, damage := range []string{"set inet boxwire-cni policy4", "set inet boxwire-cni ingress6", "map inet boxwire-cni out4"} {
		testutil.Run(t, host.NS, "nft", strings.Fields("flush "+damage)...)
		if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "polic") && !strings.Contains(err.Error(), "out4") {
			t.Errorf("CHECK after flush of %s: %v", damage, err)
		}
		r.del(c)
		r.add(c)
		if err := r.check(c); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
	r.del(c)
	r.gone(t)

	// Each of these is let through when its rule is taken away.
	r.configure("")
	r.add(c)
	for to := range allowed {
		allowed[to] = true
	}
	for at := range visits {
		visits[at] = true
	}
	wantReach(t, c.ns, allowed)
	wantReach(t, outside.NS, visits)
	r.del(c)
	r.gc()
	testutil.Run(t, host.NS, "ip", "link", "del", "wan0")
	r.clean()
}

// Containers of one bridge reach each other as their policies say, with br_netfilter and without.
func TestAPolicyJudgesSiblings(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, seen := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables "+seen, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, `"policy": {"egress": ["tcp 10.89.0.3 port 80", "tcp fd89::3 port 80", "tcp 10.89.0.2"], "ingress": ["tcp 10.89.0.4 port 81"], "refuse": true}`)
			for _, family := range []string{"iptables", "ip6tables"} {
				if err := r.host.SetSysctl(t.Context(), "net.bridge.bridge-nf-call-"+family, seen); err != nil {
					t.Skip(err)
				}
			}
			a := r.container("a", "")
			r.add(a)
			open(t, a.ns, 80, 81)
			unlimited := *r
			unlimited.configure("")
			b, c := r.container("b", ""), r.container("c", "")
			unlimited.add(b)
			r.add(c)
			for _, other := range []container{b, c} {
				open(t, other.ns, 80, 81)
			}
			wantReach(t, a.ns, map[string]bool{
				"10.89.0.3:80": true, "[fd89::3]:80": true, "10.89.0.3:81": false, "[fd89::3]:81": false,
				"10.89.0.4:80": false, "10.89.0.4:81": false, "[fd89::4]:80": false,
			})
			wantReach(t, c.ns, map[string]bool{"10.89.0.2:81": true, "10.89.0.2:80": false, "[fd89::2]:81": false})
			wantReach(t, b.ns, map[string]bool{"10.89.0.2:80": false, "10.89.0.2:81": false, "[fd89::2]:80": false, "10.89.0.4:80": false})
			for _, each := range []container{a, c} {
				if err := r.check(each); err != nil {
					t.Errorf("CHECK: %v", err)
				}
			}
			if out := r.nft("list", "table", "bridge", table); !strings.Contains(out, attachment{"testnet", "a", "eth0"}.link()) {
				t.Errorf("no guard: %s", out)
			}
			testutil.Run(t, r.host, "nft", "flush", "table", "bridge", table)
			if err := r.check(a); codeOf(err) != codeDrift {
				t.Errorf("CHECK without the guards' rules: %v", err)
			}
			for _, each := range []container{a, c} {
				r.del(each)
			}
			unlimited.del(b)
			r.gc()
			r.clean()
		})
	}
}

// policies are the owners of the policies of the host.
func (r *rig) policies() (owners []string) {
	r.Helper()
	gw, err := nat.Open(r.Context(), r.host, nat.Options{Name: table, NoReserve: true})
	if err != nil {
		r.Fatal(err)
	}
	defer gw.Close()
	all, err := gw.ListPolicies(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	for _, p := range all {
		owners = append(owners, p.Owner)
	}
	return owners
}

// gone fails the test if there is a policy.
func (r *rig) gone(t *testing.T) {
	t.Helper()
	if left := r.policies(); len(left) > 0 {
		t.Errorf("policies are left: %v", left)
	}
	for _, set := range []string{"policy4", "policy6", "egress4", "ingress6"} {
		if out := r.nft("list", "set", "inet", table, set); strings.Contains(out, "elements") {
			t.Errorf("elements are left: %s", out)
		}
	}
}

// A container that sends all the while reaches nothing that its policy denies, from before its ADD
// to after its DEL.
func TestAContainerHasNoMomentWithoutItsPolicy(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	host, outside := netnstest.Host(t)
	const denied, allowed, hosts = 1, 2, 3
	var got [4]atomic.Int64
	// The host is reached without the routes, which come after the link.
	for port, ns := range map[int]*netns.NS{denied: outside.NS, allowed: outside.NS, hosts: host.NS} {
		conn, err := ns.ListenPacket(t.Context(), "udp", fmt.Sprint(":", port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		go func() {
			for {
				if _, _, err := conn.ReadFrom(make([]byte, 16)); err != nil {
					return
				}
				got[port].Add(1)
			}
		}()
	}
	r := newRigOn(t, host.NS, `"policy": {"egress": ["udp 203.0.113.2 port 2", "udp 2001:db8::2 port 2"]}`)
	c := r.container("c1", "")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			for _, to := range []string{"203.0.113.2:1", "[2001:db8::2]:1", "203.0.113.2:2", "[2001:db8::2]:2", "10.89.0.1:3", "[fd89::1]:3"} {
				if conn, err := c.ns.Dial(ctx, "udp", to); err == nil {
					conn.Write([]byte("x"))
					conn.Close()
				}
			}
		}
	}()
	defer func() { cancel(); <-ended }()
	cycle := func(port int) {
		t.Helper()
		before := got[port].Load()
		r.add(c)
		for deadline := time.Now().Add(10 * time.Second); got[port].Load() < before+4; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("nothing comes to port %d", port)
			}
		}
		r.del(c)
	}
	for range rounds {
		cycle(allowed)
	}
	for _, port := range []int{denied, hosts} {
		if n := got[port].Load(); n > 0 {
			t.Errorf("%d packets got through to port %d, which the policy denies", n, port)
		}
	}
	r.configure("") // the same packets, without a policy
	cycle(denied)
	cycle(hosts)
}

func TestThePolicyOfAContainerReplacesThatOfTheNetwork(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	open(t, outside.NS, 80, 443, 8443)
	for i, test := range []struct {
		args, capability string
		reached          string
	}{
		{"", "", "203.0.113.2:443"},
		{`, "args": {"cni": {"policy": {"refuse": true, "egress": ["tcp 203.0.113.2 port 80"]}}}`, "", "203.0.113.2:80"},
		{`, "args": {"cni": {"policy": {"refuse": true, "egress": ["nonsense"]}}}`, `"policy": {"refuse": true, "egress": ["tcp 203.0.113.2 port 8443"]}`, "203.0.113.2:8443"},
	} {
		r := newRigOn(t, host.NS, `"capabilities": {"policy": true}, `+policed+test.args)
		c := r.container(fmt.Sprint("c", i), test.capability)
		r.add(c)
		want := map[string]bool{"203.0.113.2:80": false, "203.0.113.2:443": false, "203.0.113.2:8443": false}
		want[test.reached] = true
		wantReach(t, c.ns, want)
		if err := r.check(c); err != nil {
			t.Errorf("CHECK: %v", err)
		}
		r.del(c)
		r.gone(t)
		r.gc()
	}
}

// A policy goes with its container, in whatever way that goes.
func TestPoliciesOfContainersThatAreGone(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	open(t, outside.NS, 80)
	r := newRigOn(t, host.NS, policed)
	stays, dies := r.container("stays", ""), r.container("dies", "")
	r.add(stays)
	r.add(dies)
	elsewhere := *r
	elsewhere.list = r.parse("testnet2", "1.1.0", `"bridge": "boxwire1", "ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "10.90.0.0/24"}, "policy": {"egress": []}`)
	other := r.container("other", "")
	elsewhere.add(other)
	if got := r.policies(); len(got) != 3 {
		t.Fatalf("the policies are of %v", got)
	}
	testutil.Run(t, host.NS, "ip", "link", "del", attachment{"testnet", "dies", "eth0"}.link())
	if err := os.Remove(filepath.Join(r.cache(), "results", "testnet-dies-eth0")); err != nil {
		t.Fatal(err)
	}
	// The next container has its address, and not its policy.
	unlimited := *r
	unlimited.configure("")
	next := r.container("next", `"ips": ["10.89.0.3"]`)
	if got := addrOf(unlimited.add(next), 0).String(); got != "10.89.0.3" {
		t.Fatalf("the next container has %s", got)
	}
	wantReach(t, next.ns, map[string]bool{"203.0.113.2:80": true})
	if got := strings.Join(r.policies(), " "); got != "testnet/stays/eth0 testnet2/other/eth0" {
		t.Errorf("the policies are of %s", got)
	}
	unlimited.del(next)
	r.add(dies)
	testutil.Run(t, host.NS, "ip", "link", "del", attachment{"testnet", "dies", "eth0"}.link())
	os.Remove(filepath.Join(r.cache(), "results", "testnet-dies-eth0"))
	r.gc(stays)
	if got := strings.Join(r.policies(), " "); got != "testnet/stays/eth0 testnet2/other/eth0" {
		t.Errorf("after GC, the policies are of %s", got)
	}
	if err := r.check(stays); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	r.gc()
	elsewhere.gc()
}

func TestABadPolicyIsRefusedByName(t *testing.T) {
	t.Parallel()
	const only4 = `, "ipam": {"type": "boxwire", "subnet": "10.89.0.0/24", "dataDir": "DIR/state"}`
	for _, test := range []struct {
		policy string
		code   uint
		says   string
	}{
		{`"policy": 7`, 7, "policy is no policy; 7: an object"},
		{`"policy": {}`, 7, "policy has neither egress nor ingress"},
		{`"policy": {"refuse": true}`, 7, "neither egress nor ingress"},
		{`"policy": {"egress": null}`, 7, "policy.egress is no list of rules"},
		{`"policy": {"egress": [7]}`, 7, "policy.egress is no list of rules"},
		{`"policy": {"ingress": "tcp"}`, 7, "policy.ingress is no list of rules"},
		{`"policy": {"egress": [], "refuse": "yes"}`, 7, "policy.refuse is neither true nor false"},
		{`"policy": {"egress": [], "Ingress": []}`, 2, "policy.Ingress: [] is not supported"},
		{`"policy": {"egress": [], "ingres": ["tcp"]}`, 2, `policy.ingres: ["tcp"] is not supported`},
		{`"policy": {"egress": ["tcp host port 53", "tcp 10.0.0.0/8 prot 53"]}`, 7, `policy.egress[1]: the rule "tcp 10.0.0.0/8 prot 53" is refused`},
		{`"policy": {"egress": ["tcp example.org port 443"]}`, 7, "names are not resolved here"},
		{`"policy": {"ingress": ["10.0.0.1/8"]}`, 7, `policy.ingress[0]: the rule "10.0.0.1/8" is refused`},
		{`"policy": {"ingress": [""]}`, 7, `policy.ingress[0]: the rule "" is refused`},
		{`"policy": {"ingress": ["tcp host port 80"]}`, 7, `policy.ingress[0]: the rule "tcp host port 80" is refused; the host`},
		{`"policy": {"egress": ["tcp port 1", "fd00::/8"]}` + only4, 7, `policy.egress[1]: the rule "fd00::/8" is refused; the container has no address of that family`},
		{`"args": {"cni": {"policy": {"egress": ["x"]}}}`, 7, `args.cni.policy.egress[0]: the rule "x"`},
		{`"policy": {"egress": []}, "ipam": {}`, 7, "policy needs ipam"},
		{`"policy": {"egress": []}, "isGateway": false, "isDefaultGateway": false, "ipMasq": false`, 7, "policy needs isGateway or ipMasq"},
	} {
		t.Run(test.policy, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.policy)
			c := r.container("c1", "")
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			if codeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("ADD: code %d: %v, want %d, %q", codeOf(err), err, test.code, test.says)
			}
			r.del(c) // goes whatever the policy is
			r.gc()
			r.clean()
		})
	}
}
