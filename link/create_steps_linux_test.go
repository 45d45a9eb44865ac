package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// fullLink is what ip(8) prints of the settings that any link has.
type fullLink struct {
	TxQueueLen  int      `json:"txqlen"`
	Group       string   `json:"group"`
	Alias       string   `json:"ifalias"`
	AltNames    []string `json:"altnames"`
	TxQueues    int      `json:"num_tx_queues"`
	RxQueues    int      `json:"num_rx_queues"`
	GSOMaxSize  int      `json:"gso_max_size"`
	GSOMaxSegs  int      `json:"gso_max_segs"`
	GROMaxSize  int      `json:"gro_max_size"`
	AddrGenMode string   `json:"inet6_addr_gen_mode"`
	Info        struct {
		Port map[string]any `json:"info_slave_data"`
	} `json:"linkinfo"`
}

func ipFull(t testing.TB, ns *netns.NS, name string) fullLink {
	t.Helper()
	testutil.Witness(t, "ip")
	var list []fullLink
	testutil.JSON(t, ns, &list, "ip", "-d", "-j", "link", "show", name)
	return list[0]
}

// Linux 5.15 and later would make one for each possible processor; with one of them,
// or before, this shows nothing.
func TestVethHasOneQueueEachWay(t *testing.T) {
	t.Parallel()
	host, web := netnstest.New(t), netnstest.New(t)
	l := mustCreate(t, host, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: web, Name: "b", Up: true}}})
	mustCreate(t, host, Spec{Name: "c", TxQueues: 3, RxQueues: 2, Kind: Veth{Peer: Spec{NS: web, Name: "d", RxQueues: 3}}})
	mustCreate(t, host, Spec{Name: "e", TxQueues: 3, RxQueues: 3, Kind: Veth{Peer: Spec{NS: web, Name: "f"}}})
	if d, err := l.Details(t.Context()); err != nil || d.Spec.TxQueues != 1 || d.Spec.RxQueues != 1 {
		t.Errorf("details %+v, error %v", d.Spec, err)
	}
	for _, w := range []struct {
		ns     *netns.NS
		name   string
		tx, rx int
	}{{host, "a", 1, 1}, {web, "b", 1, 1}, {host, "c", 3, 2}, {web, "d", 1, 3}, {host, "e", 3, 3}, {web, "f", 1, 1}} {
		if got := ipFull(t, w.ns, w.name); got.TxQueues != w.tx || got.RxQueues != w.rx {
			t.Errorf("%s: %d and %d queues, want %d and %d", w.name, got.TxQueues, got.RxQueues, w.tx, w.rx)
		}
	}
}

func sysctlOf(t testing.TB, ns *netns.NS, key string) string {
	t.Helper()
	return strings.TrimSpace(testutil.Run(t, ns, "cat", "/proc/sys/net/"+key))
}

// everything is a spec with every setting that any link has in the kernels from
// 5.10 on.
func everything(name string, master int) Spec {
	return Spec{
		Name: name, MTU: 1400, MAC: hw("02:00:00:00:00:01"), Master: Ref{Index: master}, Up: true, Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64"),
		Group: 7, Alias: "what for: " + name, AltNames: []string{name + "-with-a-name-that-is-longer", name + "-alt"},
		TxQueueLen: new(500), TxQueues: 2, RxQueues: 3, GSOMaxSize: 50000, GSOMaxSegs: 40,
		Port: PortOptions{Isolated: new(true), MulticastFlood: new(false), Learning: new(false)},
		IPv4: IPv4Conf{
			Forwarding: new(true), RouteLocalnet: new(true), RPFilter: new(2), ProxyARP: new(true), AcceptLocal: new(true), ARPIgnore: new(1),
			ARPAnnounce: new(2), SendRedirects: new(false),
		},
		IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone), AcceptRA: new(0), ProxyNDP: new(true), DADTransmits: new(0)},
	}
}

