package topology_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
)

// machine is a host with a bridge and two boxes.
func machine(t *testing.T) (host, web, db *netns.NS) {
	t.Helper()
	host, web, db = netnstest.New(t), netnstest.New(t), netnstest.New(t)
	create := func(spec link.Spec) link.Link {
		t.Helper()
		l, err := link.Create(t.Context(), host, spec)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	var ipv6 link.IPv6Conf
	if netnstest.HasIPv6() {
		ipv6.AddrGenMode = new(link.AddrGenNone) // link-local addresses would come a moment later
	}
	br := create(link.Spec{Name: "br0", Up: true, IPv6: ipv6, Addrs: []netip.Prefix{netip.MustParsePrefix("10.88.0.1/16")}, Kind: link.Bridge{}})
	for i, box := range []*netns.NS{web, db} {
		a := netip.AddrFrom4([4]byte{10, 88, 0, byte(2 + i)})
		create(link.Spec{Name: []string{"vweb", "vdb"}[i], Up: true, Master: br.Ref(), IPv6: ipv6, Kind: link.Veth{Peer: link.Spec{
			NS: box, Name: "eth0", Up: true, IPv6: ipv6, Addrs: []netip.Prefix{netip.PrefixFrom(a, 16)},
		}}})
		if err := route.Add(t.Context(), box, route.Default(netip.MustParseAddr("10.88.0.1"))); err != nil {
			t.Fatal(err)
		}
	}
	return host, web, db
}

// A fleet is the namespaces that a test reads: those of other tests change all the time.
type fleet struct {
	sync.Mutex
	ids map[netns.ID]bool
}

func newFleet(spaces ...*netns.NS) *fleet {
	f := &fleet{ids: make(map[netns.ID]bool)}
	f.add(spaces...)
	return f
}

func (f *fleet) add(spaces ...*netns.NS) {
	f.Lock()
	defer f.Unlock()
	for _, ns := range spaces {
		f.ids[ns.ID()] = true
	}
}

func (f *fleet) has(info netns.Info) bool {
	f.Lock()
	defer f.Unlock()
	return f.ids[info.ID]
}

// rounds is how often what is random is tried.
func rounds() int {
	if testing.Short() {
		return 4
	}
	return 20
}

// of reads some namespaces, and returns what it says of each.
func of(t *testing.T, spaces ...*netns.NS) (all []*topology.Namespace) {
	t.Helper()
	s, err := topology.Read(t.Context(), topology.Options{Some: newFleet(spaces...).has})
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range spaces {
		n := s.Namespace(ns.ID().Ino)
		if n == nil {
			t.Fatalf("%v is not in the snapshot", ns)
		}
		all = append(all, n)
	}
	return all
}

func linkOf(n *topology.Namespace, name string) *topology.Link {
	for _, l := range n.Links {
		if l.Name == name {
			return l
		}
	}
	return new(topology.Link)
}

// A snapshot has what ip shows.
func TestReadIsWhatIPShows(t *testing.T) {
	t.Parallel()
	host, web, db := machine(t)
	ln, err := web.Listen(t.Context(), "tcp4", "0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	all := of(t, host, web, db)
	for i, ns := range []*netns.NS{host, web, db} {
		var links []struct {
			Index   int    `json:"ifindex"`
			Name    string `json:"ifname"`
			MTU     int    `json:"mtu"`
			MAC     string `json:"address"`
			Master  string `json:"master"`
			Flags   []string
			Linked  int `json:"link_index"`
			Details struct {
				Kind string `json:"info_kind"`
			} `json:"linkinfo"`
			Addrs []struct {
				Local string `json:"local"`
				Len   int    `json:"prefixlen"`
			} `json:"addr_info"`
		}
		testutil.JSON(t, ns, &links, "ip", "-j", "-d", "addr")
		if len(links) != len(all[i].Links) {
			t.Errorf("%d links, ip shows %d", len(all[i].Links), len(links))
		}
		for _, want := range links {
			l := linkOf(all[i], want.Name)
			if l.Index != want.Index || l.MTU != want.MTU || l.Kind != want.Details.Kind || l.Master != want.Master ||
				l.Up != slices.Contains(want.Flags, "UP") || l.MAC != want.MAC && want.Name != "lo" {
				t.Errorf("%+v, ip shows %+v", l, want)
			}
			if want.Linked != 0 && (l.Peer == nil || l.Peer.Index != want.Linked) {
				t.Errorf("the other end of %s is %+v, ip shows %d", l.Name, l.Peer, want.Linked)
			}
			for _, a := range want.Addrs {
				if p := netip.PrefixFrom(netip.MustParseAddr(a.Local), a.Len); !slices.Contains(l.Addrs, p) {
					t.Errorf("%s has no address %v", l.Name, p)
				}
			}
		}
	}
	if peer := linkOf(all[0], "vweb").Peer; peer == nil || peer.Inode != web.ID().Ino || peer.Link != "eth0" {
		t.Errorf("vweb leads to %+v", peer)
	}
	if peer := linkOf(all[2], "eth0").Peer; peer == nil || peer.Inode != host.ID().Ino || peer.Link != "vdb" {
		t.Errorf("db's eth0 leads to %+v", peer)
	}
	if want := (topology.Listener{Proto: "tcp", Addr: netip.MustParseAddrPort("0.0.0.0:80")}); !slices.Contains(all[1].Listeners, want) {
		t.Errorf("listeners %v, want %v among them", all[1].Listeners, want)
	}
	if i := slices.IndexFunc(all[1].Routes, topology.Route.IsDefault); i < 0 || all[1].Routes[i].Via != netip.MustParseAddr("10.88.0.1") || all[1].Routes[i].Dev != "eth0" {
		t.Errorf("routes %v", all[1].Routes)
	}
}

// An unchanged machine looks the same each time, in every form.
func TestTheSameMachineLooksTheSame(t *testing.T) {
	t.Parallel()
	host, web, db := machine(t)
	first := ""
	for range rounds() {
		s := &topology.Snapshot{Namespaces: of(t, host, web, db)}
		var b bytes.Buffer
		if err := json.NewEncoder(&b).Encode(s); err != nil {
			t.Fatal(err)
		}
		for _, write := range []func(io.Writer, *topology.Snapshot) error{topology.WriteTree, topology.WriteSVG, topology.WriteDOT, topology.WriteMermaid} {
			if err := write(&b, s); err != nil {
				t.Fatal(err)
			}
		}
		if first == "" {
			first = b.String()
		}
		if b.String() != first {
			t.Fatalf("it looks like\n%s\nand before like\n%s", b.String(), first)
		}
	}
	var again topology.Snapshot
	if err := json.NewDecoder(strings.NewReader(first)).Decode(&again); err != nil || len(again.Namespaces) != 3 {
		t.Errorf("the JSON is read back as %+v, %v", again, err)
	}
}

// A namespace that ends while the machine is read is left out, and disturbs nothing.
func TestNamespacesMayEndMeanwhile(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			ns, err := netns.New(ctx)
			if err != nil {
				continue
			}
			ns.Close()
		}
	}()
	defer func() { stop(); <-ended }()
	host, _, _ := machine(t)
	// Descriptors of this process come and go, and so lead to something else at times.
	held := func(info netns.Info) bool {
		return slices.ContainsFunc(info.Holders, func(h netns.Holder) bool { return h.Pid == os.Getpid() })
	}
	for range rounds() {
		s, err := topology.Read(t.Context(), topology.Options{Some: held})
		if err != nil {
			t.Fatal(err)
		}
		if n := s.Namespace(host.ID().Ino); n == nil || len(n.Notes) > 0 || linkOf(n, "vdb").Peer == nil {
			t.Errorf("%+v", n)
		}
		for _, n := range s.Namespaces {
			if len(n.Notes) > 0 {
				t.Errorf("namespace %d is not left out: %q", n.Inode, n.Notes)
			}
		}
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if s, err := topology.Read(ctx, topology.Options{Some: newFleet().has}); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", s, err)
	}
}

// Of many routes a snapshot has the default routes, and the number of the others.
func TestManyRoutesAreFolded(t *testing.T) {
	t.Parallel()
	_, web, _ := machine(t)
	eth0, err := link.Get(t.Context(), web, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	before := len(of(t, web)[0].Routes)
	routes := make([]route.Route, 1000)
	for i := range routes {
		routes[i] = route.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 32), Dev: eth0.Index}
	}
	if err := route.Add(t.Context(), web, routes...); err != nil {
		t.Fatal(err)
	}
	n := of(t, web)[0]
	if len(n.Routes) != 1 || !n.Routes[0].IsDefault() || n.More != before-1+len(routes) {
		t.Errorf("%d routes and %d more, want the default route and %d more", len(n.Routes), n.More, before-1+len(routes))
	}
}
