package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
)

// everyMode are the modes with all that the host may have of them.
var everyMode = []struct{ name, conf string }{
	{"bridge", fmt.Sprintf(`"macspoofchk": %t, "promiscMode": true`, testutil.KernelAtLeast(5, 18))},
	{"ptp", ptp},
	{"macvlan", withIPAM + `"mode": "macvlan", "master": "lan0"`},
	{"ipvlan", withIPAM + `"mode": "ipvlan", "master": "lan0"`},
	{"vlan", withIPAM + `"mode": "vlan", "master": "lan0", "vlanId": 100`},
	{"host-device", withIPAM + `"mode": "host-device", "device": "lan0"`},
	{"tap", withIPAM + `"mode": "tap"`},
}

// all is what ip(8) and nft(8) say of the host and a container, without what changes by
// itself.
func (r *rig) all(c container) string {
	r.Helper()
	var all []string
	for _, ns := range []*netns.NS{r.host, c.ns} {
		for line := range strings.Lines(testutil.Run(r, ns, "ip", "-o", "link")) { // carriers come late
			name, rest, _ := strings.Cut(line, " <")
			_, alias, _ := strings.Cut(rest, "alias ")
			all = append(all, name+" "+fmt.Sprint(strings.Contains(rest, "UP"))+" "+strings.TrimSpace(alias))
		}
		for _, family := range []string{"-4", "-6"} {
			all = append(all, testutil.Run(r, ns, "ip", "-o", family, "addr", "show", "scope", "global"))
		}
		all = append(all, testutil.Run(r, ns, "ip", "-4", "route"))
	}
	all = append(all, r.nft("--stateless", "list", "ruleset"))
	if b, err := os.ReadFile(filepath.Join(r.dir, "state", "testnet.json")); err == nil && strings.Contains(string(b), "owner") {
		all = append(all, string(b))
	}
	return strings.Join(all, "\n")
}

// tried skips a mode whose links the kernel does not have.
func tried(t *testing.T, mode string, err error) {
	t.Helper()
	if (mode == "ipvlan" || mode == "vlan") && err != nil && strings.Contains(err.Error(), "not supported") {
		testutil.NeedKernel(t, 3, 19, mode, fmt.Errorf("%w: %w", errors.ErrUnsupported, err))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFailedAddOfEachModeIsUndone(t *testing.T) {
	t.Parallel()
	const unreachable = `, "ipam": {"type": "boxwire", "subnet": "10.89.0.0/24", "dataDir": "DIR/state", "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}]}`
	for _, mode := range everyMode {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, mode.conf+unreachable)
			c := r.container("c1", "")
			before := r.all(c)
			for range 2 {
				_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
				if err == nil || strings.Contains(err.Error(), "not supported") {
					tried(t, mode.name, err)
				}
				if err == nil || !strings.Contains(err.Error(), "unreachable") {
					t.Errorf("ADD: %v", err)
				}
				if after := r.all(c); after != before {
					t.Fatalf("there was\n%s\nand there is\n%s", before, after)
				}
			}
			r.del(c)
			if after := r.all(c); after != before {
				t.Errorf("after DEL there is\n%s", after)
			}
		})
	}
}

// A link of the container that has the attachment's name stays, whatever its kind is.
func TestALinkOfTheNameIsLeftAloneByEachMode(t *testing.T) {
	t.Parallel()
	for _, mode := range everyMode {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, mode.conf)
			c := r.container("c1", "")
			testutil.Run(t, c.ns, "ip", "link", "add", "eth0", "type", "bridge")
			before := r.all(c)
			if _, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf); codeOf(err) != codeExists {
				t.Errorf("ADD: %v", err)
			}
			r.del(c)
			if after := r.all(c); after != before {
				t.Errorf("there was\n%s\nand there is\n%s", before, after)
			}
		})
	}
}

// After a restart of the machine neither the namespace nor a link is there, and the
// state says another boot. A device is where it was.
func TestDelOfEachModeWithEverythingGone(t *testing.T) {
	t.Parallel()
	for _, mode := range everyMode {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, mode.conf)
			c := r.container("c1", "")
			before := r.all(c)
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			tried(t, mode.name, err)
			if mode.name == "host-device" {
				moveLink(t, c.ns, "eth0", r.host)
				for _, args := range []string{"link set eth0 name lan0", "link set lan0 alias", "link set lan0 up"} {
					testutil.Run(t, r.host, "ip", append(strings.Fields(args), map[bool][]string{true: {""}}[strings.HasSuffix(args, "alias")]...)...)
				}
			} else {
				testutil.Run(t, c.ns, "ip", "link", "del", "eth0")
			}
			r.nft("flush", "ruleset")
			for _, kind := range []string{"bridge", "ifb"} {
				for _, name := range r.links(kind) {
					testutil.Run(t, r.host, "ip", "link", "del", name)
				}
			}
			state := filepath.Join(r.dir, "state", "testnet.json")
			boot, err := bootID()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(state, []byte(strings.ReplaceAll(readFile(t, state), boot, "another boot")), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{c.NetNS, filepath.Join(r.dir, "gone"), ""} { // empty, gone, not given
				c.RuntimeConf.NetNS = path
				r.del(c)
				if after := r.all(c); after != before {
					t.Errorf("DEL with the namespace %q: there was\n%s\nand there is\n%s", path, before, after)
				}
			}
			r.gc()
			if after := r.all(c); after != before {
				t.Errorf("after GC there is\n%s", after)
			}
		})
	}
}

