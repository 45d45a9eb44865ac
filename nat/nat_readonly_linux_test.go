package nat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// readOnlyCall is a call of one method. One that reads works on a table that was opened read-only, any
// other is refused there.
type readOnlyCall struct {
	reads bool
	call  func(ctx context.Context, n *NAT, s *topology) error
}

func reading(call func(ctx context.Context, n *NAT, s *topology) error) readOnlyCall {
	return readOnlyCall{reads: true, call: call}
}

func changing(call func(ctx context.Context, n *NAT) error) readOnlyCall {
	return readOnlyCall{call: func(ctx context.Context, n *NAT, _ *topology) error { return call(ctx, n) }}
}

func errorOf[T any](_ T, err error) error { return err }

// What readOnlyCalls name.
var (
	roWeb    = tcp("0.0.0.0:8080", "10.88.0.2:80", "web")
	roOther  = tcp("0.0.0.0:8081", "10.88.0.2:81", "web")
	roBox    = netip.MustParseAddr("10.88.0.2")
	roPolicy = Policy{Box: []netip.Addr{roBox}, Owner: "web", Egress: &Rules{}}
	roHole   = pinhole("10.88.0.2:443", 0, "web")
	roGuard  = Guard{Port: "box0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, Box: []netip.Addr{roBox}, Owner: "web"}
)

// readOnlyCalls has every exported method of NAT but Close.
var readOnlyCalls = map[string]readOnlyCall{
	"NS": reading(func(_ context.Context, n *NAT, s *topology) error {
		return unless(n.NS() == s.host, "another namespace")
	}),
	"Name": reading(func(_ context.Context, n *NAT, _ *topology) error { return unless(n.Name() == "boxwire", n.Name()) }),
	"String": reading(func(_ context.Context, n *NAT, _ *topology) error {
		return unless(n.String() == "table inet boxwire", n.String())
	}),
	"ListPorts": reading(func(ctx context.Context, n *NAT, _ *topology) error {
		all, err := n.ListPorts(ctx)
		return errors.Join(err, unless(len(all) == 1 && all[0].Port == roWeb, all))
	}),
	"ListNetworks": reading(func(ctx context.Context, n *NAT, _ *topology) error {
		all, err := n.ListNetworks(ctx)
		return errors.Join(err, unless(len(all) == 1 && all[0].Interface == "br0" && len(all[0].Pinholes) == 1, all))
	}),
	"ListPolicies": reading(func(ctx context.Context, n *NAT, _ *topology) error {
		all, err := n.ListPolicies(ctx)
		return errors.Join(err, unless(len(all) == 1 && all[0].Owner == "web", all))
	}),
	"ListGuards": reading(func(ctx context.Context, n *NAT, _ *topology) error {
		all, err := n.ListGuards(ctx)
		return errors.Join(err, unless(len(all) == 0, all))
	}),
	"ListDenied": reading(func(ctx context.Context, n *NAT, _ *topology) error { return errorOf(n.ListDenied(ctx)) }),
	"ListFlows":  reading(func(ctx context.Context, n *NAT, _ *topology) error { return errorOf(n.ListFlows(ctx, roBox)) }),
	"WatchDenied": reading(func(ctx context.Context, n *NAT, _ *topology) error {
		for e, err := range n.WatchDenied(ctx) {
			if err != nil || e.Kind == netns.EventSynced {
				return err
			}
		}
		return errors.New("no event says that the present state is complete")
	}),
	"Explain": reading(func(ctx context.Context, n *NAT, s *topology) error {
		causes, err := n.Explain(ctx, roWeb, Hints{Box: s.box, From: netip.MustParseAddr("203.0.113.9")})
		if err == nil && len(causes) == 1 && causes[0].Kind == CauseNoListener {
			return nil
		}
		return errors.Join(err, unless(false, causes))
	}),
	"ExplainOut": reading(func(ctx context.Context, n *NAT, _ *topology) error {
		causes, err := n.ExplainOut(ctx, roBox, netip.MustParseAddr("203.0.113.9"))
		return errors.Join(err, unless(len(causes) == 1 && causes[0].Kind == CausePolicy, causes))
	}),
	"ExpandLink": reading(func(ctx context.Context, n *NAT, _ *topology) error {
		all, err := n.ExpandLink(ctx, "up0", roWeb)
		return errors.Join(err, unless(len(all) == 1, all))
	}),

	"AddNetwork":     changing(func(ctx context.Context, n *NAT) error { return n.AddNetwork(ctx, network1()) }),
	"SetNetwork":     changing(func(ctx context.Context, n *NAT) error { return n.SetNetwork(ctx, network0()) }),
	"DeleteNetwork":  changing(func(ctx context.Context, n *NAT) error { return n.DeleteNetwork(ctx, "br0") }),
	"Publish":        changing(func(ctx context.Context, n *NAT) error { return n.Publish(ctx, roOther) }),
	"PublishFree":    changing(func(ctx context.Context, n *NAT) error { return errorOf(n.PublishFree(ctx, roOther)) }),
	"Unpublish":      changing(func(ctx context.Context, n *NAT) error { return n.Unpublish(ctx, roWeb) }),
	"UnpublishOwner": changing(func(ctx context.Context, n *NAT) error { return n.UnpublishOwner(ctx, "web") }),
	"AddPinholes":    changing(func(ctx context.Context, n *NAT) error { return n.AddPinholes(ctx, pinhole("10.88.0.2:22", 0, "web")) }),
	"DeletePinholes": changing(func(ctx context.Context, n *NAT) error { return n.DeletePinholes(ctx, roHole) }),
	"SetPolicies":    changing(func(ctx context.Context, n *NAT) error { return n.SetPolicies(ctx, roPolicy) }),
	"DeletePolicies": changing(func(ctx context.Context, n *NAT) error { return n.DeletePolicies(ctx, roBox) }),
	"SetGuards":      changing(func(ctx context.Context, n *NAT) error { return n.SetGuards(ctx, roGuard) }),
	"DeleteGuards":   changing(func(ctx context.Context, n *NAT) error { return n.DeleteGuards(ctx, "box0") }),
	"AcceptForward":  changing(func(ctx context.Context, n *NAT) error { return n.AcceptForward(ctx) }),
	"RevokeForward":  changing(func(ctx context.Context, n *NAT) error { return n.RevokeForward(ctx) }),
	"Delete":         changing(func(ctx context.Context, n *NAT) error { return n.Delete(ctx) }),
	"Sync":           changing(func(ctx context.Context, n *NAT) error { return n.Sync(ctx, State{}) }),
	"Proxy": changing(func(ctx context.Context, n *NAT) error {
		return errorOf(n.Proxy(ctx, tcp("[::1]:8080", "10.88.0.2:80", "")))
	}),
	"Grant": changing(func(ctx context.Context, n *NAT) error {
		return n.Grant(ctx, roBox, time.Minute, Rule{Peer: netip.MustParsePrefix("192.0.2.1/32")})
	}),
	"Maintain": changing(func(ctx context.Context, n *NAT) (last error) {
		for _, err := range n.Maintain(ctx, always(State{})) {
			if last != nil {
				return errors.Join(last, errors.New("the loop goes on"))
			}
			last = err
		}
		return last
	}),
}

// unless is nil if something is as wanted, and otherwise an error that shows what there is.
func unless(ok bool, got any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("unexpected: %v", got)
}

// Whoever looks changes nothing: every method either reads, or is refused before anything is sent.
func TestReadOnlyReadsAndChangesNothing(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	s := newTopology(t)
	s.waitReady(t)
	for _, err := range []error{
		s.gw.Publish(t.Context(), roWeb), s.gw.AddPinholes(t.Context(), roHole), s.gw.SetPolicies(t.Context(), roPolicy),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before, generation := s.everything(t), s.generation(t)
	ro := openWith(t, s.host, Options{ReadOnly: true, LoopbackLinks: []string{"loopback0"}})
	methods := reflect.TypeFor[*NAT]()
	rows := 1 // Close
	for i := range methods.NumMethod() {
		name := methods.Method(i).Name
		row, ok := readOnlyCalls[name]
		if name == "Close" {
			continue
		}
		if rows++; !ok {
			t.Errorf("the method %s has no row", name)
			continue
		}
		var sent atomic.Int32
		s.countRequests(t, &sent)
		err := row.call(t.Context(), ro, &s)
		s.countRequests(t, nil)
		switch {
		case row.reads && err != nil:
			t.Errorf("%s: %v", name, err)
		case !row.reads && (!errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "opened read-only") || !strings.HasPrefix(err.Error(), "nat."+name+" ")):
			t.Errorf("%s: %v, want os.ErrPermission and the cause", name, err)
		case !row.reads && sent.Load() != 0:
			t.Errorf("%s sent %d requests before it was refused", name, sent.Load())
		}
		if now := s.generation(t); now != generation {
			t.Errorf("%s has changed the ruleset", name)
			generation = now
		}
	}
	if len(readOnlyCalls)+1 != rows {
		t.Errorf("there are rows of methods that do not exist: %d of %d", len(readOnlyCalls)+1, rows)
	}
	if err := Check(t.Context(), s.host, "", State{Networks: []Network{withPinhole(network0(), roHole)}, Ports: []Port{roWeb}, Policies: []Policy{roPolicy}}); err != nil {
		t.Error(err)
	}
	if err := ro.Close(); err != nil {
		t.Error(err)
	}
	if _, err := ro.ListPorts(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if after := s.everything(t); after != before {
		t.Errorf("the state is another:\n%s", difference(before, after))
	}
}

// difference are the lines of the one text alone, and of the other.
func difference(before, after string) string {
	var b strings.Builder
	for line := range strings.Lines(before) {
		if !strings.Contains(after, line) {
			b.WriteString("- " + line)
		}
	}
	for line := range strings.Lines(after) {
		if !strings.Contains(before, line) {
			b.WriteString("+ " + line)
		}
	}
	return b.String()
}

func withPinhole(n Network, p Pinhole) Network {
	n.Pinholes = append(n.Pinholes, p)
	return n
}

// everything is the host's ruleset, its settings below /proc/sys/net and its sockets.
func (s *topology) everything(t *testing.T) string {
	t.Helper()
	text, err := netns.Do(t.Context(), s.host, func(context.Context) (string, error) {
		var all strings.Builder
		for _, f := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "sctp/eps"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + f)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return "", err
			}
			for line := range strings.Lines(string(text)) {
				if fields := strings.Fields(line); len(fields) > 3 && (!strings.HasPrefix(f, "tcp") || fields[3] == "0A") { // of TCP, who listens
					fmt.Fprintln(&all, f, fields[1:4])
				}
			}
		}
		err := filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "nf_conntrack_count" {
				return nil // gone
			}
			if value, err := os.ReadFile(path); err == nil { // some can be written only
				fmt.Fprintf(&all, "%s %q\n", path, value)
			}
			return nil
		})
		return all.String(), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text + testutil.Run(t, s.host, "nft", "--stateless", "list", "ruleset")
}

