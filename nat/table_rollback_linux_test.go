package nat

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/boxwire/boxwire/netns/netnstest"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// world is all that a change may touch: the ruleset without counters, the links as ip
// shows them, and the settings of the network.
type world struct {
	ruleset  any
	links    any
	settings map[string]string
}

func look(t *testing.T, ns *netns.NS) world {
	t.Helper()
	w := world{settings: make(map[string]string)}
	if err := json.Unmarshal([]byte(testutil.Run(t, ns, "nft", "-j", "list", "ruleset")), &w.ruleset); err != nil {
		t.Fatal(err)
	}
	strip(w.ruleset)
	uncount(w.ruleset)
	sortElements(w.ruleset)
	testutil.JSON(t, ns, &w.links, "ip", "-j", "-d", "link")
	_, err := netns.Do(t.Context(), ns, func(context.Context) (any, error) {
		return nil, filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "nf_conntrack_count" {
				return nil
			}
			if text, err := os.ReadFile(path); err == nil {
				w.settings[strings.TrimPrefix(path, "/proc/sys/net/")] = strings.TrimSpace(string(text))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(w.settings) < 100 {
		t.Fatalf("only %d settings are read", len(w.settings))
	}
	return w
}

// uncount takes out what packets change.
func uncount(v any) {
	switch v := v.(type) {
	case map[string]any:
		if c, ok := v["counter"].(map[string]any); ok {
			delete(c, "packets")
			delete(c, "bytes")
		}
		for _, x := range v {
			uncount(x)
		}
	case []any:
		for _, x := range v {
			uncount(x)
		}
	}
}

// same compares with what is there now.
func (w world) same(t *testing.T, ns *netns.NS, when string) {
	t.Helper()
	now := look(t, ns)
	if !reflect.DeepEqual(w.ruleset, now.ruleset) {
		t.Errorf("%s: the ruleset is now\n%s", when, testutil.Run(t, ns, "nft", "list", "ruleset"))
	}
	if !reflect.DeepEqual(w.links, now.links) {
		t.Errorf("%s: the links are\n%v\nwere\n%v", when, now.links, w.links)
	}
	for name, was := range w.settings {
		if is := now.settings[name]; is != was {
			t.Errorf("%s: %s is %q, was %q", when, name, is, was)
		}
	}
}

// fading is a context that ends when it has been asked a number of times, so that each
// step of a call can be its last.
type fading struct {
	context.Context
	left   atomic.Int64
	cancel context.CancelFunc
}

func fade(ctx context.Context, after int) *fading {
	f := new(fading)
	f.Context, f.cancel = context.WithCancel(ctx)
	f.left.Store(int64(after))
	return f
}

func (f *fading) ask() {
	if f.left.Add(-1) == 0 {
		f.cancel()
	}
}

func (f *fading) Done() <-chan struct{} { f.ask(); return f.Context.Done() }
func (f *fading) Err() error            { f.ask(); return f.Context.Err() }

// newPopulated is a host with all kinds of things in its table, and beside it: what a call
// that fails has to leave.
func newPopulated(t *testing.T) (*netns.NS, *NAT) {
	t.Helper()
	ns := host(t)
	ip(t, ns, "link add br1 type bridge\nlink add br2 type bridge\nlink add br9 type bridge\nlink set up0 address 02:00:00:00:01:01")
	setSysctl(t, ns, "ipv4/conf/up0p/forwarding", "1")
	setSysctl(t, ns, "ipv4/ip_local_reserved_ports", "40000")
	testutil.Run(t, ns, "nft", "table ip filter { chain FORWARD { type filter hook forward priority 0; policy accept; }; }; table inet theirs { set s { type ifname; elements = { \"br0\" }; }; }")
	gw := open(t, ns)
	held := State{
		Networks: []Network{
			{Interface: "br0", Subnets: prefixes("10.88.0.0/16", "fd88::/64"), Masquerade: true, AllowTo: []string{"br1"}},
			{Interface: "br1", Subnets: prefixes("10.89.0.0/16"), Internal: true, Pinholes: []Pinhole{pinhole("10.89.0.2:80", 90, "web")}},
		},
		Ports: []Port{
			tcp("0.0.0.0:80", "10.88.0.2:80", "web"), udp("10.1.1.1:53", "10.89.0.2:53", "dns"),
			ranged(udp("0.0.0.0:41000", "10.88.0.2:41000", "rtp"), 41999),
		},
		Policies: []Policy{{Box: addrs("10.88.0.3"), Owner: "db", Egress: allows(t, "tcp 203.0.113.0/24 port 443")}},
	}
	if err := gw.Sync(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	return ns, gw
}

// A context that ends anywhere in a call leaves all as it was, or as the call makes it.
func TestACallThatIsCutOffLeavesAllAsItWas(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	rtp := ranged(udp("0.0.0.0:41000", "10.88.0.2:41000", "rtp"), 41999)
	fresh := Network{Interface: "br2", Subnets: prefixes("10.90.0.0/16", "fd90::/64"), Masquerade: true, AllowTo: []string{"br0"}}
	changed := Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16", "fd89::/64"), SNAT: addrs("192.0.2.1"), Isolated: true}
	for i, c := range []struct {
		verb string
		call func(ctx context.Context, gw *NAT) error
	}{
		{"AddNetwork", func(ctx context.Context, gw *NAT) error { return gw.AddNetwork(ctx, fresh) }},
		{"SetNetwork", func(ctx context.Context, gw *NAT) error { return gw.SetNetwork(ctx, changed) }},
		{"DeleteNetwork", func(ctx context.Context, gw *NAT) error { return gw.DeleteNetwork(ctx, "br0") }},
		{"Publish", func(ctx context.Context, gw *NAT) error {
			return gw.Publish(ctx, tcp("0.0.0.0:81", "10.88.0.2:81", "web"), ranged(udp("10.1.1.1:45000", "10.88.0.2:45000", "rtp"), 45999))
		}},
		{"Unpublish", func(ctx context.Context, gw *NAT) error {
			return gw.Unpublish(ctx, rtp, tcp("0.0.0.0:80", "10.88.0.2:80", "web"))
		}},
		{"UnpublishOwner", func(ctx context.Context, gw *NAT) error { return gw.UnpublishOwner(ctx, "rtp") }},
		{"AddPinholes", func(ctx context.Context, gw *NAT) error {
			return gw.AddPinholes(ctx, pinhole("10.88.0.3:80", 0, "web"))
		}},
		{"DeletePinholes", func(ctx context.Context, gw *NAT) error {
			return gw.DeletePinholes(ctx, pinhole("10.89.0.2:80", 90, "web"))
		}},
		{"AcceptForward", func(ctx context.Context, gw *NAT) error { return gw.AcceptForward(ctx) }},
		{"Sync", func(ctx context.Context, gw *NAT) error {
			return gw.Sync(ctx, State{Networks: []Network{fresh}, Ports: []Port{tcp("0.0.0.0:82", "10.90.0.2:82", "web")}})
		}},
		{"SetPolicies", func(ctx context.Context, gw *NAT) error {
			return gw.SetPolicies(ctx, Policy{Box: addrs("10.88.0.2", "fd88::2"), Owner: "web", Egress: allows(t, "tcp 203.0.113.0/24 except 203.0.113.9/32 port 443")})
		}},
		{"DeletePolicies", func(ctx context.Context, gw *NAT) error { return gw.DeletePolicies(ctx, addrs("10.88.0.3")...) }},
		{"Grant", func(ctx context.Context, gw *NAT) error {
			return gw.Grant(ctx, addrs("10.88.0.3")[0], 24*time.Hour, allows(t, "udp 192.0.2.1 port 53", "tcp 192.0.2.1 port 53").Allow...)
		}},
		{"SetGuards", func(ctx context.Context, gw *NAT) error {
			return gw.SetGuards(ctx, Guard{Port: "up0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Box: addrs("10.88.0.3"), Owner: "db"})
		}},
		{"Sync with policies", func(ctx context.Context, gw *NAT) error {
			p := Policy{Box: addrs("10.90.0.2", "fd90::2"), Owner: "web", Egress: allows(t), Ingress: allows(t, "tcp 192.0.2.0/24 port 80")}
			return gw.Sync(ctx, State{Networks: []Network{fresh}, Policies: []Policy{p}})
		}},
		{"Sync of nothing", func(ctx context.Context, gw *NAT) error { return gw.Sync(ctx, State{}) }},
		{"Delete", func(ctx context.Context, gw *NAT) error { return gw.Delete(ctx) }},
	} {
		if !testutil.Spread(i, 8) {
			continue
		}
		t.Run(c.verb, func(t *testing.T) {
			t.Parallel()
			ns, gw := newPopulated(t)
			before := look(t, ns)
			const each = 20 // the first are tried one by one, later ones not all
			step, later := 1, 7
			if testing.Short() {
				step, later = 9, 29
			}
			for after := 1; ; after += step {
				if after > each {
					step = later
				}
				ctx := fade(t.Context(), after)
				err := c.call(ctx, gw)
				ctx.cancel()
				if err == nil {
					t.Logf("done after %d questions", after)
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("cut off after %d questions: %v", after, err)
				}
				before.same(t, ns, fmt.Sprintf("cut off after %d questions (%v)", after, err))
				if t.Failed() {
					return
				}
			}
			// What was done is as if it had never been cut off.
			other, again := newPopulated(t)
			if err := c.call(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			if got, want := lines(t, ns), lines(t, other); !slices.Equal(got, want) {
				t.Errorf("after the cuts, the ruleset is\n%s\nwithout them\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			want, got := look(t, other), look(t, ns)
			for name, value := range want.settings {
				if got.settings[name] != value && !strings.Contains(name, "stable_secret") {
					t.Errorf("after the cuts, %s is %q, without them %q", name, got.settings[name], value)
				}
			}
		})
	}
}

// lines are those of the ruleset, sorted: two namespaces list their elements, and what
// is made of each, in any order.
func lines(t *testing.T, ns *netns.NS) []string {
	t.Helper()
	words := strings.NewReplacer(", ", "\n", ",\n", "\n", "elements = {", "\n", "}", "\n").Replace(testutil.Run(t, ns, "nft", "--stateless", "list", "ruleset"))
	all := strings.Split(words, "\n")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// A refusal of the kernel that the reads before cannot foresee leaves all as it was.
func TestACommitThatIsRefusedLeavesAllAsItWas(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns, gw := newPopulated(t)
	// An element that is of no network, and another than the network's.
	testutil.Run(t, ns, "nft", `add element inet boxwire pair { "br2" . "br2" : goto icc_off }; add element inet boxwire pair { "br1" . "br9" : goto icc_off }`)
	before := look(t, ns)
	for name, call := range map[string]func() error{
		"AddNetwork": func() error {
			return gw.AddNetwork(t.Context(), Network{Interface: "br2", Subnets: prefixes("10.90.0.0/16", "fd90::/64")})
		},
		"SetNetwork": func() error {
			return gw.SetNetwork(t.Context(), Network{Interface: "br2", Subnets: prefixes("10.90.0.0/16", "fd90::/64"), Masquerade: true})
		},
	} {
		if err := call(); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: %v", name, err)
		}
		before.same(t, ns, name)
	}
}

// What a change closes ahead of the rest is open again when the kernel refuses the rest.
func TestWhatIsClosedAheadIsPutBack(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns, gw := newPopulated(t)
	box := Policy{Box: addrs("10.89.0.2"), Owner: "web", Ingress: allows(t, "tcp 192.0.2.0/24 port 80")}
	if err := gw.SetPolicies(t.Context(), box); err != nil {
		t.Fatal(err)
	}
	// An element of no network, which overlaps the pinhole of the network's new subnet.
	testutil.Run(t, ns, "nft", "add element inet boxwire route4 { 10.90.0.2 . tcp . 80-90 }")
	before := look(t, ns)
	moved := Network{Interface: "br1", Subnets: prefixes("10.90.0.0/16"), Pinholes: []Pinhole{pinhole("10.90.0.2:85", 95, "web")}}
	if err := gw.SetNetwork(t.Context(), moved); !errors.Is(err, os.ErrExist) {
		t.Fatalf("SetNetwork: %v", err)
	}
	before.same(t, ns, "refused")

	testutil.Run(t, ns, "nft", "delete element inet boxwire route4 { 10.90.0.2 . tcp . 80-90 }")
	if err := gw.SetNetwork(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	got, err := gw.ListPolicies(t.Context())
	if err != nil || slices.ContainsFunc(got, func(p PolicyState) bool { return p.Box[0] == box.Box[0] }) {
		t.Errorf("policies: %v, %v", got, err)
	}
	if out := testutil.Run(t, ns, "nft", "list set inet boxwire route4"); strings.Contains(out, "10.89.0.2") || !strings.Contains(out, "10.90.0.2") {
		t.Errorf("pinholes:\n%s", out)
	}
}

// A racingTx is a syncTx. Another program commits after it has built each of its first two batches.
type racingTx struct {
	syncTx
	host  *netns.NS
	t     *testing.T
	races int
}

func (tx *racingTx) Build(ctx context.Context, found []*nft.Element) (*nft.Batch, error) {
	b, err := tx.syncTx.Build(ctx, found)
	if tx.races++; tx.races <= 2 {
		testutil.Run(tx.t, tx.host, "nft", fmt.Sprintf("add table inet theirs%d", tx.races))
	}
	return b, err
}

// What is closed ahead is closed by a commit of its own, also if another program commits meanwhile.
func TestWhatIsClosedAheadIsClosedAlone(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns, gw := newPopulated(t)
	c, err := gw.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer gw.unlock()
	from, err := c.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx := &racingTx{host: ns, t: t}
	if err := gw.run(t.Context(), c, tx); err != nil { // to an empty state
		t.Fatal(err)
	}
	to, err := c.Generation(t.Context())
	if commits := to - from - 2; err != nil || commits != 3 {
		t.Errorf("%d commits, %v, want 3: what goes, the rest, and the records of settings that are restored", commits, err)
	}
	if !tx.differs || !tx.closing.done || len(tx.closing.items) == 0 {
		t.Errorf("the change counts as none: %t, %+v", tx.differs, tx.closing)
	}
	if out := elementsOnly(objects(t, ns)); out["route4"] != nil || out["any4"] != nil || out["egress4"] != nil {
		t.Errorf("left: %v", out)
	}
}

// readonlyEnv makes the test binary a process that cannot write to /proc/sys, and does
// what it is asked on its standard input, a line a call.
const readonlyEnv = "BOXWIRE_NAT_READONLY"

// readonlyCalls are what it can be asked.
var readonlyCalls = map[string]func(ctx context.Context, gw *NAT) error{
	"add": func(ctx context.Context, gw *NAT) error {
		return gw.AddNetwork(ctx, Network{Interface: "br2", Subnets: prefixes("10.90.0.0/16", "fd90::/64"), Masquerade: true})
	},
	"ensure": func(ctx context.Context, gw *NAT) error {
		return gw.SetNetwork(ctx, Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16", "fd89::/64"), Masquerade: true})
	},
	"ensure4": func(ctx context.Context, gw *NAT) error {
		return gw.SetNetwork(ctx, Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16"), Masquerade: true})
	},
	"sync": func(ctx context.Context, gw *NAT) error {
		return gw.Sync(ctx, State{Networks: []Network{{Interface: "br1", Subnets: prefixes("10.89.0.0/16", "fd89::/64")}}})
	},
	"pinhole": func(ctx context.Context, gw *NAT) error {
		return gw.AddPinholes(ctx, Pinhole{Proto: TCP, Box: ap("10.89.0.2:80"), Owner: "web"})
	},
	"policy": func(ctx context.Context, gw *NAT) error {
		return gw.SetPolicies(ctx, Policy{Box: addrs("10.89.0.2"), Owner: "web", Ingress: &Rules{}}, Policy{Box: addrs("10.89.0.3"), Owner: "web", Egress: &Rules{}})
	},
	"move": func(ctx context.Context, gw *NAT) error {
		return gw.SetNetwork(ctx, Network{Interface: "br1", Subnets: prefixes("10.91.0.0/16", "fd89::/64")})
	},
	"open": func(ctx context.Context, gw *NAT) error {
		again, err := Open(ctx, gw.ns, Options{})
		if err == nil {
			err = again.Close()
		}
		return err
	},
	"remove": func(ctx context.Context, gw *NAT) error { return gw.DeleteNetwork(ctx, "br1") },
	"delete": func(ctx context.Context, gw *NAT) error { return gw.Delete(ctx) },
}

// readonly is the main function of that process.
func readonly() int {
	const sys = "/proc/sys"
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount(sys, sys, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err == nil {
		err = unix.Mount("", sys, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err != nil {
		fmt.Println("skip:", err)
		return 0
	}
	ctx := context.Background()
	ns, err := netns.Current()
	var gw *NAT
	if err == nil {
		gw, err = Open(ctx, ns, Options{})
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(strings.ReplaceAll(fmt.Sprint(readonlyCalls[lines.Text()](ctx, gw)), "\n", "; "))
	}
	return 0
}

// What cannot be written to /proc/sys is not recorded, and what is as wanted is not
// written: all that does not need IPv6 to be forwarded goes on working.
func TestWithoutAWritableSysNothingIsLeftHalfMade(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := host(t)
	ip(t, ns, "link add br1 type bridge\nlink add br2 type bridge")
	ask := startReadonly(t, ns)
	empty := look(t, ns)
	refused := func(call string) {
		t.Helper()
		if got := ask(call); !strings.Contains(got, "read-only") || !strings.Contains(got, "net.ipv6.conf.") {
			t.Errorf("%s: %s", call, got)
		}
	}
	refused("add")
	empty.same(t, ns, "AddNetwork")
	if got := ask("ensure4"); got != "<nil>" {
		t.Errorf("a network with IPv4 only: %s", got)
	}
	four := look(t, ns)
	refused("add")
	four.same(t, ns, "AddNetwork beside another")
	refused("ensure")
	four.same(t, ns, "SetNetwork")
	for _, call := range []string{"pinhole", "policy"} {
		if got := ask(call); got != "<nil>" {
			t.Errorf("%s: %s", call, got)
		}
	}
	policed := look(t, ns)
	refused("move") // closes the pinhole ahead, and takes the policy away
	policed.same(t, ns, "SetNetwork with other subnets")
	refused("sync")
	for _, set := range []string{"flipped6"} {
		if out := testutil.Run(t, ns, "nft", "list", "set", "inet", "boxwire", set); strings.Contains(out, "elements") {
			t.Errorf("after Sync: %s", out)
		}
	}
	if got := ask("remove"); got != "<nil>" {
		t.Errorf("DeleteNetwork: %s", got)
	}
	if got := ask("delete"); got != "<nil>" { // the part for policies would stay
		t.Errorf("Delete: %s", got)
	}
	if got := ask("open"); got != "<nil>" {
		t.Errorf("Open: %s", got)
	}
	empty.same(t, ns, "DeleteNetwork")
	if got := ask("ensure4"); got != "<nil>" {
		t.Errorf("again: %s", got)
	}
	if got := ask("delete"); got != "<nil>" {
		t.Errorf("Delete: %s", got)
	}
	if out := testutil.Run(t, ns, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
		t.Errorf("Delete left\n%s", out)
	}
}

// What was written while it could be is said, and not forgotten, and set back once it
// can be again.
func TestWhatCannotBeSetBackIsSaidAndKept(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, call := range []string{"remove", "delete"} {
		ns := host(t)
		ip(t, ns, "link add br1 type bridge")
		gw := open(t, ns)
		before := look(t, ns)
		if err := gw.AddNetwork(t.Context(), Network{Interface: "br1", Subnets: prefixes("10.89.0.0/16", "fd89::/64")}); err != nil {
			t.Fatal(err)
		}
		ask := startReadonly(t, ns)
		says := map[string]string{"remove": "the network is removed, but", "delete": "the ports and networks are gone, but"}[call]
		if got := ask(call); !strings.Contains(got, says) || !strings.Contains(got, "read-only") {
			t.Errorf("%s: %s", call, got)
		}
		if all, err := gw.ListNetworks(t.Context()); len(all) != 0 || err != nil {
			t.Errorf("%s: %v, %v are there", call, all, err)
		}
		if call == "remove" {
			if err := gw.Sync(t.Context(), State{}); err != nil {
				t.Fatal(err)
			}
			before.same(t, ns, "Sync after "+call)
			continue
		}
		if err := gw.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := look(t, ns)
		for name, was := range before.settings {
			if after.settings[name] != was {
				t.Errorf("Delete again: %s is %q, was %q", name, after.settings[name], was)
			}
		}
		if out := testutil.Run(t, ns, "nft", "list", "ruleset"); strings.TrimSpace(out) != "" {
			t.Errorf("Delete again left\n%s", out)
		}
	}
}

// startReadonly starts a process without a writable /proc/sys in ns, and returns what
// asks it.
func startReadonly(t *testing.T, ns *netns.NS) (ask func(call string) string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), readonlyEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := netns.Do(t.Context(), ns, func(context.Context) (any, error) { return nil, cmd.Start() }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	lines := bufio.NewReader(out)
	read := func() string {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the process says %q, %v", line, err)
		}
		return strings.TrimSpace(line)
	}
	if first := read(); strings.HasPrefix(first, "skip:") {
		t.Skipf("/proc/sys cannot be made read-only here: %s", first)
	} else if first != "ready" {
		t.Fatal(first)
	}
	return func(call string) string {
		fmt.Fprintln(in, call)
		return read()
	}
}
