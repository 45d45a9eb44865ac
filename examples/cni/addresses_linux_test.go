package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func TestAddressesThatSomebodyHasAreNotAssigned(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	testutil.Run(t, r.host, "ip", "link", "add", "boxwire0", "up", "type", "bridge")
	for _, a := range []string{"10.89.0.2/24", "10.89.0.3/32", "fd89::2/64"} {
		testutil.Run(t, r.host, "ip", "addr", "add", a, "dev", "boxwire0", "nodad")
	}
	testutil.Run(t, r.host, "ip", "addr", "add", "10.89.0.4/32", "dev", "lo") // a virtual service's, say
	c := r.container("c1", "")
	result := r.add(c)
	if got := addrOf(result, 0).String() + " " + addrOf(result, 1).String(); got != "10.89.0.5 fd89::3" {
		t.Errorf("the container has %s", got)
	}
	for _, ip := range []string{"10.89.0.2", "10.89.0.4", "fd89::2", "10.89.0.5"} {
		wants := r.container("wants"+strings.ReplaceAll(ip, ":", "-"), fmt.Sprintf(`"ips": [%q]`, ip))
		if _, err := r.cni.AddNetworkList(t.Context(), r.list, wants.RuntimeConf); codeOf(err) != 7 || !strings.Contains(err.Error(), ip) {
			t.Errorf("ADD with %s: %v", ip, err)
		}
	}
	r.del(c)
}

// Two networks may share a bridge and a subnet, not an address.
func TestNetworksOnOneBridgeShareTheAddresses(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	a := r.container("a", "")
	r.add(a)
	other := *r
	other.list = r.parse("testnet2", "1.1.0", "")
	b := r.container("b", "")
	result := other.add(b)
	if got := addrOf(result, 0).String() + " " + addrOf(result, 1).String(); got != "10.89.0.3 fd89::3" {
		t.Errorf("the second has %s", got)
	}
	c := r.container("c", `"ips": ["10.89.0.2"]`)
	if _, err := other.cni.AddNetworkList(t.Context(), other.list, c.RuntimeConf); codeOf(err) != 7 || !strings.Contains(err.Error(), "testnet/a/eth0") {
		t.Errorf("ADD with an address of the first: %v", err)
	}
	other.del(c)
	r.del(a)
	if got := addrOf(other.add(c), 0).String(); got != "10.89.0.2" { // it is free now
		t.Errorf("the third has %s", got)
	}
	other.del(b)
	other.del(c)
	r.gc()
	other.gc()
	r.clean()
}

func TestAHardwareAddressIsNobodyElses(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	a := r.container("a", `"mac": "02:00:00:00:00:07"`)
	r.add(a)
	random := r.container("random", "")
	mac := r.add(random).Interfaces[2].Mac
	var links []struct{ Address string }
	testutil.JSON(t, r.host, &links, "ip", "-j", "link", "show", "boxwire0")
	bridge := links[0].Address
	testutil.JSON(t, r.host, &links, "ip", "-j", "link", "show", attachment{"testnet", "a", "eth0"}.link())
	for who, mac := range map[string]string{
		"testnet/a/eth0": "02:00:00:00:00:07", "testnet/random/eth0": mac, "boxwire0": bridge, "the bridge's port": links[0].Address,
	} {
		c := r.container("c"+strings.ReplaceAll(mac, ":", ""), fmt.Sprintf(`"mac": %q`, mac))
		if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); codeOf(err) != 7 || !strings.Contains(err.Error(), who) {
			t.Errorf("ADD with the hardware address of %s: %v", who, err)
		}
	}
	r.del(a)
	again := r.container("again", `"mac": "02:00:00:00:00:07"`)
	r.add(again)
	r.del(again)
	r.del(random)
	r.gc()
	r.clean()
}

func TestRangesDoNotOverlapNorLieInTheHostsNetwork(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		ranges string
		code   uint // 0: it works
		says   string
	}{
		{`[[{"subnet": "10.89.0.0/24"}], [{"subnet": "10.89.0.0/24"}]]`, 7, "ranges overlap"},
		{`[[{"subnet": "10.89.0.0/24", "rangeEnd": "10.89.0.100"}], [{"subnet": "10.89.0.0/24", "rangeStart": "10.89.0.100"}]]`, 7, "ranges overlap"},
		{`[[{"subnet": "10.89.0.0/24"}, {"subnet": "10.89.0.0/24", "rangeStart": "10.89.0.9"}]]`, 7, "ranges overlap"},
		{`[[{"subnet": "fd89::/64"}], [{"subnet": "fd89::/64", "rangeStart": "fd89::9"}]]`, 7, "ranges overlap"},
		{`[[{"subnet": "10.89.0.0/24", "rangeEnd": "10.89.0.99"}], [{"subnet": "10.89.0.0/24", "rangeStart": "10.89.0.100"}]]`, 0, ""},
		{`[[{"subnet": "203.0.113.0/24"}]]`, 7, "203.0.113.1/24 of wan0"},
		{`[[{"subnet": "203.0.0.0/16"}]]`, 7, "of wan0"},
		{`[[{"subnet": "203.0.113.128/25"}]]`, 7, "of wan0"},
		{`[[{"subnet": "10.89.0.0/24"}], [{"subnet": "2001:db8::/64"}]]`, 7, "of wan0"},
		{`[[{"subnet": "127.0.0.0/24"}]]`, 7, "of lo"},
	} {
		t.Run(test.ranges, func(t *testing.T) {
			t.Parallel()
			host, _ := netnstest.Host(t)
			r := newRigOn(t, host.NS, fmt.Sprintf(`"ipam": {"type": "boxwire", "dataDir": "DIR/state", "ranges": %s}`, test.ranges))
			c := r.container("c1", "")
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			if test.code == 0 && err != nil || test.code != 0 && (codeOf(err) != test.code || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("ADD: %v, want %d, %q", err, test.code, test.says)
			}
			r.del(c)
			r.gc()
			if links := r.links("bridge"); len(links) > 0 {
				t.Errorf("links are left: %v", links)
			}
		})
	}
}