// A link without another end may have its carrier when it is up: Create reports it.
func TestCreateTellsOfTheCarrier(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	l, err := Create(t.Context(), ns, Spec{Name: "ifb0", Alias: "a", Up: true, Kind: IFB{}})
	if testutil.NeedKernel(t, 5, 4, "ifb", err); err != nil {
		t.Fatal(err)
	}
	if got, err := Get(t.Context(), ns, "ifb0"); err != nil || l.OperState != got.OperState || !l.Up || !l.Running {
		t.Errorf("Create returned %+v, Get %+v (%v)", l, got, err)
	}
}

func TestCreateWithEverySettingOnBothEnds(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Up: true, Kind: Bridge{}})
	pbr := mustCreate(t, web, Spec{Name: "br1", Up: true, Kind: Bridge{}})
	outer, inner := everything("out0", br.Index), everything("in0", pbr.Index)
	inner.NS = web
	outer.Kind = Veth{Peer: inner}
	l := mustCreate(t, host, outer)
	if !l.Up || l.Group != 7 {
		t.Errorf("Create returned %+v", l)
	}
	for _, end := range []struct {
		ns   *netns.NS
		spec Spec
	}{{host, outer}, {web, inner}} {
		s := end.spec
		w, links := ipFull(t, end.ns, s.Name), ipLinks(t, end.ns)
		if w.TxQueueLen != 500 || w.Group != "7" || w.Alias != s.Alias || w.TxQueues != 2 || w.RxQueues != 3 || w.GSOMaxSize != 50000 ||
			w.GSOMaxSegs != 40 || w.AddrGenMode != "none" || w.Info.Port["isolated"] != true || w.Info.Port["mcast_flood"] != false ||
			w.Info.Port["learning"] != false {
			t.Errorf("%s: ip shows %+v", s.Name, w)
		}
		if slices.Sort(w.AltNames); !slices.Equal(w.AltNames, []string{s.Name + "-alt", s.Name + "-with-a-name-that-is-longer"}) {
			t.Errorf("%s: alternative names %v", s.Name, w.AltNames)
		}
		if got := links[s.Name]; !got.up() || got.MTU != 1400 || !sameSet(got.addrs(), s.Addrs) || len(got.Addrs) != 2 {
			t.Errorf("%s: ip shows %+v", s.Name, got)
		}
		for key, want := range map[string]string{
			"ipv4/conf/%/forwarding": "1", "ipv4/conf/%/route_localnet": "1", "ipv4/conf/%/rp_filter": "2", "ipv4/conf/%/proxy_arp": "1",
			"ipv4/conf/%/accept_local": "1", "ipv4/conf/%/arp_ignore": "1", "ipv4/conf/%/arp_announce": "2", "ipv4/conf/%/send_redirects": "0",
			"ipv6/conf/%/addr_gen_mode": "1", "ipv6/conf/%/accept_ra": "0", "ipv6/conf/%/proxy_ndp": "1", "ipv6/conf/%/dad_transmits": "0",
		} {
			if got := sysctlOf(t, end.ns, strings.ReplaceAll(key, "%", s.Name)); got != want {
				t.Errorf("%s is %s, want %s", strings.ReplaceAll(key, "%", s.Name), got, want)
			}
		}
		got, err := Get(ctx, end.ns, s.AltNames[0])
		if err != nil {
			t.Fatal(err)
		}
		d, err := got.Details(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if missing := specLacks(s, d.Spec); missing != "" {
			t.Errorf("%s: Details lack %s: %+v", s.Name, missing, d.Spec)
		}
		if d.MinMTU != 68 || d.MaxMTU != 65535 || !d.Carrier || d.CarrierUps == 0 || d.Broadcast.String() != "ff:ff:ff:ff:ff:ff" || d.SlaveKind != "bridge" || d.Port.Number == 0 {
			t.Errorf("%s: Details: %+v", s.Name, d)
		}
	}
}

