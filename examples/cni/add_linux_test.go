package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func (r *rig) nft(args ...string) string {
	r.Helper()
	return testutil.Run(r, r.host, "nft", args...)
}

const publish8080 = `"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]`

func TestContainersAreReachedByTheirPortsAndReachEachOther(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	r := newRigOn(t, host.NS, `"mtu": 1400, "dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]}`)
	web := r.container("web", publish8080+`, "mac": "02:00:00:00:00:07", "ips": ["10.89.0.77/24"]`)
	result := r.add(web)
	serve(t, web)
	for _, at := range []string{"10.89.0.77", "127.0.0.1:8080", "10.89.0.1:8080", "[fd89::1]:8080"} {
		if err := reach(t, r.host, at, "web"); err != nil {
			t.Error(err)
		}
	}
	for _, at := range []string{"203.0.113.1:8080", "[2001:db8::1]:8080"} {
		if err := reach(t, outside.NS, at, "web"); err != nil {
			t.Error(err)
		}
	}
	db := r.container("db", "")
	r.add(db)
	for _, at := range []string{"10.89.0.77", addrOf(result, 1).String(), "10.89.0.1:8080"} {
		if strings.Contains(at, ":") && !strings.Contains(at, ".") {
			at = "[" + at + "]"
		}
		if err := reach(t, db.ns, at, "web"); err != nil {
			t.Error(err)
		}
	}
	if len(result.Interfaces) != 3 || result.Interfaces[2].Mac != "02:00:00:00:00:07" || result.Interfaces[2].Mtu != 1400 || result.Interfaces[2].Sandbox != web.NetNS {
		t.Errorf("the interfaces are %v", result.Interfaces)
	}
	if len(result.IPs) != 2 || result.IPs[0].Address.String() != "10.89.0.77/24" || result.IPs[0].Gateway.String() != "10.89.0.1" || *result.IPs[1].Interface != 2 {
		t.Errorf("the addresses are %v", result.IPs)
	}
	if len(result.DNS.Nameservers) != 1 || result.DNS.Search[0] != "example.org" {
		t.Errorf("DNS is %+v", result.DNS)
	}
	for _, c := range []container{web, db} {
		if err := r.check(c); err != nil {
			t.Errorf("CHECK %s: %v", c.ContainerID, err)
		}
		r.del(c)
		r.del(c) // twice is fine
	}
	if veths := r.links("veth"); len(veths) != 1 { // wan0
		t.Errorf("after DEL there is %v", veths)
	}
	if out := r.nft("list", "ruleset"); strings.Contains(out, ". 8080 ") {
		t.Errorf("after DEL the port is published: %s", out)
	}
}

func TestAnAddIsWholeOrUndone(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	web := r.container("web", publish8080)
	r.add(web)
	if _, err := r.cni.AddNetworkList(t.Context(), r.list, web.RuntimeConf); codeOf(err) != codeExists {
		t.Errorf("the second ADD: %v", err)
	}
	if err := r.check(web); err != nil {
		t.Errorf("after the second ADD: %v", err)
	}
	before := r.nft("list", "ruleset")
	other := r.container("other", publish8080)
	_, err := r.cni.AddNetworkList(t.Context(), r.list, other.RuntimeConf)
	if codeOf(err) != codePortTaken || !strings.Contains(err.Error(), "testnet/web/eth0") {
		t.Errorf("the ADD with a port that is taken: %v", err)
	}
	if after := r.nft("list", "ruleset"); after != before {
		t.Errorf("the rules were\n%s\nand are\n%s", before, after)
	}
	if veths := r.links("veth"); len(veths) != 1 {
		t.Errorf("there are %v", veths)
	}
	r.del(web)
	r.del(other)
	r.gc()
	r.clean()
}

func TestALinkOfTheContainersNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	c := r.container("c1", publish8080)
	testutil.Run(t, c.ns, "ip", "link", "add", "eth0", "type", "bridge")
	before := testutil.Run(t, c.ns, "ip", "-d", "link", "show", "eth0")
	if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); codeOf(err) != codeExists || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("ADD: %v", err)
	}
	r.clean()
	r.del(c)
	r.clean()
	if after := testutil.Run(t, c.ns, "ip", "-d", "link", "show", "eth0"); after != before {
		t.Errorf("eth0 was %s and is %s", before, after)
	}
}

func TestAFailedFirstAddLeavesNoBridge(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"ipam": {"type": "boxwire", "subnet": "10.89.0.0/24", "dataDir": "DIR/state", "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}]}`)
	_, err := r.cni.AddNetworkList(t.Context(), r.list, r.container("web", publish8080).RuntimeConf)
	if err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("a route by way of nowhere: %v", err)
	}
	r.clean()
}

