package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// withIPAM has addresses, and nothing that the host would have to do for it.
const withIPAM = `"isGateway": false, "isDefaultGateway": false, "ipMasq": false, "capabilities": {"mac": true, "ips": true, "deviceID": true}, `

// onLAN is a host with the link lan0, and a neighbour at its other end, which is in the
// containers' subnets and serves HTTP as "lan".
func onLAN(t *testing.T, conf string) (*rig, *netns.NS) {
	t.Helper()
	host, lan := netnstest.New(t), netnstest.New(t)
	testutil.Run(t, host, "ip", "link", "add", "lan0", "address", "02:00:00:00:1a:00", "type", "veth", "peer", "name", "lan1")
	moveLink(t, host, "lan1", lan)
	for _, args := range []string{"addr add 10.89.0.200/24 dev lan1", "addr add fd89::200/64 dev lan1 nodad", "link set lan1 up", "link set lo up"} {
		testutil.Run(t, lan, "ip", strings.Fields(args)...)
	}
	testutil.Run(t, host, "ip", "link", "set", "lan0", "up")
	r := newRigOn(t, host, conf)
	r.install(modes...)
	serve(t, container{ns: lan, RuntimeConf: &libcni.RuntimeConf{ContainerID: "lan"}})
	return r, lan
}

// install installs the plugin under the names of reference plugins.
func (r *rig) install(names ...string) {
	r.Helper()
	for _, name := range names {
		if err := os.Symlink(filepath.Join(r.dir, "boxwire"), filepath.Join(r.dir, name)); err != nil {
			r.Fatal(err)
		}
	}
}

// moveLink moves a link with ip(8), by the descriptor of its new namespace.
func moveLink(t testing.TB, from *netns.NS, name string, to *netns.NS) {
	t.Helper()
	dir := netns.Dir(t.TempDir())
	pinned, err := dir.Pin(t.Context(), to, "to")
	if err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, from, "ip", "link", "set", name, "netns", pinned.Path())
	pinned.Close()
	if err := dir.Delete(t.Context(), "to"); err != nil {
		t.Fatal(err)
	}
}

// needKind skips a test on a kernel that has no links of a kind.
func needKind(t *testing.T, r *rig, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), "not supported") {
		testutil.NeedKernel(t, 3, 19, "ipvlan", fmt.Errorf("%w: %w", errors.ErrUnsupported, err))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// addTo is add, on a kernel that may lack the kind of link.
func (r *rig) addTo(t *testing.T, c container) *current.Result {
	t.Helper()
	res, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
	needKind(t, r, err)
	result, err := current.NewResultFromResult(res)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// detail is what ip(8) says of a container's link.
func detail(t testing.TB, c container) string {
	t.Helper()
	return testutil.Run(t, c.ns, "ip", "-d", "link", "show", "eth0")
}

func TestContainersOnTheMastersNetwork(t *testing.T) {
	t.Parallel()
	queue := `, "bcqueuelen": 777`
	if !testutil.KernelAtLeast(5, 11) {
		queue = ""
	}
	for _, test := range []struct {
		name, conf, want string
		sibling          bool // reaches the container
		neighbour        bool // the same
	}{
		{"macvlan", `"mode": "macvlan", "master": "lan0"`, "macvlan mode bridge", true, true},
		{"macvlan with an MTU", `"mode": "macvlan", "master": "lan0", "mtu": 1400` + queue, "mtu 1400", true, true},
		{"macvlan by its name", `"type": "macvlan", "mode": "private", "master": "lan0"`, "macvlan mode private", false, true},
		{"macvlan, vepa", `"mode": "macvlan", "macvlanMode": "vepa", "master": "lan0"`, "macvlan mode vepa", false, true},
		{"macvlan with duplicates detected", `"mode": "macvlan", "master": "lan0", "enabledad": true`, "macvlan mode bridge", true, true},
		{"ipvlan", `"mode": "ipvlan", "master": "lan0"`, "ipvlan  mode l2", true, true},
		{"ipvlan by its name", `"type": "ipvlan", "mode": "l3s", "master": "lan0"`, "ipvlan  mode l3s", true, false},
		{"ipvlan, l3", `"mode": "ipvlan", "ipvlanMode": "l3", "master": "lan0"`, "ipvlan  mode l3", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, lan := onLAN(t, withIPAM+test.conf)
			before := fmt.Sprint(r.links(""))
			a, b := r.container("a", ""), r.container("b", "")
			result := r.addTo(t, a)
			r.add(b)
			if out := detail(t, a); !strings.Contains(out, test.want) || !strings.Contains(out, "UP") {
				t.Errorf("the link is %s", out)
			}
			if f := result.Interfaces; len(f) != 1 || f[0].Name != "eth0" || f[0].Mac != macOf(t, a.ns).String() || f[0].Sandbox != a.NetNS || *result.IPs[0].Interface != 0 {
				t.Errorf("the result is %v", result)
			}
			serve(t, a)
			for _, at := range []string{"10.89.0.2", "[fd89::2]"} {
				if test.neighbour {
					if err := reach(t, lan, at, "a"); err != nil {
						t.Error(err)
					}
				}
				if test.sibling {
					if err := reach(t, b.ns, at, "a"); err != nil {
						t.Error(err)
					}
				}
			}
			if !test.sibling && passes(t, b.ns, a.ns, frame(macOf(t, b.ns), 0, "leak")) {
				t.Error("a sibling's frame arrives")
			}
			if err := r.check(a); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			if err := r.cni.GetStatusNetworkList(t.Context(), r.list); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, a.RuntimeConf); codeOf(err) != codeExists {
				t.Errorf("the second ADD: %v", err)
			}
			if err := r.check(a); err != nil {
				t.Errorf("CHECK after the second ADD: %v", err)
			}
			r.gc(a, b)
			if err := r.check(a); err != nil {
				t.Errorf("CHECK after GC: %v", err)
			}
			for _, c := range []container{a, b, a} {
				r.del(c)
			}
			r.leftOnly(before, a, b)
		})
	}
}

