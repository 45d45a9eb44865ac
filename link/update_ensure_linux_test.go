package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestEnsureCreatesThenLeavesAlone(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	spec := Spec{Name: "br0", Up: true, Addrs: prefixes("10.0.0.1/24"), Kind: Bridge{AgeingTime: new(time.Minute), LinkLocalLearn: new(false)}}
	br, err := Ensure(ctx, host, spec)
	if err != nil {
		t.Fatal(err)
	}
	outer, inner := everything("out0", br.Index), everything("in0", 0)
	inner.NS, inner.Port = web, PortOptions{}
	outer.Kind = Veth{Peer: inner}
	first, err := Ensure(ctx, host, outer)
	if err != nil {
		t.Fatal(err)
	}
	before := stateOf(t, host, web)
	for range 2 {
		again, err := Ensure(ctx, host, spec)
		if err != nil || again.Index != br.Index || !again.Up {
			t.Errorf("%+v, %v", again, err)
		}
		if again, err = Ensure(ctx, host, outer); err != nil || again.Index != first.Index {
			t.Errorf("%+v, %v", again, err)
		}
	}
	wantSame(t, "Ensure again", before, stateOf(t, host, web))
}

// stateOf is what ip(8) shows of the links and addresses of namespaces, without
// what moves by itself.
func stateOf(t testing.TB, spaces ...*netns.NS) map[string]string {
	t.Helper()
	moves := []string{
		"operstate", "flags", "tentative", "hello_timer", "tcn_timer", "topology_change_timer", "gc_timer", "forward_delay_timer",
		"hold_timer", "message_age_timer", "state", "cost", "designated_port", "no", "id",
		"tso_max_size", "tso_max_segs", // a bridge keeps what its ports had
		"qdisc", // "noop" until it is up for the first time
	}
	state := map[string]string{}
	var flat func(path string, v any)
	flat = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, in := range v {
				if !slices.Contains(moves, k) {
					flat(path+"."+k, in)
				}
			}
		case []any:
			for i, in := range v {
				flat(fmt.Sprint(path, ".", i), in)
			}
		default:
			state[path] = fmt.Sprint(v)
		}
	}
	for i, ns := range spaces {
		var links []map[string]any
		testutil.JSON(t, ns, &links, "ip", "-d", "-j", "address", "show")
		for _, l := range links {
			if addrs, ok := l["addr_info"].([]any); ok { // those that the kernel makes come late
				l["addr_info"] = slices.DeleteFunc(addrs, func(a any) bool { return a.(map[string]any)["scope"] == "link" })
			}
			flat(fmt.Sprint(i, " ", l["ifindex"]), l)
		}
	}
	return state
}

// wantSame fails the test when the state is not what it was.
func wantSame(t *testing.T, what string, before, after map[string]string) {
	t.Helper()
	for k, v := range before {
		if after[k] != v {
			t.Errorf("%s: %s was %q, is %q", what, k, v, after[k])
		}
	}
	for k, v := range after {
		if _, ok := before[k]; !ok {
			t.Errorf("%s: %s was not there, is %q", what, k, v)
		}
	}
}

func TestEnsureChangesToMatch(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	host, web := netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", Kind: Bridge{}})
	pbr := mustCreate(t, web, Spec{Name: "br1", Kind: Bridge{}})
	mustCreate(t, host, Spec{Name: "out0", TxQueues: 2, RxQueues: 3, Kind: Veth{Peer: Spec{NS: web, Name: "in0", TxQueues: 2, RxQueues: 3}}})
	outer, inner := everything("out0", br.Index), everything("in0", pbr.Index)
	inner.NS = web
	outer.Kind = Veth{Peer: inner}
	l, err := Ensure(ctx, host, outer)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		ns   *netns.NS
		spec Spec
	}{{host, outer}, {web, inner}} {
		got, err := Get(ctx, end.ns, end.spec.Name)
		if err != nil {
			t.Fatal(err)
		}
		d, err := got.Details(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if missing := specLacks(end.spec, d.Spec); missing != "" {
			t.Errorf("%s: Details lack %s: %+v", got, missing, d.Spec)
		}
		if w := ipLinks(t, end.ns)[got.Name]; !w.up() || !sameSet(w.addrs(), end.spec.Addrs) {
			t.Errorf("%s: ip shows %+v", got, w)
		}
	}
	if l.MTU != 1400 || !l.Up || l.Master != br.Index {
		t.Errorf("Ensure returned %+v", l)
	}

	spec := Spec{Name: "br0", Up: true, Kind: Bridge{AgeingTime: new(time.Duration(0)), MulticastQuerier: new(true), GroupForwardMask: 8}}
	if _, err := Ensure(ctx, host, spec); err != nil {
		t.Fatal(err)
	}
	if i := ipInfo(t, host, "br0"); i["ageing_time"] != 0.0 || i["mcast_querier"] != 1.0 || i["group_fwd_mask"] != "0x8" {
		t.Errorf("ip shows %v", i)
	}
}