// Receive offload sizes, which are newer.
func TestCreateWithOffloadSizes(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	_, err := Create(context.Background(), ns, Spec{Name: "a", GROMaxSize: 100000, GSOMaxSize: 100000, Kind: Veth{Peer: Spec{Name: "b", GROMaxSize: 70000}}})
	testutil.NeedKernel(t, 5, 19, "gro_max_size", err)
	if w := ipFull(t, ns, "a"); w.GROMaxSize != 100000 || w.GSOMaxSize != 100000 {
		t.Errorf("ip shows %+v", w)
	}
	if w := ipFull(t, ns, "b"); w.GROMaxSize != 70000 {
		t.Errorf("ip shows %+v", w)
	}
	l, err := Create(context.Background(), ns, Spec{Name: "c", GROIPv4MaxSize: 70000, GSOIPv4MaxSize: 80000, Kind: Veth{Peer: Spec{Name: "d"}}})
	testutil.NeedKernel(t, 6, 3, "gro_ipv4_max_size", err)
	d, err := l.Details(context.Background())
	if err != nil || d.Spec.GROIPv4MaxSize != 70000 || d.Spec.GSOIPv4MaxSize != 80000 {
		t.Errorf("Details: %+v, %v", d.Spec, err)
	}
}

func TestCreateWithLateFailureUndoesTheRest(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	for _, c := range []struct {
		what   string
		change func(outer, inner *Spec)
		is     error
		words  []string
	}{
		{"alternative name taken", func(o, _ *Spec) { o.AltNames = []string{"fine", "br0"} }, os.ErrExist, []string{"link out0", "fine, br0"}},
		{"alternative name of the peer taken", func(_, i *Spec) { i.AltNames = []string{"lo"} }, os.ErrExist, []string{"link in0", "lo is taken"}},
		{"port option refused", func(o, _ *Spec) { o.Port.State = new(PortForwarding) }, nil, []string{"link out0", "without a carrier"}},
		{"port option of the peer without a bridge", func(_, i *Spec) { i.Master.Index = 1 }, errors.ErrUnsupported, []string{"link in0", "takes no ports"}},
		{"bond option on a bridge", func(o, _ *Spec) { o.BondPort.Queue = new(uint16(1)) }, os.ErrInvalid, []string{"link out0", "no bond"}},
		{"IPv6 setting on a link too small for IPv6", func(o, _ *Spec) { o.MTU, o.Addrs = 1000, nil }, nil, []string{"link out0"}},
		{"IPv6 sysctl refused", func(_, i *Spec) { i.IPv6.DADTransmits = new(-1 << 30) }, os.ErrInvalid, []string{"dad_transmits"}},
		{"address after settings", func(o, _ *Spec) { o.Addrs = append(o.Addrs, prefixes("::1/128")...) }, nil, []string{"::1/128"}},
		{"address of the peer after settings", func(_, i *Spec) { i.Addrs = append(i.Addrs, prefixes("::1/128")...) }, nil, []string{"::1/128", "in0"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			host, web := netnstest.New(t), netnstest.New(t)
			br := mustCreate(t, host, Spec{Name: "br0", Kind: Bridge{}})
			outer, inner := everything("out0", br.Index), Spec{Name: "in0", NS: web, Up: true, Addrs: prefixes("10.0.0.1/24"), IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone)}}
			c.change(&outer, &inner)
			outer.Kind = Veth{Peer: inner}
			_, err := Create(ctx, host, outer)
			t.Log(err)
			if err == nil {
				t.Fatal("no error")
			}
			if c.is == nil {
				c.is = err
			}
			wantErr(t, err, c.is, c.words...)
			onlyThese(t, host, "lo", "br0")
			onlyLo(t, web)
		})
	}
}