func shared(t *testing.T, ns *netns.NS, family int) *nl.Conn {
	t.Helper()
	c, err := nsconn.Shared(ns, family)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// generation asks the kernel for the generation of the host's ruleset, which every commit changes.
func (s *topology) generation(t *testing.T) uint32 {
	t.Helper()
	gen, err := nft.New(shared(t, s.host, unix.NETLINK_NETFILTER)).Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return gen
}

// countRequests counts in sent what the connections of the host send from now on; with nil no more.
func (s *topology) countRequests(t *testing.T, sent *atomic.Int32) {
	t.Helper()
	var count func(nl.Request) nl.Request
	if sent != nil {
		count = func(r nl.Request) nl.Request { sent.Add(1); return r }
	}
	for _, family := range []int{unix.NETLINK_NETFILTER, unix.NETLINK_ROUTE} {
		shared(t, s.host, family).Fault(count)
	}
}

// A table opened read-only is one that is there, and of this version.
func TestOpenReadOnlyInstallsNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		table string // as nft loads it; "" for none
		is    error
		text  string
	}{
		{"", os.ErrNotExist, "there is no table of that name, and ReadOnly installs none"},
		{"table inet boxwire { }", os.ErrExist, "not ours"},
		{"table ip boxwire { }", os.ErrNotExist, "there is no table of that name"},
		{`table inet boxwire { comment "boxwire skeleton 1"; }`, os.ErrExist, "an older version of this library"},
		{`table inet boxwire { comment "boxwire skeleton 99"; }`, os.ErrExist, "a newer version of this library"},
	} {
		ns := netnstest.New(t)
		if c.table != "" {
			testutil.Run(t, ns, "nft", c.table)
		}
		before := testutil.Run(t, ns, "nft", "list", "ruleset")
		n, err := Open(t.Context(), ns, Options{ReadOnly: true})
		if n != nil || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: %v, want %v and %q", c.table, err, c.is, c.text)
		}
		if after := testutil.Run(t, ns, "nft", "list", "ruleset"); after != before {
			t.Errorf("%q: Open has changed the ruleset to\n%s", c.table, after)
		}
	}
	if _, err := Open(t.Context(), netnstest.New(t), Options{ReadOnly: true, Name: "0"}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("a bad name: %v", err)
	}
}

// Reading goes on while another program's change is under way, and sees a table that comes back.
func TestReadOnlyWaitsForNoChange(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	gw := open(t, ns)
	if err := gw.Publish(t.Context(), roWeb); err != nil {
		t.Fatal(err)
	}
	if _, err := gw.lock(t.Context()); err != nil { // as for a change
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ro, err := Open(ctx, ns, Options{ReadOnly: true})
	if err == nil {
		defer ro.Close()
		expectPorts(t, ro, roWeb)
	}
	gw.unlock()
	if err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, ns, "nft", "delete", "table", "inet", "boxwire")
	if _, err := ro.ListPorts(ctx); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a table that is gone: %v", err)
	}
	if err := gw.Sync(ctx, State{Ports: []Port{roOther}}); err != nil {
		t.Fatal(err)
	}
	expectPorts(t, ro, roOther)
	if err := ro.Publish(ctx, roWeb); !errors.Is(err, os.ErrPermission) {
		t.Errorf("%v", err)
	}
}