// What an ADD leaves that is killed after its first step, its second, ... DEL takes
// away, and then another ADD works.
func TestAnAddOfEachModeThatIsKilledAtAnyStep(t *testing.T) {
	t.Parallel()
	for _, mode := range everyMode {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, mode.conf)
			probe := r.container("probe", "")
			_, err := r.cni.AddNetworkList(t.Context(), r.list, probe.RuntimeConf)
			tried(t, mode.name, err)
			r.del(probe)
			r.gc()
			testutil.Run(t, r.host, "ip", "link", "set", "lan0", "up")
			before := r.all(probe)
			stride := 1
			if testing.Short() || mode.name == "bridge" || mode.name == "ptp" { // the bridge has a test of its own
				stride = 3
			}
			for steps := 1; steps < 200; steps += stride {
				c := r.container(fmt.Sprint("k", steps), "")
				killed := r.kill(steps, func(r *rig) error {
					_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
					return err
				})
				if !killed && steps < 3 {
					t.Errorf("all of it has %d steps", steps)
				}
				r.del(c)
				r.gc()
				testutil.Run(t, r.host, "ip", "link", "set", "lan0", "up")
				c.ns = probe.ns
				if after := r.all(c); after != before {
					t.Fatalf("after %d steps and DEL there was\n%s\nand there is\n%s", steps, before, after)
				}
				if !killed {
					return
				}
			}
			t.Error("an ADD has 200 steps and more")
		})
	}
}

func TestCheckNoticesWhatIsChangedOfEachMode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ mode, says, do string }{
		{"macvlan", "mode private, not bridge", "ip link set eth0 type macvlan mode private"},
		{"macvlan", "is gone", "ip link del eth0"},
		{"macvlan", "kind bridge", "ip link del eth0; ip link add eth0 up type bridge"},
		{"macvlan", "hardware address", "ip link set eth0 address 02:00:00:00:00:99"},
		{"macvlan", "10.89.0.2/24", "ip addr flush dev eth0"},
		{"macvlan", "is down", "ip link set eth0 down"},
		{"ipvlan", "mode l3, not l2", "ip link set eth0 type ipvlan mode l3"},
		{"ipvlan", "10.89.0.2/24", "ip addr flush dev eth0"},
		{"vlan", "is gone", "ip link del eth0"},
		{"vlan", "kind bridge", "ip link del eth0; ip link add eth0 up type bridge"},
		{"vlan", "10.89.0.2/24", "ip addr flush dev eth0"},
		{"host-device", "is gone", "ip link set eth0 down; ip link set eth0 name eth7"},
		{"host-device", "10.89.0.2/24", "ip addr flush dev eth0"},
		{"tap", "is gone", "ip link del eth0"},
		{"tap", "kind bridge", "ip link del eth0; ip link add eth0 up type bridge"},
	} {
		t.Run(test.mode+": "+test.do, func(t *testing.T) {
			t.Parallel()
			for _, mode := range everyMode {
				if mode.name != test.mode {
					continue
				}
				r, _ := onLAN(t, mode.conf)
				c := r.container("c1", "")
				_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
				tried(t, mode.name, err)
				if err := r.check(c); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				if out, err := c.ns.Command(t.Context(), "sh", "-c", test.do).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				if err := r.check(c); codeOf(err) != codeDrift || !strings.Contains(err.Error(), test.says) {
					t.Errorf("CHECK says %v, want %q", err, test.says)
				}
				r.del(c)
			}
		})
	}
}

