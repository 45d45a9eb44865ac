package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/containernetworking/cni/libcni"
)

func TestManyComeAndGoTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	n := 50
	if testing.Short() {
		n = 10
	}
	all := make([]container, n)
	for i := range all {
		all[i] = r.container(fmt.Sprint("c", i), fmt.Sprintf(`"portMappings": [{"hostPort": %d, "containerPort": 80}]`, 8000+i))
	}
	together(all, func(c container) { // all ADDs, then all DELs
		if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); err != nil {
			t.Errorf("ADD %s: %v", c.ContainerID, err)
		}
	})
	seen := map[string]bool{}
	for _, c := range all {
		if err := r.check(c); err != nil {
			t.Errorf("CHECK %s: %v", c.ContainerID, err)
		}
		seen[testutil.Run(t, c.ns, "ip", "-o", "-4", "addr", "show", "eth0")] = true
	}
	if len(seen) != n {
		t.Errorf("%d containers have %d addresses", n, len(seen))
	}
	together(all, func(c container) { // DELs and ADDs beside each other
		r.del(c)
		if c.ContainerID > "c3" {
			return
		}
		if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); err != nil {
			t.Errorf("the second ADD %s: %v", c.ContainerID, err)
		}
		if err := r.check(c); err != nil {
			t.Errorf("the second CHECK %s: %v", c.ContainerID, err)
		}
		r.del(c)
	})
	r.gc()
	r.clean()
}

func together(all []container, fn func(container)) {
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() { fn(c) })
	}
	wg.Wait()
}

func TestGCRemovesWhatIsNotValidAndNothingElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	a, b := r.container("a", publish8080), r.container("b", `"portMappings": [{"hostPort": 8081, "containerPort": 80}], "bandwidth": {"egressRate": 8000000, "egressBurst": 800000}`)
	r.add(a)
	r.add(b)
	elsewhere := *r
	elsewhere.list = r.parse("testnet2", "1.1.0", `"bridge": "boxwire1", "ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "10.90.0.0/24"}`)
	c := r.container("c", `"portMappings": [{"hostPort": 8082, "containerPort": 80}]`)
	elsewhere.add(c)
	testutil.Run(t, r.host, "ip", "link", "add", "mine", "type", "veth", "peer", "name", "mine2")
	// Of what libcni knows, it asks for a DEL by itself.
	if err := os.Remove(filepath.Join(r.cache(), "results", "testnet-b-eth0")); err != nil {
		t.Fatal(err)
	}
	r.gc(a)
	if err := r.check(a); err != nil {
		t.Errorf("GC has touched a valid one: %v", err)
	}
	if err := elsewhere.check(c); err != nil {
		t.Errorf("GC has touched another network's: %v", err)
	}
	if veths := r.links("veth"); len(veths) != 4 {
		t.Errorf("there are %v", veths)
	}
	if left := r.nft("list", "ruleset"); strings.Contains(left, ". 8081 ") || len(r.links("ifb")) > 0 {
		t.Errorf("left: %s %v", left, r.links("ifb"))
	}
	r.gc()
	elsewhere.gc()
	testutil.Run(t, r.host, "ip", "link", "del", "mine")
	r.clean()
}

// The table of a host where containers with limits come and go does not grow.
func TestTheRulesAreTheSameAfterManyContainers(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	stays := r.container("stays", "")
	r.add(stays)
	come := func(id string) string {
		c := r.container(id, publish8080+limited)
		r.add(c)
		r.del(c)
		return r.nft("--stateless", "list", "ruleset")
	}
	before := come("first")
	for i := range 4 {
		if after := come(fmt.Sprint("c", i)); len(after) != len(before) { // in whatever order
			t.Fatalf("the rules were\n%s\nand are\n%s", before, after)
		}
	}
	r.del(stays)
	r.gc()
	r.clean()
}