func TestADelWithoutTheNamespaceCleansTheRest(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	web := r.container("web", publish8080+`, "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000, "egressRate": 4000000, "egressBurst": 800000}`)
	r.add(web)
	if ifbs := r.links("ifb"); len(ifbs) != 1 {
		t.Fatalf("limits are carried by %v", ifbs)
	}
	if out := testutil.Run(t, r.host, "tc", "qdisc", "show"); !strings.Contains(out, "rate 8Mbit") || !strings.Contains(out, "rate 4Mbit") {
		t.Errorf("tc shows %s", out)
	}
	if err := r.check(web); err != nil {
		t.Error(err)
	}
	for _, l := range r.links("veth") { // the namespace ends in the kernel's own time
		testutil.Run(t, r.host, "ip", "link", "del", l)
	}
	web.NetNS = r.dir + "/gone"
	r.del(web)
	if ifbs := r.links("ifb"); len(ifbs) != 0 {
		t.Errorf("left: %v", ifbs)
	}
	r.gc()
	r.clean()
}

func TestIPAMIsDelegated(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"ipam": {"type": "fakeipam", "notes": "DIR/notes", "answer": {"cniVersion": "1.1.0",
		"ips": [{"address": "10.90.0.5/24", "gateway": "10.90.0.254"}, {"address": "10.91.0.5/24"}, {"address": "fd90::5/64", "gateway": "fd90::1"}],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "gw": "10.90.0.9", "mtu": 1300, "priority": 7}, {"dst": "::/0"}],
		"dns": {"nameservers": ["10.90.0.53"]}}}`)
	c := r.container("c1", "")
	result := r.add(c)
	if got := result.DNS.Nameservers; len(got) != 1 || got[0] != "10.90.0.53" {
		t.Errorf("DNS is %v", got)
	}
	out := testutil.Run(t, c.ns, "ip", "-4", "route")
	for _, want := range []string{"default via 10.90.0.254", "198.51.100.0/24 via 10.90.0.9", "metric 7", "mtu 1300", "10.91.0.0/24 dev eth0"} {
		if !strings.Contains(out, want) {
			t.Errorf("the routes lack %q: %s", want, out)
		}
	}
	if out := testutil.Run(t, r.host, "ip", "addr", "show", "boxwire0"); !strings.Contains(out, "10.90.0.254/24") || !strings.Contains(out, "10.91.0.1/24") || !strings.Contains(out, "fd90::1/64") {
		t.Errorf("the bridge has %s", out)
	}
	if err := r.check(c); err != nil {
		t.Error(err)
	}
	r.gc(c)
	r.del(c)
	r.gc()
	if notes := readFile(t, r.dir+"/notes"); notes != "ADD c1eth0\nCHECK c1eth0\nGC c1eth0\nDEL c1eth0\nGC \n" {
		t.Errorf("IPAM was asked %q", notes)
	}
	r.clean()
}

func TestGCIsNotPassedOnToIPAMThatDoesNotKnowIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"ipam": {"type": "oldipam", "notes": "DIR/notes", "answer": {"cniVersion": "1.0.0", "ips": [{"address": "10.90.0.5/24"}]}}`)
	c := r.container("c1", "")
	r.add(c)
	r.gc(c)
	r.del(c)
	r.gc()
	if notes := readFile(t, r.dir+"/notes"); notes != "ADD c1eth0\nDEL c1eth0\n" {
		t.Errorf("IPAM was asked %q", notes)
	}
	r.clean()
}

func TestIPAMThatFailsIsPassedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"ipam": {"type": "fakeipam", "fail": "ADD"}`)
	c := r.container("c1", "")
	_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
	if codeOf(err) != 11 || !strings.Contains(err.Error(), "no address today") {
		t.Errorf("ADD: %v", err)
	}
	r.clean()
}

func TestANetworkMayBeInternalAndIsolated(t *testing.T) {
	t.Parallel()
	host, outside := netnstest.Host(t)
	r := newRigOn(t, host.NS, `"internal": true, "isolate": true`)
	a, b := r.container("a", publish8080), r.container("b", "")
	ip := addrOf(r.add(a), 0).String()
	r.add(b)
	serve(t, a)
	if err := reach(t, outside.NS, "203.0.113.1:8080", "a"); err != nil {
		t.Errorf("a published port: %v", err)
	}
	if _, err := outside.Listen(t.Context(), "tcp", "203.0.113.2:80"); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{ip + ":80", "203.0.113.2:80"} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if conn, err := b.ns.Dial(ctx, "tcp", at); err == nil {
			conn.Close()
			t.Errorf("%s is reached", at)
		}
		cancel()
	}
	for _, c := range []container{a, b} {
		if err := r.check(c); err != nil {
			t.Error(err)
		}
	}
}
