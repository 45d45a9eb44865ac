package nat

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// flowNetwork is a network that needs no link, with the option or without.
func flowNetwork(i byte, on bool) Network {
	net := groupNetwork(i, 0)
	net.Flowtable = on
	return net
}

// needFlowtable skips the test where the kernel refuses the option.
func needFlowtable(t testing.TB) {
	t.Helper()
	err := open(t, netnstest.New(t)).AddNetwork(t.Context(), flowNetwork(0, true))
	testutil.NeedKernel(t, 6, 4, "flowtables that end (CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD)", err)
}

// Where the kernel has no flowtable, or does not end its flows, the option is refused by its name, and
// nothing else is done.
func TestFlowtableIsRefusedByName(t *testing.T) {
	t.Parallel()
	host, _ := netnstest.Bridge(t, 1)
	ns := host.NS
	gw := open(t, ns)
	ctx := t.Context()
	ports := State{Ports: []Port{tcp("0.0.0.0:80", "10.88.0.2:80", "web")}}
	if err := gw.Sync(ctx, ports); err != nil {
		t.Fatal(err)
	}
	before, forwards := testutil.Run(t, ns, "nft", "list", "ruleset"), testutil.Run(t, ns, "cat", "/proc/sys/net/ipv4/conf/br0/forwarding")
	on := flowNetwork(0, true)
	state := State{Networks: []Network{on}, Ports: []Port{tcp("0.0.0.0:81", "10.88.0.2:80", "web")}}
	refusals := map[string]error{"AddNetwork": gw.AddNetwork(ctx, on), "SetNetwork": gw.SetNetwork(ctx, on), "Sync": gw.Sync(ctx, state)}
	if refusals["AddNetwork"] == nil { // the kernel has what it takes
		return
	}
	for call, err := range refusals {
		needs := []string{"Linux"}
		if refuseFlowtable(on) == nil {
			needs = []string{"CONFIG_NF_FLOW_TABLE_INET", "CONFIG_NFT_FLOW_OFFLOAD"}
		}
		for _, words := range append(needs, "Flowtable") {
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), words) {
				t.Errorf("%s: %v, want errors.ErrUnsupported with %q", call, err, words)
			}
		}
	}
	if now := testutil.Run(t, ns, "nft", "list", "ruleset"); now != before {
		t.Errorf("after refusals there is\n%s\nwas\n%s", now, before)
	}
	if now := testutil.Run(t, ns, "cat", "/proc/sys/net/ipv4/conf/br0/forwarding"); now != forwards {
		t.Errorf("after refusals, br0 forwards: %s, was %s", now, forwards)
	}
	off := flowNetwork(0, false)
	if err := errors.Join(gw.SetNetwork(ctx, off), gw.DeleteNetwork(ctx, off.Interface)); err != nil {
		t.Errorf("without the option: %v", err)
	}
}

func TestKernelsWithoutUsableFlowtables(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]string{
		"5.10.0-32-amd64": "Linux 6.4,", "6.3.9": "Linux 6.4,", "6.4.0": "", "6.18.44": "", "6.19.0": "Linux 7.2,", "7.1.3": "Linux 7.2,", "7.2.13+deb14-amd64": "", "7.3": "",
	} {
		switch err := flowtableKernel(release); {
		case want == "" && err != nil, want != "" && (!errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", release, err, want)
		}
	}
}

func TestWhatOfTheFlowtableIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, attr    string
		errno         unix.Errno
		named, follow bool
	}{
		{"flowtable flows", "", unix.ENOENT, true, false},
		{"flowtable flows", "attribute 3/3/1", unix.ENOENT, true, true},
		{"flowtable flows", "", unix.EOPNOTSUPP, true, false},
		{"flowtable flows", "", unix.EPERM, false, false},
		{"rule 9 in chain add_flows", "", unix.ENOENT, true, false},
		{"rule 9 in chain forward", "", unix.ENOENT, false, false},
		{"table boxwire", "", unix.ENOENT, false, false},
	} {
		err := fmt.Errorf("committing: %w", &nft.Error{What: c.what, Err: &nl.Error{Errno: c.errno, Attr: c.attr}})
		if got := errors.Is(namesFlowtable(err), errors.ErrUnsupported); got != c.named || lacksLink(err) != c.follow {
			t.Errorf("%v: unsupported %t, again %t", err, got, lacksLink(err))
		}
	}
	if lacksLink(nil) || namesFlowtable(nil) != nil {
		t.Error("no error is a refusal")
	}
}

// flowtableOf returns the networks and the devices of the flowtable's table as nft lists them.
func flowtableOf(t *testing.T, ns *netns.NS) (networks, devices []string) {
	t.Helper()
	out := testutil.Run(t, ns, "nft", "list", "tables")
	if !strings.Contains(out, "table inet boxwire/flowtable") {
		return nil, nil
	}
	var list string
	if !until(func() bool { // nft reads chains and rules one after the other, and Maintain may rebuild the table meanwhile
		list = testutil.Run(t, ns, "nft", "list", "table", "inet", "boxwire/flowtable")
		return strings.Contains(list, "flow add @flows") && strings.Count(list, "chain add_flows") == 1
	}) {
		t.Errorf("the table is %s", list)
	}
	names := func(from, to string) []string {
		_, list, _ := strings.Cut(list, from)
		list, _, _ = strings.Cut(list, to)
		all := strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(" ,\"{}=\n\t", r) })
		slices.Sort(all)
		return all
	}
	_, set, _ := strings.Cut(list, "set networks {")
	if strings.Contains(strings.SplitN(set, "}", 3)[0], "elements") {
		networks = names("elements = ", "}")
	}
	if strings.Contains(list, "devices = ") {
		devices = names("devices = ", "}")
	}
	return networks, devices
}

// hasFlowtable checks the networks in the flowtable's table, without any that there is no such table.
func hasFlowtable(t *testing.T, ns *netns.NS, networks ...string) {
	t.Helper()
	if got, _ := flowtableOf(t, ns); !slices.Equal(got, networks) {
		t.Errorf("the flowtable is of %v, want %v", got, networks)
	}
}

// hasDevices checks the devices of the flowtable.
func hasDevices(t *testing.T, ns *netns.NS, devices ...string) {
	t.Helper()
	if _, got := flowtableOf(t, ns); !slices.Equal(got, devices) {
		t.Errorf("the devices of the flowtable are %v, want %v", got, devices)
	}
}

// withPorts are the devices with the ports of bridges, on kernels that need them.
func withPorts(devices []string, ports ...string) []string {
	if throughPorts() {
		devices = append(devices, ports...)
	}
	slices.Sort(devices)
	return devices
}