func TestCreateInPlaceWithParentInAnotherNamespace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	parent := mustCreate(t, host, Spec{Name: "uplink", Up: true, Kind: Veth{Peer: Spec{Name: "wire", Up: true}}})
	l := mustCreate(t, host, Spec{
		Name: "eth0", NS: web, Parent: parent.Ref(), Up: true, Addrs: prefixes("192.0.2.9/24"), AltNames: []string{"outside"},
		Kind: Macvlan{Mode: MacvlanBridge},
	})
	if !l.NS().Equal(web) || l.ParentIndex != parent.Index || l.LinkNSID < 0 {
		t.Errorf("Create returned %+v in %v", l, l.NS())
	}
	if w := ipLinks(t, web)["eth0"]; w.Info.Kind != "macvlan" || !w.up() || !sameSet(w.addrs(), prefixes("192.0.2.9/24")) {
		t.Errorf("ip shows %+v", w)
	}
	onlyThese(t, host, "lo", "uplink", "wire")
	_, err := Create(ctx, host, Spec{Name: "eth0", NS: web, Parent: parent.Ref(), Kind: Macvlan{}})
	wantErr(t, err, os.ErrExist, "the name eth0 is taken in netns "+web.String())
	_, err = Create(ctx, host, Spec{Name: "eth1", NS: web, Parent: Ref{Index: 4711}, Kind: Macvlan{}})
	wantErr(t, err, os.ErrNotExist, "parent 4711 does not exist in netns "+host.String())
	_, err = Create(ctx, host, Spec{Name: "eth1", NS: web, Parent: parent.Ref(), Kind: Macvlan{}, Addrs: prefixes("::1/128")})
	wantErr(t, err, err, "::1/128")
	onlyThese(t, web, "lo", "eth0")

	// Both ends of a pair elsewhere.
	db := netnstest.New(t)
	mustCreate(t, host, Spec{Name: "web", NS: web, Up: true, Kind: Veth{Peer: Spec{NS: db, Name: "db", Up: true}}})
	mustCreate(t, host, Spec{Name: "x", NS: web, Up: true, Kind: Veth{Peer: Spec{Name: "y", Up: true, Addrs: prefixes("10.0.0.1/24")}}})
	if w := ipLinks(t, web); !w["web"].up() || !w["x"].up() || len(w["y"].addrs()) != 1 || !ipLinks(t, db)["db"].up() {
		t.Errorf("ip shows %+v", w)
	}
	onlyThese(t, host, "lo", "uplink", "wire")
}

// specLacks returns the first field of want that got does not have.
func specLacks(want, got Spec) string {
	slices.Sort(want.AltNames)
	slices.Sort(got.AltNames)
	want.Addrs, want.NS, want.Kind = nil, nil, nil
	return lacks(want, got)
}

// The kernel lets a bridge's MTU follow its ports unless it was changed once.
func TestBridgeKeepsMTUThatWasAskedFor(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	for _, mtu := range []int{minMTU, 1400, 1500, 9000, maxMTU} {
		name := fmt.Sprint("br", mtu)
		br := mustCreate(t, ns, Spec{Name: name, MTU: mtu, Up: true, Kind: Bridge{}})
		mustCreate(t, ns, Spec{Name: fmt.Sprint("p", mtu), Master: br.Ref(), MTU: 1450, Kind: Veth{Peer: Spec{Name: fmt.Sprint("q", mtu)}}})
		if w := ipLinks(t, ns)[name]; br.MTU != mtu || w.MTU != mtu {
			t.Errorf("Create returned %+v, ip shows %+v", br, w)
		}
	}
	mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	br, err := Get(context.Background(), ns, "br0")
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, ns, Spec{Name: "p0", Master: br.Ref(), MTU: 1450, Kind: Veth{Peer: Spec{Name: "q0"}}})
	if w := ipLinks(t, ns)["br0"]; w.MTU != 1450 {
		t.Errorf("without a wish ip shows %+v", w)
	}
}