// What Details reads has values that Create refuses, such as the numbers of queues of a
// TUN device.
func TestEnsureTakesWhatDetailsRead(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]Kind{
		"bridge": Bridge{}, "ifb": IFB{}, "tun": Tun{Persist: true}, "tap": Tun{Tap: true, Persist: true, MultiQueue: true},
	} {
		t.Run(name, func(t *testing.T) {
			ns, ctx := netnstest.New(t), t.Context()
			made, err := Create(ctx, ns, Spec{Name: "l0", MTU: 1400, Kind: k})
			if _, tun := k.(Tun); tun {
				needTun(t, err)
			} else {
				testutil.NeedKernel(t, 5, 4, name, err)
			}
			if err != nil {
				t.Fatal(err)
			}
			d, err := made.Details(ctx)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Ensure(ctx, ns, d.Spec)
			if err != nil || got.Index != made.Index || got.MTU != 1400 {
				t.Errorf("Ensure returned %+v, error %v", got, err)
			}
		})
	}
}

func TestEnsureRefusesWhatItCannotMake(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	host, web, other := netnstest.New(t), netnstest.New(t), netnstest.New(t)
	br := mustCreate(t, host, Spec{Name: "br0", AltNames: []string{"bridge"}, Kind: Bridge{}})
	mustCreate(t, host, Spec{Name: "a", Kind: Veth{Peer: Spec{NS: web, Name: "b"}}})
	mustCreate(t, host, Spec{Name: "c", Kind: Veth{Peer: Spec{NS: web, Name: "d"}}})
	before := stateOf(t, host, web, other)
	for _, c := range []struct {
		what  string
		spec  Spec
		words []string
	}{
		{"another kind", Spec{Name: "br0", Kind: Veth{Peer: Spec{Name: "x"}}}, []string{`is of kind "bridge", not "veth"`}},
		{"another index", Spec{Name: "br0", Index: br.Index + 50, Kind: Bridge{}}, []string{"index is", "cannot be changed"}},
		{"other queues", Spec{Name: "a", TxQueues: 7, Kind: Veth{Peer: Spec{NS: web, Name: "b"}}}, []string{"transmit queues is"}},
		{"name of something else", Spec{Name: "bridge", Kind: Bridge{}}, []string{"alternative name of link br0"}},
		{"peer elsewhere", Spec{Name: "a", MTU: 1400, Kind: Veth{Peer: Spec{NS: other, Name: "b"}}}, []string{"other end of link a is not b in netns"}},
		{"peer of another", Spec{Name: "a", MTU: 1400, Kind: Veth{Peer: Spec{NS: web, Name: "d"}}}, []string{"other end of link a is not d in netns"}},
	} {
		_, err := Ensure(ctx, host, c.spec)
		wantErr(t, err, os.ErrExist, append(c.words, "link.Ensure link ")...)
	}
	wantSame(t, "refused", before, stateOf(t, host, web, other))
}