// The table follows the networks with the option, whatever sets them, and goes with the last one.
func TestFlowtableFollowsTheNetworks(t *testing.T) {
	t.Parallel()
	needFlowtable(t)
	ns := netnstest.New(t)
	gw := open(t, ns)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(gw.AddNetwork(ctx, flowNetwork(0, false)))
	hasFlowtable(t, ns)
	must(gw.AddNetwork(ctx, flowNetwork(1, true)))
	must(gw.AddNetwork(ctx, flowNetwork(2, true)))
	hasFlowtable(t, ns, "br1", "br2")
	handles := testutil.Run(t, ns, "nft", "--handle", "list", "ruleset")
	must(gw.SetNetwork(ctx, flowNetwork(2, true)))
	if now := testutil.Run(t, ns, "nft", "--handle", "list", "ruleset"); now != handles {
		t.Errorf("a repeated SetNetwork has changed %s to %s", handles, now)
	}
	all, err := gw.ListNetworks(ctx)
	must(err)
	for i, want := range []bool{false, true, true} {
		if len(all) != 3 || all[i].Flowtable != want {
			t.Errorf("the networks are %+v", all)
		}
	}
	if tables, err := ListTables(ctx, ns); len(tables) != 1 || err != nil {
		t.Errorf("the tables of the library are %v, %v", tables, err)
	}
	must(gw.DeleteNetwork(ctx, "br1"))
	hasFlowtable(t, ns, "br2")
	must(gw.SetNetwork(ctx, flowNetwork(2, false)))
	hasFlowtable(t, ns)
	must(gw.DeleteNetwork(ctx, "br2"))

	state := State{Networks: []Network{flowNetwork(0, true), flowNetwork(1, true)}}
	must(gw.Sync(ctx, state))
	hasFlowtable(t, ns, "br0", "br1")
	must(Check(ctx, ns, "", state))
	mine := State{Networks: []Network{flowNetwork(1, false)}, Owners: func(string) bool { return false }}
	must(gw.Sync(ctx, mine))
	hasFlowtable(t, ns, "br0")
	mine.Networks[0].Flowtable = true
	for _, harm := range []string{
		"delete table inet boxwire/flowtable", "flush chain inet boxwire/flowtable add_flows", "flush set inet boxwire/flowtable networks",
		"flush chain inet boxwire/flowtable add_flows; delete flowtable inet boxwire/flowtable flows",
	} {
		must(gw.SetNetwork(ctx, flowNetwork(1, true)))
		hasFlowtable(t, ns, "br0", "br1")
		must(Check(ctx, ns, "", mine))
		testutil.Run(t, ns, "nft", harm)
		if err := Check(ctx, ns, "", mine); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "boxwire/flowtable") {
			t.Errorf("after %s, Check says %v", harm, err)
		}
	}
	must(gw.Sync(ctx, state))
	hasFlowtable(t, ns, "br0", "br1")
	testutil.Run(t, ns, "nft", "delete table inet boxwire")
	if err := Check(ctx, ns, "", State{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("of the table, that of the flowtable alone is left: %v", err)
	}
	gw = open(t, ns)
	hasFlowtable(t, ns)
	must(gw.Delete(ctx))
	if got := testutil.Run(t, ns, "nft", "list", "ruleset"); got != "" {
		t.Errorf("deleted, there is %s", got)
	}

	const theirs = "table inet boxwire/flowtable {\n}\n"
	fresh := netnstest.New(t)
	testutil.Run(t, fresh, "nft", theirs)
	other := open(t, fresh)
	for _, err := range []error{other.AddNetwork(ctx, flowNetwork(0, true)), other.Sync(ctx, state)} {
		if !errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "boxwire/flowtable") {
			t.Errorf("beside another program's table: %v", err)
		}
	}
	must(other.AddNetwork(ctx, flowNetwork(0, false)))
	must(other.Delete(ctx))
	if got := testutil.Run(t, fresh, "nft", "list", "ruleset"); got != theirs {
		t.Errorf("another program's table is now %s", got)
	}
	testutil.Run(t, fresh, "nft", "delete table inet boxwire/flowtable")
	other = open(t, fresh)
	must(other.AddNetwork(ctx, flowNetwork(0, true)))
	testutil.Run(t, fresh, "nft", "delete table inet boxwire/flowtable; "+theirs)
	state = State{Networks: []Network{flowNetwork(0, true)}}
	if err := Check(ctx, fresh, "", state); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("with another program's table instead, Check says %v", err)
	}
	must(other.DeleteNetwork(ctx, "br0"))
	must(other.Delete(ctx))
	if got := testutil.Run(t, fresh, "nft", "list", "ruleset"); got != theirs {
		t.Errorf("another program's table is now %s", got)
	}
}