// leftOnly fails the test unless the host is as it was and the containers are empty.
func (r *rig) leftOnly(before string, all ...container) {
	r.Helper()
	if after := fmt.Sprint(r.links("")); after != before {
		r.Errorf("the host was\n%s\nand is\n%s", before, after)
	}
	for _, c := range all {
		if out := testutil.Run(r, c.ns, "ip", "-o", "link"); strings.Contains(out, "eth0") {
			r.Errorf("%s has %s", c.ContainerID, out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(r.dir, "state", "testnet.json")); err == nil && strings.Contains(string(b), "owner") {
		r.Errorf("leases are left: %s", b)
	}
}

func TestTheMasterIsTheLinkOfTheDefaultRoute(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"macvlan", "ipvlan"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, withIPAM+`"mode": "`+mode+`"`)
			c := r.container("c1", "")
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); codeOf(err) != 7 || !strings.Contains(err.Error(), "needs master") {
				t.Errorf("ADD without a default route: %v", err)
			}
			testutil.Run(t, r.host, "ip", "addr", "add", "192.0.2.1/24", "dev", "lan0")
			testutil.Run(t, r.host, "ip", "route", "add", "default", "via", "192.0.2.2")
			r.addTo(t, c)
			if out := detail(t, c); !strings.Contains(out, mode) {
				t.Errorf("the link is %s", out)
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			r.del(c)
		})
	}
}

func TestTheMasterMayBeInTheContainer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{`"macvlan"`, `"ipvlan"`, `"vlan", "vlanId": 100`} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withIPAM+`"linkInContainer": true, "master": "inner0", "mode": `+mode)
			c := r.container("c1", "")
			testutil.Run(t, c.ns, "ip", "link", "add", "inner0", "type", "veth", "peer", "name", "inner1")
			testutil.Run(t, c.ns, "ip", "link", "set", "inner0", "up")
			r.addTo(t, c)
			if out := testutil.Run(t, c.ns, "ip", "-d", "link", "show", "eth0"); !strings.Contains(out, "eth0@inner0") {
				t.Errorf("the link is %s", out)
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			r.del(c)
			if out := testutil.Run(t, c.ns, "ip", "-o", "link"); strings.Contains(out, "eth0") || !strings.Contains(out, "inner0") {
				t.Errorf("DEL leaves %s", out)
			}
		})
	}
}

