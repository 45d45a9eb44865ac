package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/containernetworking/cni/libcni"
)

// The directory of the reference plugins is in BOXWIRE_CNI_PLUGINS.
func TestOneChainWithReferencePlugins(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"host-local", "tuning"} {
		if _, err := os.Stat(filepath.Join(os.Getenv("BOXWIRE_CNI_PLUGINS"), name)); err != nil {
			t.Skipf("BOXWIRE_CNI_PLUGINS names no directory with %s: %v", name, err)
		}
	}
	r := newRig(t, "")
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "testnet", "plugins": [
		{"type": "boxwire", "isDefaultGateway": true, "ipMasq": true, "capabilities": {"portMappings": true},
		 "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.89.0.0/24"}], [{"subnet": "fd89::/64"}]]}},
		{"type": "tuning", "dataDir": %q, "sysctl": {"net.ipv4.conf.all.log_martians": "1"}, "mtu": 1450}]}`,
		filepath.Join(r.dir, "host-local"), filepath.Join(r.dir, "tuning")))
	if err != nil {
		t.Fatal(err)
	}
	r.list = list
	c := r.container("c1", publish8080)
	result := r.add(c)
	if got := result.IPs[0].Address.String(); got != "10.89.0.2/24" {
		t.Errorf("host-local has assigned %s", got)
	}
	if out := testutil.Run(t, c.ns, "ip", "link", "show", "eth0"); !strings.Contains(out, "mtu 1450") {
		t.Errorf("tuning has not been at it: %s", out)
	}
	serve(t, c)
	if err := reach(t, r.host, "10.89.0.1:8080", "c1"); err != nil {
		t.Error(err)
	}
	if err := r.check(c); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	r.del(c)
	r.del(c)
	left, err := filepath.Glob(filepath.Join(r.dir, "host-local", "testnet", "10.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("host-local still has %v, %v", left, err)
	}
}

// A port that only the second network of a container publishes reaches outside visitors
// where the answers leave by that network.
func TestASecondNetworksPortWithSourceBasedRouting(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(filepath.Join(os.Getenv("BOXWIRE_CNI_PLUGINS"), "sbr")); err != nil {
		t.Skipf("BOXWIRE_CNI_PLUGINS names no directory with sbr: %v", err)
	}
	host, outside := netnstest.Host(t)
	r := newRigOn(t, host.NS, "")
	c := r.container("web", "")
	serve(t, c)
	r.add(c)
	r2, c2 := r.second(c, "eth1", "", "")
	c2.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": 8082, "containerPort": 80}}}
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": "testnet2", "plugins": [
		{"type": "boxwire", "bridge": "boxwire1", "isDefaultGateway": true, "ipMasq": true, "capabilities": {"portMappings": true},
		 "ipam": {"type": "boxwire", "dataDir": %q, "ranges": [[{"subnet": "10.90.0.0/24"}], [{"subnet": "fd90::/64"}]]}},
		{"type": "sbr"}]}`, filepath.Join(r.dir, "state")))
	if err != nil {
		t.Fatal(err)
	}
	r2.list = list
	r2.add(c2)
	for _, at := range []string{"203.0.113.1:8082", "[2001:db8::1]:8082"} {
		if err := reach(t, outside.NS, at, "web"); err != nil {
			t.Error(err)
		}
	}
	// CHECK has no part in it: sbr moves the routes that ADD has reported.
	r2.del(c2)
	r.del(c)
	r.gc()
}