// Maintain restores the table, alone or with the other one, and takes in links that come.
func TestMaintainRestoresTheFlowtable(t *testing.T) {
	t.Parallel()
	needFlowtable(t)
	ns := netnstest.New(t)
	all := maintain(t, newMaintainer(open(t, ns), always(State{Networks: []Network{flowNetwork(0, true)}})))
	hasFlowtable(t, ns, "br0")
	expectRestored(t, ns, all, []harm{
		{"delete table inet boxwire/flowtable", ReasonTableRemoved},
		{"flush ruleset", ReasonTableRemoved},
		{"flush chain inet boxwire/flowtable add_flows", ReasonTableChanged},
		{"flush chain inet boxwire/flowtable add_flows; delete flowtable inet boxwire/flowtable flows", ReasonTableChanged},
		{"delete element inet boxwire/flowtable networks { br0 }", ReasonTableChanged},
		{"delete element inet boxwire flowing { br0 }", ReasonTableChanged},
	}, func(string) { hasFlowtable(t, ns, "br0") })
	has := func(devices ...string) {
		t.Helper()
		var got []string
		if !until(func() bool { _, got = flowtableOf(t, ns); return slices.Equal(got, devices) }) {
			t.Errorf("the devices of the flowtable are %v, want %v", got, devices)
		}
	}
	testutil.Run(t, ns, "ip", "link", "add", "br0", "type", "bridge")
	has("br0")
	testutil.Run(t, ns, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0p")
	testutil.Run(t, ns, "ip", "addr", "add", "203.0.113.1/24", "dev", "up0")
	has("br0", "up0")
	testutil.Run(t, ns, "ip", "link", "set", "up0", "master", "br0")
	if throughPorts() {
		has("br0", "up0")
		testutil.Run(t, ns, "ip", "link", "add", "box0", "type", "veth", "peer", "name", "box0p")
		testutil.Run(t, ns, "ip", "link", "set", "box0", "master", "br0")
		has("box0", "br0", "up0")
		testutil.Run(t, ns, "ip", "link", "del", "box0")
	} else { // the kernel would send past the bridge
		has("br0")
	}
	testutil.Run(t, ns, "ip", "link", "set", "up0", "nomaster")
	has("br0", "up0")
	testutil.Run(t, ns, "ip", "link", "del", "up0")
	has("br0")
}

// The flowtable has the links of networks and those with addresses, as they are at each change.
func TestDevicesOfTheFlowtable(t *testing.T) {
	t.Parallel()
	needFlowtable(t)
	host, _ := netnstest.Bridge(t, 1)
	ns := host.NS
	gw := open(t, ns)
	set := func(devices ...string) {
		t.Helper()
		net := boxNetwork(host, 0)
		net.Flowtable = true
		if err := gw.SetNetwork(t.Context(), net); err != nil {
			t.Fatal(err)
		}
		hasDevices(t, ns, withPorts(devices, "box1")...)
	}
	set("br0")
	testutil.Run(t, ns, "ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0p")
	set("br0") // without an address
	testutil.Run(t, ns, "ip", "addr", "add", "203.0.113.1/24", "dev", "up0")
	handles := testutil.Run(t, ns, "nft", "--handle", "list", "chains")
	set("br0", "up0")
	if now := testutil.Run(t, ns, "nft", "--handle", "list", "chains"); now != handles {
		t.Errorf("a link that has come rebuilt the table: %s, was %s", now, handles)
	}
	if err := gw.AddNetwork(t.Context(), Network{Interface: "br1", Subnets: prefixes("10.99.0.0/16"), Flowtable: true}); err != nil {
		t.Fatal(err)
	}
	hasDevices(t, ns, withPorts([]string{"br0", "up0"}, "box1")...)
	testutil.Run(t, ns, "ip", "link", "add", "br1", "type", "bridge")
	set("br0", "br1", "up0")
	testutil.Run(t, ns, "ip", "link", "del", "up0")
	testutil.Run(t, ns, "ip", "link", "del", "br1")
	set("br0")
}