// A switch without a gateway may be in the host's network: that is what it is for.
func TestABridgeIntoTheHostsNetworkIsFine(t *testing.T) {
	t.Parallel()
	host, _ := netnstest.Host(t)
	r := newRigOn(t, host.NS, `"isGateway": false, "isDefaultGateway": false, "ipMasq": false, "ipam": {"type": "boxwire", "dataDir": "DIR/state", "subnet": "203.0.113.0/24"}`)
	c := r.container("c1", "")
	if got := addrOf(r.add(c), 0).String(); got != "203.0.113.2" {
		t.Errorf("the container has %s", got)
	}
	r.del(c)
}

func TestADamagedStateKeepsNoContainer(t *testing.T) {
	t.Parallel()
	for _, damage := range []string{"{", "[]", "", `{"leases": 7}`} {
		t.Run(damage, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			c, d := r.container("c1", publish8080), r.container("d1", "")
			r.add(c)
			file := filepath.Join(r.dir, "state", "testnet.json")
			if err := os.WriteFile(file, []byte(damage), 0o644); err != nil {
				t.Fatal(err)
			}
			for verb, err := range map[string]error{
				"ADD":    func() error { _, err := r.cni.AddNetworkList(t.Context(), r.list, d.RuntimeConf); return err }(),
				"CHECK":  r.check(c),
				"STATUS": r.cni.GetStatusNetworkList(t.Context(), r.list),
			} {
				if err == nil || !strings.Contains(err.Error(), file) {
					t.Errorf("%s: %v", verb, err)
				}
			}
			r.del(d)
			r.del(c)
			if veths := r.links("veth"); len(veths) > 0 || strings.Contains(r.nft("list", "ruleset"), "8080") {
				t.Errorf("after DEL there is %v", veths)
			}
			r.gc() // which has no container, and makes it good
			r.clean()
			r.add(d)
			r.del(d)
			r.gc()
			r.clean()
		})
	}
}

// What is no namespace, and is not to be opened, does not hold DEL up.
func TestAPipeInThePlaceOfANamespace(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"fifo", "a directory", "a link to a fifo"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			c := r.container("c1", publish8080)
			r.add(c)
			path := filepath.Join(r.dir, "what")
			err := unix.Mkfifo(path, 0o600)
			switch kind {
			case "a directory":
				path = r.dir
			case "a link to a fifo":
				err = os.Symlink(path, path+"2")
				path += "2"
			}
			if err != nil {
				t.Fatal(err)
			}
			c.NetNS = path
			if err := r.check(c); codeOf(err) != 8 || !strings.Contains(err.Error(), path) {
				t.Errorf("CHECK: %v", err)
			}
			other := r.container("other", "")
			other.NetNS = path
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, other.RuntimeConf); codeOf(err) != 8 || !strings.Contains(err.Error(), path) {
				t.Errorf("ADD: %v", err)
			}
			r.del(c)
			r.gc()
			r.clean()
		})
	}
}

// A link of the name that ADD would use is not taken for ours.
func TestALinkOfTheComputedNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, alias := range []string{"", "mine", "boxwire cni testnet/other/eth0"} {
		t.Run(alias, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			c := r.container("c1", publish8080)
			name := attachment{"testnet", "c1", "eth0"}.link()
			testutil.Run(t, r.host, "ip", "link", "add", name, "type", "veth", "peer", "name", "peer0")
			testutil.Run(t, r.host, "ip", "link", "set", name, "alias", alias)
			before := testutil.Run(t, r.host, "ip", "-d", "link", "show", name)
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); codeOf(err) != codeExists || !strings.Contains(err.Error(), name) {
				t.Errorf("ADD: %v", err)
			}
			r.del(c)
			if alias != "boxwire cni testnet/other/eth0" { // GC goes by whose it says it is
				r.gc()
			}
			if after := testutil.Run(t, r.host, "ip", "-d", "link", "show", name); after != before {
				t.Errorf("%s was %s and is %s", name, before, after)
			}
			testutil.Run(t, r.host, "ip", "link", "del", name)
			r.gc()
			r.clean()
		})
	}
}

// What an ADD has left that was killed at any step, the next one takes up. From the one
// on that makes the attachment whole, the next ADD is one too many.
func TestAnAddAfterOneThatWasKilledNeedsNoDel(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	stride := 1
	if testing.Short() {
		stride = 4
	}
	whole := false
	for steps := 1; ; steps += stride {
		c := r.container(fmt.Sprint("k", steps), publish8080+limited)
		killed := r.kill(steps, func(r *rig) error {
			_, err := r.cni.AddNetworkList(context.WithoutCancel(t.Context()), r.list, c.RuntimeConf)
			return err
		})
		if !killed {
			r.del(c)
			break
		}
		_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
		if codeOf(err) == codeExists && steps > 6 {
			whole = true
		} else if whole {
			t.Errorf("after fewer steps it was whole: %v", err)
		} else if err != nil || r.check(c) != nil {
			t.Errorf("ADD: %v, CHECK: %v", err, r.check(c))
		}
		r.del(c)
		if t.Failed() {
			t.Fatalf("so it was after %d steps", steps)
		}
	}
	r.gc()
	r.clean()
}