func TestEnsureAtTheSameTime(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := Ensure(context.Background(), ns, Spec{Name: "br0", Up: true, MTU: 1400, Kind: Bridge{}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestChangeOnlyWhatIsNamed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{
		Name: "br0", Alias: "before", Group: 3, Addrs: prefixes("10.0.0.1/24"),
		Kind: Bridge{AgeingTime: new(time.Minute), MaxAge: 10 * time.Second},
	})
	got, err := l.Update(ctx, Spec{Name: "br1", Alias: "after", TxQueueLen: new(5), Addrs: prefixes("10.0.0.1/24", "10.1.0.1/24"), Kind: Bridge{MaxAge: 12 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	w, i := ipFull(t, ns, "br1"), ipInfo(t, ns, "br1")
	if got.Name != "br1" || w.Alias != "after" || w.Group != "3" || w.TxQueueLen != 5 || i["ageing_time"] != 6000.0 || i["max_age"] != 1200.0 {
		t.Errorf("ip shows %+v, %v", w, i)
	}
	if a := ipLinks(t, ns)["br1"]; a.up() || !sameSet(a.addrs(), prefixes("10.0.0.1/24", "10.1.0.1/24")) {
		t.Errorf("ip shows %+v", a)
	}
	if same, err := got.Update(ctx, Spec{}); err != nil || same.Name != "br1" {
		t.Errorf("%v, %v", same, err)
	}
	for what, s := range map[string]Spec{
		"namespace": {NS: netnstest.New(t)}, "peer": {Kind: Veth{Peer: Spec{Name: "x"}}}, "name": {Name: "a b"}, "pointer": {Kind: &Bridge{}},
	} {
		if _, err := got.Update(ctx, s); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := got.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = got.Update(ctx, Spec{MTU: 1400})
	wantErr(t, err, os.ErrNotExist, "link.Update link br1")
}

// Whatever fails last, what was changed before is as it was.
func TestChangeThatFailsUndoesTheRest(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ctx := context.Background()
	host := netnstest.New(t)
	// With an address of their own, or it would change with the ports.
	br := mustCreate(t, host, Spec{Name: "br0", MAC: hw("02:00:00:00:00:10"), MTU: 1500, Up: true, Kind: Bridge{}})
	br1 := mustCreate(t, host, Spec{Name: "br1", MAC: hw("02:00:00:00:00:11"), MTU: 1500, Up: true, Kind: Bridge{}})
	l := mustCreate(t, host, Spec{
		Name: "a", MTU: 1450, Master: br1.Ref(), Addrs: prefixes("10.0.0.1/24"), Port: PortOptions{Isolated: new(true)},
		Kind: Veth{Peer: Spec{Name: "b", Up: true}},
	})
	before := stateOf(t, host)
	conf := []string{"ipv4/conf/a/forwarding", "ipv4/conf/a/rp_filter", "ipv6/conf/a/accept_ra", "ipv6/conf/a/proxy_ndp"}
	sysctls := func() (list []string) {
		for _, k := range conf {
			list = append(list, sysctlOf(t, host, k))
		}
		return list
	}
	old := sysctls()
	for _, c := range []struct {
		what string
		last func(*Spec)
		word string
	}{
		{"name taken", func(s *Spec) { s.Name = "b" }, "taken"},
		{"alternative name taken", func(s *Spec) { s.AltNames = []string{"fine", "br0"} }, "taken"},
		{"port option", func(s *Spec) { s.Port.BackupPort = new(1) }, ""},
		{"address", func(s *Spec) { s.Addrs = append(s.Addrs, prefixes("::1/128")...) }, "::1/128"},
		{"master", func(s *Spec) { s.Master.Index = 4711 }, "master 4711 does not exist"},
		{"kind", func(s *Spec) { s.Kind = Bridge{} }, "kind"},
	} {
		s := everything("", br.Index)
		s.TxQueues, s.RxQueues = 0, 0
		c.last(&s)
		_, err := l.Update(ctx, s)
		if err == nil {
			t.Fatalf("%s: no error", c.what)
		}
		wantErr(t, err, err, "link.Update", c.word)
		t.Log(err)
		wantSame(t, c.what, before, stateOf(t, host))
		if now := sysctls(); !slices.Equal(now, old) {
			t.Errorf("%s: %v are %v, were %v", c.what, conf, now, old)
		}
	}
	// And without the last, it works.
	s := everything("", br.Index)
	s.TxQueues, s.RxQueues = 0, 0
	if _, err := l.Update(ctx, s); err != nil {
		t.Error(err)
	}
}