// Keys of one mode are refused by name in the others, and so are values that no mode has.
func TestKeysOfOtherModesAreRefusedByName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		conf, capabilities string
		code               uint
		says               string
	}{
		{`"mode": "routed"`, "", 7, `"routed"`},
		{`"mode": "macvlan", "isGateway": true`, "", 2, "isGateway: true"},
		{`"mode": "macvlan", "ipMasq": true`, "", 2, "ipMasq"},
		{`"mode": "macvlan", "vlan": 7`, "", 2, "vlan: 7"},
		{`"mode": "macvlan", "macvlanMode": "l2"`, "", 7, `"l2"`},
		{`"mode": "macvlan", "ipvlanMode": "l2"`, "", 2, "ipvlanMode"},
		{`"mode": "macvlan", "master": "lan0", "mtu": 9000`, "", 7, "more than that of the master"},
		{`"mode": "macvlan", "master": "nosuch0"`, "", 7, "nosuch0"},
		{`"mode": "macvlan", "device": "lan0"`, "", 2, "device"},
		{`"mode": "macvlan", "capabilities": {"portMappings": true}`, publish8080, 2, "portMappings"},
		{`"mode": "macvlan", "capabilities": {"bandwidth": true}`, strings.TrimPrefix(limited, ", "), 2, "bandwidth"},
		{`"mode": "ipvlan", "ipvlanMode": "bridge"`, "", 7, `"bridge"`},
		{`"mode": "ipvlan", "bcqueuelen": 7`, "", 2, "bcqueuelen"},
		{`"mode": "ipvlan", "master": "lan0", "ipam": {}`, "", 7, "ipvlan needs ipam"},
		{`"mode": "macvlan", "bridge": "br7"`, "", 2, `bridge: "br7"`},
		{`"mode": "macvlan", "ingressPolicy": "isolated"`, "", 2, `ingressPolicy: "isolated"`},
		{`"mode": "macvlan", "vlanId": 7`, "", 2, "vlanId: 7"},
		{`"mode": "macvlan", "owner": 7`, "", 2, "owner: 7"},
		{`"mode": "macvlan", "group": 7`, "", 2, "group: 7"},
		{`"mode": "macvlan", "selinuxContext": "a:b:c"`, "", 2, "selinuxContext"},
		{`"mode": "macvlan", "preserveDefaultVlan": true`, "", 2, "preserveDefaultVlan"},
		{`"mode": "vlan", "vlanId": 7`, "", 7, "vlan needs master"},
		{`"mode": "vlan", "master": "lan0"`, "", 7, "vlanId is no VLAN"},
		{`"mode": "vlan", "master": "lan0", "vlanId": 4095`, "", 7, "4095"},
		{`"mode": "vlan", "master": "lan0", "vlanId": 0`, "", 7, "vlanId"},
		{`"mode": "vlan", "master": "lan0", "vlanId": 7, "mtu": 1600`, "", 7, "more than that of the master"},
		{`"mode": "vlan", "master": "lan0", "vlanId": 7, "mtu": -100`, "", 7, "-100"},
		{`"mode": "vlan", "master": "nosuch0", "vlanId": 7`, "", 7, "nosuch0"},
		{`"mode": "vlan", "master": "lan0", "vlanId": 7, "mac": "02:00:00:00:00:11"`, "", 2, "mac"},
		{`"mac": "02:00:00:00:00:11"`, "", 2, "mac"},
		{`"mode": "ptp", "bridge": "br7"`, "", 2, "bridge"},
		{`"mode": "ptp", "ipam": {}`, "", 7, "ptp needs ipam"},
		{`"mode": "ptp", "isDefaultGateway": true`, "", 2, "isGateway"},
		{`"mode": "ptp", "hairpinMode": true`, "", 2, "hairpinMode"},
		{`"mode": "ptp", "macspoofchk": true`, "", 2, "macspoofchk"},
		{`"mode": "host-device", "device": "lan0", "mtu": 1400`, "", 2, "mtu"},
		{`"mode": "tap", "selinuxContext": "system_u:system_r:container_t:s0"`, "", 2, "selinuxContext"},
		{`"mode": "tap", "master": "lan0"`, "", 2, "master"},
		{`"master": "lan0"`, "", 2, "master"},
	} {
		t.Run(test.conf, func(t *testing.T) {
			t.Parallel()
			r, _ := onLAN(t, withIPAM+test.conf)
			c := r.container("c1", test.capabilities)
			before := r.all(c)
			_, err := r.cni.AddNetworkList(t.Context(), r.list, c.RuntimeConf)
			if codeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("ADD: code %d: %v, want %d, %q", codeOf(err), err, test.code, test.says)
			}
			r.del(c)
			r.gc()
			if after := r.all(c); after != before {
				t.Errorf("there was\n%s\nand there is\n%s", before, after)
			}
		})
	}
}

// STATUS says that the master is missing. It takes a few milliseconds, most of them
// those of starting a program: the benchmark measures it.
func TestStatusOfEachMode(t *testing.T) {
	t.Parallel()
	for _, mode := range everyMode {
		r, _ := onLAN(t, mode.conf)
		if err := r.cni.GetStatusNetworkList(t.Context(), r.list); err != nil {
			t.Errorf("%s: %v", mode.name, err)
		}
		if mode.name == "macvlan" || mode.name == "ipvlan" || mode.name == "vlan" {
			testutil.Run(t, r.host, "ip", "link", "del", "lan0")
			if err := r.cni.GetStatusNetworkList(t.Context(), r.list); codeOf(err) != 50 || !strings.Contains(err.Error(), "lan0") {
				t.Errorf("%s without its master: %v", mode.name, err)
			}
		}
	}
}

// BenchmarkStatus measures STATUS of each mode by a process of its own.
func BenchmarkStatus(b *testing.B) {
	for _, mode := range everyMode[:3] {
		b.Run(mode.name, func(b *testing.B) {
			r := newRig(b, mode.conf)
			testutil.Run(b, r.host, "ip", "link", "add", "lan0", "up", "type", "veth", "peer", "name", "lan1")
			var all []time.Duration
			for b.Loop() {
				began := time.Now()
				if err := r.cni.GetStatusNetworkList(context.Background(), r.list); err != nil {
					b.Fatal(err)
				}
				all = append(all, time.Since(began))
			}
			b.ReportMetric(median(all), "status-ms")
		})
	}
}