// A hardware address comes from the configuration, CNI_ARGS or the runtime, the later
// ones before the former; ipvlan has none of its own.
func TestAMacvlansHardwareAddress(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"macvlan", "tap"} {
		r, _ := onLAN(t, withIPAM+`"mac": "02:00:00:00:00:11", "mode": "`+mode+`"`)
		if mode == "macvlan" {
			r.configure(withIPAM + `"mac": "02:00:00:00:00:11", "master": "lan0", "mode": "macvlan"`)
		}
		for i, test := range []struct{ args, capability, want string }{
			{"", "", "02:00:00:00:00:11"},
			{"02:00:00:00:00:22", "", "02:00:00:00:00:22"},
			{"02:00:00:00:00:22", `"mac": "02:00:00:00:00:33"`, "02:00:00:00:00:33"},
		} {
			c := r.container(fmt.Sprint("c", i), test.capability)
			if test.args != "" {
				c.Args = [][2]string{{"IgnoreUnknown", "1"}, {"MAC", test.args}}
			}
			if got := r.add(c).Interfaces[0].Mac; got != test.want || macOf(t, c.ns).String() != test.want {
				t.Errorf("%s: it has %s and %v, want %s", mode, got, macOf(t, c.ns), test.want)
			}
			r.del(c)
		}
	}
	r, _ := onLAN(t, withIPAM+`"mode": "ipvlan", "master": "lan0"`)
	_, err := r.cni.AddNetworkList(t.Context(), r.list, r.container("c1", `"mac": "02:00:00:00:00:33"`).RuntimeConf)
	if codeOf(err) != 7 || !strings.Contains(err.Error(), "hardware address of its master") {
		t.Errorf("ADD of an ipvlan with an address: %v", err)
	}
}

func TestLinksWithoutAddresses(t *testing.T) {
	t.Parallel()
	for _, conf := range []string{`"mode": "macvlan", "master": "lan0"`, `"mode": "tap"`, `"mode": "tap", "multiQueue": true, "owner": 4242, "group": 4243`} {
		t.Run(conf, func(t *testing.T) {
			t.Parallel()
			r, lan := onLAN(t, noIPAM+", "+conf)
			c := r.container("c1", "")
			if result := r.add(c); len(result.IPs) != 0 || result.Interfaces[0].Mac != macOf(t, c.ns).String() {
				t.Errorf("the result is %v", result)
			}
			out := detail(t, c)
			if strings.Contains(conf, "macvlan") {
				testutil.Run(t, lan, "ip", "link", "set", "lan1", "down") // before Linux 6.2
				testutil.Run(t, lan, "ip", "link", "set", "lan1", "name", "eth0")
				testutil.Run(t, lan, "ip", "link", "set", "eth0", "up")
				if !strings.Contains(out, "state UP") || !arrives(t, lan, c.ns, frame(macOf(t, lan), 0, "frame"[:4])) {
					t.Errorf("no frame arrives; the link is %s", out)
				}
			} else if !strings.Contains(out, "tun type tap") || !strings.Contains(out, "persist on") || !strings.Contains(out, "UP") {
				t.Errorf("the link is %s", out)
			}
			if strings.Contains(conf, "owner") && (!strings.Contains(out, "multi_queue") || !strings.Contains(out, "user 4242 group 4243")) {
				t.Errorf("the link is %s", out)
			}
			if err := r.check(c); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			r.del(c)
			r.del(c)
			if out := testutil.Run(t, c.ns, "ip", "-o", "link"); strings.Contains(out, "eth0") {
				t.Errorf("DEL leaves %s", out)
			}
		})
	}
}

func TestATapMayBeAPortOfTheContainersBridge(t *testing.T) {
	t.Parallel()
	r := newRig(t, noIPAM+`, "mode": "tap", "bridge": "inner0"`)
	c := r.container("c1", "")
	if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); codeOf(err) != 7 || !strings.Contains(err.Error(), "no such bridge") {
		t.Errorf("ADD without the bridge: %v", err)
	}
	if out := testutil.Run(t, c.ns, "ip", "-o", "link"); strings.Contains(out, "eth0") {
		t.Errorf("the failed ADD leaves %s", out)
	}
	testutil.Run(t, c.ns, "ip", "link", "add", "inner0", "up", "type", "bridge")
	r.add(c)
	if out := detail(t, c); !strings.Contains(out, "master inner0") {
		t.Errorf("the link is %s", out)
	}
	if err := r.check(c); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	testutil.Run(t, c.ns, "ip", "link", "set", "eth0", "nomaster")
	if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), "no port of inner0") {
		t.Errorf("CHECK: %v", err)
	}
	r.del(c)
	r.gc()
	r.clean()
}