func TestBadInputIsRefusedWithACode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		conf, capabilities string
		code               uint // 0: it works
		says               string
	}{
		{`"color": "blue"`, "", 0, ""},
		{`"isGateway": "yes"`, "", 6, "isGateway"},
		{`"mtu": "big"`, "", 6, "mtu"},
		{`"mtu": 5`, "", 7, "68 to 65535"},
		{`"bridge": "a/b"`, "", 7, "a/b"},
		{`"bridge": "thisnameistoolong"`, "", 7, "1 to 15"},
		{`"bridge": "veth0"`, "", 7, "kind veth"},
		{`"bridge": "lo"`, "", 7, "no bridge"},
		{`"ipam": {"type": "boxwire"}`, "", 7, "neither subnet nor ranges"},
		{`"ipam": {"type": "boxwire", "subnet": 7}`, "", 6, "subnet"},
		{`"ipam": {"type": "boxwire", "subnet": "10.0.0.0/33"}`, "", 6, "33"},
		{`"ipam": {"type": "boxwire", "subnet": "10.0.0.0/31"}`, "", 7, "no room"},
		{`"ipam": {"type": "boxwire", "subnet": "10.0.0.7/24"}`, "", 7, "the subnet is 10.0.0.0/24"},
		{`"ipam": {"type": "boxwire", "ranges": [[{"subnet": "fd89::7/64"}]]}`, "", 7, "the subnet is fd89::/64"},
		{`"ipam": {"type": "boxwire", "subnet": "10.0.0.0/24", "gateway": "10.1.0.1"}`, "", 7, "not in"},
		{`"ipam": {"type": "boxwire", "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}`, "", 7, "ends before"},
		{`"ipam": {"type": "nosuchplugin"}`, "", 999, "nosuchplugin"},
		{"", `"ips": ["10.99.0.1"]`, 7, "10.99.0.1"},
		{"", `"ips": ["10.89.0.1"]`, 7, "10.89.0.1"},
		{"", `"ips": ["nonsense"]`, 7, "nonsense"},
		{"", `"mac": "01:00:5e:00:00:01"`, 7, "unicast"},
		{"", `"portMappings": [{"hostPort": 0, "containerPort": 80}]`, 7, "hostPort"},
		{"", `"portMappings": [{"hostPort": 80, "containerPort": 70000}]`, 7, "70000"},
		{"", `"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]`, 7, "icmp"},
		{"", `"portMappings": [{"hostPort": 80, "containerPort": 80, "hostIP": "localhost"}]`, 7, "localhost"},
		{"", `"portMappings": "8080:80"`, 6, "portMappings"},
		{"", `"bandwidth": {"ingressRate": 1}`, 7, "out of range"},
		{"", `"bandwidth": {"ingressBurst": 8000}`, 7, "burst"},
	} {
		t.Run(test.conf+test.capabilities, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.conf)
			testutil.Run(t, r.host, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
			c := r.container("c1", test.capabilities)
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			if test.code == 0 {
				if err != nil {
					t.Error(err)
				}
				r.del(c)
				r.gc()
			} else if codeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("ADD: code %d: %v, want %d, %q", codeOf(err), err, test.code, test.says)
			}
			testutil.Run(t, r.host, "ip", "link", "del", "veth0")
			r.clean()
		})
	}
}

func TestBadNamespacesAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	for _, path := range []string{filepath.Join(r.dir, "nowhere"), "/etc/passwd", "/proc/self/ns/uts", "/proc/self/ns/net"} {
		_, err := r.cni.AddNetworkList(t.Context(), r.list, &libcni.RuntimeConf{ContainerID: "c1", IfName: "eth0", NetNS: path})
		if codeOf(err) != 8 {
			t.Errorf("%s: code %d: %v", path, codeOf(err), err)
		}
	}
	r.clean()
}

func TestASubnetThatIsFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, `"ipam": {"type": "boxwire", "subnet": "10.89.0.0/29", "dataDir": "DIR/state"}`)
	if err := r.cni.GetStatusNetworkList(t.Context(), r.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	var all []container
	for i := range 5 {
		all = append(all, r.container(fmt.Sprint("c", i), ""))
		r.add(all[i])
	}
	late := r.container("late", "")
	if _, err := r.cni.AddNetworkList(t.Context(), r.list, late.RuntimeConf); codeOf(err) != 11 || !strings.Contains(err.Error(), "10.89.0.0/29") {
		t.Errorf("ADD: %v", err)
	}
	if err := r.cni.GetStatusNetworkList(t.Context(), r.list); codeOf(err) != 50 {
		t.Errorf("STATUS: %v", err)
	}
	// A container that has ended without DEL makes room, and so does a restart
	// of the machine.
	testutil.Run(t, r.host, "ip", "link", "del", attachment{"testnet", "c3", "eth0"}.link())
	if got := addrOf(r.add(late), 0).String(); got != "10.89.0.5" {
		t.Errorf("the late one has %s", got)
	}
	path := filepath.Join(r.dir, "state", "testnet.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), boot, "another boot")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.cni.GetStatusNetworkList(t.Context(), r.list); err != nil {
		t.Errorf("STATUS after a restart: %v", err)
	}
	for _, c := range append(all, late) {
		r.del(c)
	}
	r.gc()
	r.clean()
}

func TestVersionsFrom031(t *testing.T) {
	t.Parallel()
	r := newRigOn(t, netnstest.New(t), "")
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		r.list = r.parse("testnet", v, "")
		c := r.container("c"+v, publish8080)
		res, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
		if err != nil || res.Version() != v {
			t.Errorf("%s: %v, %v", v, res, err)
		}
		r.del(c)
	}
	info, err := r.cni.GetVersionInfo(t.Context(), "boxwire")
	if err != nil || strings.Join(info.SupportedVersions(), " ") != "0.3.1 0.4.0 1.0.0 1.1.0" {
		t.Errorf("VERSION: %v, %v", info, err)
	}
}