// An ipvlan without ipam takes the addresses of the plugin before it, and its link.
func TestAnIPVLANBehindAnotherPlugin(t *testing.T) {
	t.Parallel()
	r, lan := onLAN(t, "")
	c := r.container("c1", "")
	for _, test := range []struct {
		name, conf, before, says string
	}{
		{"nothing before it", `"master": "lan0"`, "", "ipvlan needs ipam"},
		{"no address", `"master": "lan0"`, `"interfaces": [{"name": "lan0"}]`, "ipvlan needs ipam"},
		{"two links", `"dns": {}`, `"interfaces": [{"name": "lan0"}, {"name": "lan9"}], "ips": [{"address": "10.89.0.7/24"}]`, "ipvlan needs master"},
		{"one link", `"dns": {}`, `"interfaces": [{"name": "lan0"}], "ips": [{"address": "10.89.0.7/24", "interface": 0}]`, ""},
	} {
		conf := `"cniVersion": "1.0.0", "name": "testnet", "type": "boxwire", "mode": "ipvlan", ` + test.conf
		if test.before != "" {
			conf += `, "prevResult": {"cniVersion": "1.0.0", ` + test.before + `}`
		}
		env := []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=" + c.NetNS, "CNI_PATH=" + r.dir}
		exec := inside{r.host, nil}
		out, err := exec.ExecPlugin(t.Context(), filepath.Join(r.dir, "boxwire"), []byte("{"+conf+"}"), env)
		if test.says != "" {
			if codeOf(err) != 7 || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s: ADD: %v", test.name, err)
			}
			continue
		}
		needKind(t, r, err)
		if !strings.Contains(string(out), "10.89.0.7/24") || !strings.Contains(detail(t, c), "eth0@") {
			t.Errorf("%s: the result is %s, the link %s", test.name, out, detail(t, c))
		}
		serve(t, c)
		if err := reach(t, lan, "10.89.0.7", "c1"); err != nil {
			t.Error(err)
		}
		env[0] = "CNI_COMMAND=DEL"
		if _, err := exec.ExecPlugin(t.Context(), filepath.Join(r.dir, "boxwire"), []byte("{"+conf+"}"), env); err != nil {
			t.Errorf("%s: DEL: %v", test.name, err)
		}
		if out := testutil.Run(t, c.ns, "ip", "-o", "link"); strings.Contains(out, "eth0") {
			t.Errorf("DEL leaves %s", out)
		}
	}
}

// A VLAN of the master: the container's frames have the tag on the master's network, and it sees no others. Its MTU is the
// master's, or less.
func TestAVLANOfTheMaster(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, conf, mtu string }{
		{"by mode", `"mode": "vlan", "master": "lan0", "vlanId": 100`, "mtu 1500"},
		{"by its name, with an MTU", `"type": "vlan", "master": "lan0", "vlanId": 100, "mtu": 1400`, "mtu 1400"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			needVLANs(t)
			r, lan := onLAN(t, withIPAM+test.conf)
			before := fmt.Sprint(r.links(""))
			testutil.Run(t, lan, "ip", "addr", "flush", "dev", "lan1")
			testutil.Run(t, lan, "ip", "link", "add", "link", "lan1", "name", "lan1.100", "type", "vlan", "id", "100")
			testutil.Run(t, lan, "ip", "addr", "add", "10.89.0.200/24", "dev", "lan1.100")
			testutil.Run(t, lan, "ip", "link", "set", "lan1.100", "up")
			a := r.container("a", "")
			result := r.add(a)
			if out := detail(t, a); !strings.Contains(out, "vlan protocol 802.1Q id 100") || !strings.Contains(out, test.mtu) || !strings.Contains(out, "UP") {
				t.Errorf("the link is %s", out)
			}
			if f := result.Interfaces; len(f) != 1 || f[0].Name != "eth0" || f[0].Mac != macOf(t, a.ns).String() || f[0].Sandbox != a.NetNS || *result.IPs[0].Interface != 0 {
				t.Errorf("the result is %v", result)
			}
			serve(t, a)
			if err := reach(t, lan, "10.89.0.2", "a"); err != nil {
				t.Error(err)
			}
			if err := r.check(a); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, a.RuntimeConf); codeOf(err) != codeExists {
				t.Errorf("the second ADD: %v", err)
			}
			// The kernel has one link for each VLAN of a master in a namespace, and frames go to that.
			testutil.Run(t, a.ns, "ip", "link", "set", "eth0", "down")
			if err := r.check(a); codeOf(err) != codeDrift {
				t.Errorf("CHECK of a link that is down: %v", err)
			}
			r.del(a)
			r.del(a)
			r.leftOnly(before, a)
		})
	}
}
