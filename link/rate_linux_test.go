package link

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// tcQdisc is a qdisc as tc(8) prints it; its rate is in bytes per second.
type tcQdisc struct {
	Kind    string `json:"kind"`
	Root    bool   `json:"root"`
	Options struct {
		Rate  uint64 `json:"rate"`
		Burst int    `json:"burst"`
		Lat   int    `json:"lat"`
	} `json:"options"`
	Bytes int `json:"bytes"`
	Drops int `json:"drops"`
}

func showQdiscs(t testing.TB, ns *netns.NS, dev string) []tcQdisc {
	t.Helper()
	var list []tcQdisc
	testutil.JSON(t, ns, &list, "tc", "-j", "-s", "qdisc", "show", "dev", dev)
	return list
}

// rateTopology is a box behind a veth, addressed.
func rateTopology(t testing.TB) (host, box *netns.NS, l Link) {
	t.Helper()
	host, box = netnstest.New(t), netnstest.New(t)
	l = mustCreate(t, host, Spec{Name: "web0", Up: true, Addrs: prefixes("10.0.0.1/24"), Kind: Veth{Peer: Spec{NS: box, Name: "eth0", Up: true, Addrs: prefixes("10.0.0.2/24")}}})
	return host, box, l
}

func TestSetRateReadBackAndTakenAway(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, _, l := rateTopology(t)
	testutil.Witness(t, "tc")
	before, err := json.Marshal(showQdiscs(t, host, "web0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ egress, ingress Limit }{
		{Limit{Rate: 8 * Mbit, Burst: 20000, Latency: 30 * time.Millisecond}, Limit{Rate: 4 * Mbit}},
		{Limit{Rate: 80 * Gbit, Burst: 1 << 20}, Limit{Rate: 16 * Mbit, Burst: 9000}}, // changed in place
		{Limit{}, Limit{Rate: 16 * Mbit}},
		{Limit{Rate: Gbit}, Limit{}},
	} {
		if err := l.SetRate(ctx, c.egress, c.ingress); err != nil {
			testutil.NeedKernel(t, 4, 0, "tbf, ingress, ifb, u32 and mirred", err)
		}
		check := func(dev string, m Limit) {
			t.Helper()
			m = m.filled(1500)
			q := showQdiscs(t, host, dev)[0]
			near := func(a, b int) bool { return a >= b-1-b/50 && a <= b+1+b/50 } // the kernel counts in ticks
			if m.Rate == 0 {
				if q.Kind == "tbf" {
					t.Errorf("tc shows %+v on %s", q, dev)
				}
			} else if q.Kind != "tbf" || !q.Root || q.Options.Rate != uint64(m.Rate)/8 || !near(q.Options.Burst, m.Burst) || !near(q.Options.Lat, int(m.Latency.Microseconds())) {
				t.Errorf("tc shows %+v on %s, want %+v", q, dev, m)
			}
		}
		check("web0", c.egress)
		names := ipLinks(t, host)
		if _, ok := names[ifbName(l.Index)]; ok != (c.ingress.Rate != 0) {
			t.Errorf("the ifb is there: %v", ok)
		}
		if c.ingress.Rate != 0 {
			check(ifbName(l.Index), c.ingress)
			if out := testutil.Run(t, host, "tc", "filter", "show", "dev", "web0", "parent", "ffff:"); !strings.Contains(out, "Redirect to device "+ifbName(l.Index)) {
				t.Errorf("tc shows the filters\n%s", out)
			}
		}
		egress, ingress, err := l.Rates(ctx)
		if err != nil || egress.Rate != c.egress.Rate || ingress.Rate != c.ingress.Rate {
			t.Errorf("Rates: %+v, %+v, %v", egress, ingress, err)
		}
		if want := c.egress.filled(1500); egress.Rate != 0 && (egress.Latency-want.Latency).Abs() > time.Millisecond {
			t.Errorf("Rates: %+v, want %+v", egress, want)
		}
	}
	if err := l.SetRate(ctx, Limit{}, Limit{}); err != nil {
		t.Fatal(err)
	}
	after, err := json.Marshal(showQdiscs(t, host, "web0"))
	if err != nil || string(before) != string(after) {
		t.Errorf("tc shows\n%s, before it showed\n%s", after, before)
	}
	if n := len(ipLinks(t, host)); n != 2 {
		t.Errorf("%d links are left", n)
	}
}

func TestSetRateWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, _, l := rateTopology(t)
	testutil.Witness(t, "tc")
	if err := l.SetRate(ctx, Limit{Rate: 8 * Mbit}, Limit{}); err != nil {
		testutil.NeedKernel(t, 4, 0, "tbf", err)
	}
	boom := errors.New("boom")
	err := l.setRate(ctx, Limit{Rate: 16 * Mbit}, Limit{Rate: Mbit}, func(ctx context.Context, s *rateState, m Limit) error {
		return errors.Join(boom, l.redirectIngress(ctx, s, m)) // after all has been made
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if q := showQdiscs(t, host, "web0"); len(q) != 1 || q[0].Options.Rate != 1e6 {
		t.Errorf("after a failure tc shows %+v", q)
	}
	if n := len(ipLinks(t, host)); n != 2 {
		t.Errorf("%d links are left", n)
	}
	// Filters that others added to ours stay, too.
	limit := Limit{Rate: Mbit}
	if err := l.SetRate(ctx, Limit{}, limit); err != nil {
		t.Fatal(err)
	}
	testutil.Run(t, host, "tc", "filter", "add", "dev", "web0", "parent", "ffff:", "prio", "7", "protocol", "ip", "u32", "match", "u32", "0", "0", "flowid", "ffff:1")
	wantErr(t, l.SetRate(ctx, Limit{}, Limit{}), os.ErrExist, "not alone: filters of another")
	testutil.Run(t, host, "tc", "filter", "del", "dev", "web0", "parent", "ffff:", "prio", "7")
	// An ifb that was deleted is made again.
	testutil.Run(t, host, "ip", "link", "del", ifbName(l.Index))
	if _, in, err := l.Rates(ctx); in.Rate != 0 || err != nil {
		t.Errorf("limited to %v without the ifb, %v", in.Rate, err)
	}
	if err := l.SetRate(ctx, Limit{}, limit); err != nil {
		t.Error(err)
	}
	if _, in, err := l.Rates(ctx); in.Rate != Mbit || err != nil {
		t.Errorf("limited to %v, %v", in.Rate, err)
	}
	if err := l.SetRate(ctx, Limit{}, Limit{}); err != nil {
		t.Error(err)
	}
	// What others made stays.
	testutil.Run(t, host, "tc", "qdisc", "add", "dev", "web0", "ingress")
	wantErr(t, l.SetRate(ctx, Limit{}, Limit{Rate: Mbit}), os.ErrExist, "ingress qdisc that is not of this library")
	testutil.Run(t, host, "tc", "qdisc", "replace", "dev", "web0", "root", "handle", "7:", "tbf", "rate", "1mbit", "burst", "9k", "latency", "9ms")
	wantErr(t, l.SetRate(ctx, Limit{Rate: Mbit}, Limit{}), os.ErrExist, "tbf")
	if err := l.SetRate(ctx, Limit{}, Limit{}); err != nil {
		t.Error(err)
	}
	if q := showQdiscs(t, host, "web0"); len(q) != 2 || q[0].Options.Rate != 125000 {
		t.Errorf("tc shows %+v", q)
	}
	for want, m := range map[string]Limit{
		"no rate": {Burst: 1}, "less than a byte": {Rate: 7}, "burst of -1": {Rate: Mbit, Burst: -1}, "latency of 2m": {Rate: Mbit, Latency: 2 * time.Minute}, "rate 9000000000Gbit": {Rate: 9e9 * Gbit},
	} {
		wantErr(t, l.SetRate(ctx, m, Limit{}), os.ErrInvalid, "egress: ", want)
		wantErr(t, l.SetRate(ctx, Limit{}, m), os.ErrInvalid, "ingress: ", want)
	}
}

// Real traffic in both directions. What a bucket lets through in a time is at
// most its burst and what the rate gives in it; that bound needs no quick machine.
func TestSetRateHoldsForTraffic(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, box, l := rateTopology(t)
	limit := Limit{Rate: 16 * Mbit, Burst: 30000}
	if err := l.SetRate(ctx, limit, limit); err != nil {
		testutil.NeedKernel(t, 4, 0, "tbf, ingress, ifb, u32 and mirred", err)
	}
	total := 2 << 20
	if testing.Short() {
		total = 1 << 19
	}
	for _, way := range []struct {
		name     string
		from, to *netns.NS
		addr     string
		dev      string
	}{
		{"egress", host, box, "10.0.0.2:9", "web0"},
		{"ingress", box, host, "10.0.0.1:9", ifbName(l.Index)},
	} {
		ln, err := way.to.Listen(ctx, "tcp", way.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			c, err := way.from.Dial(ctx, "tcp", way.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, err := c.Write(make([]byte, total)); err != nil {
				t.Error(err)
			}
		}()
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		start, first := time.Now(), 0
		if first, err = c.Read(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, c)
		took := time.Since(start)
		c.Close()
		if err != nil || int(n)+first != total {
			t.Fatal(n, err)
		}
		// Less than the rate allows passed in the time it took, from the
		// first read on. Headers make it less still.
		if most := float64(limit.Burst) + took.Seconds()*float64(limit.Rate)/8; float64(n) > most {
			t.Errorf("%s: %d bytes in %v, the limit lets %0.f through", way.name, n, took, most)
		}
		if q := showQdiscs(t, host, way.dev)[0]; q.Kind != "tbf" || q.Bytes < total {
			t.Errorf("%s: tc counts %+v, %d bytes were sent", way.name, q, total)
		}
	}
}

// Where there is no ifb, a policer limits what comes in.
func TestSetRateByAPolicer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	host, _, l := rateTopology(t)
	testutil.Witness(t, "tc")
	for _, m := range []Limit{{Rate: 8 * Mbit, Burst: 20000}, {Rate: 16 * Mbit, Burst: 20000}} {
		err := l.setRate(ctx, Limit{}, m, l.policeIngress)
		if err != nil {
			if q := showQdiscs(t, host, "web0"); len(q) != 1 {
				t.Errorf("after a failure tc shows %+v", q)
			}
		}
		testutil.NeedKernel(t, 4, 0, "the actions of tc (act_police)", err)
		_, in, err := l.Rates(ctx)
		if err != nil || in.Rate != m.Rate || in.Burst != m.Burst {
			t.Errorf("Rates: %+v, %v", in, err)
		}
		if out := testutil.Run(t, host, "tc", "filter", "show", "dev", "web0", "parent", "ffff:"); !strings.Contains(out, "rate "+m.Rate.String()) || !strings.Contains(out, "action drop") {
			t.Errorf("tc shows the filters\n%s", out)
		}
	}
	if err := l.SetRate(ctx, Limit{}, Limit{}); err != nil {
		t.Fatal(err)
	}
	if q := showQdiscs(t, host, "web0"); len(q) != 1 {
		t.Errorf("tc shows %+v", q)
	}
}

func TestRateString(t *testing.T) {
	t.Parallel()
	for r, want := range map[Rate]string{0: "0bit", 999: "999bit", 8 * Kbit: "8Kbit", 1500 * Mbit: "1500Mbit", 10 * Gbit: "10Gbit"} {
		if r.String() != want {
			t.Errorf("%d: %s, want %s", uint64(r), r, want)
		}
	}
}

// Recorded from tc(8) of iproute2 6.1, with the rate table of the first cut out
// and the handle and priority of this package:
//
//	tc qdisc add dev a0 root handle b0e0: tbf rate 8mbit burst 20000 latency 50ms
//	tc qdisc add dev a0 ingress
//	tc filter add dev a0 parent ffff: protocol all prio 45280 u32 match u32 0 0 action mirred egress redirect dev ifb0
//	tc qdisc del dev a0 ingress
func TestRateBytesEqualRecorded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		got  nl.Request
		want string
	}{
		{"tbf", newTBF(4, Limit{Rate: 8 * Mbit, Burst: 20000, Latency: 50 * time.Millisecond}),
			`00000000 04000000 0000e0b0 ffffffff 00000000 08000100 74626600 34000200 28000100 03010000 ffff0000 40420f00
			00000000 00000000 00000000 70110100 b4c40400 00000000 08000600 204e0000`},
		{"ingress", newIngress(4), `00000000 04000000 0000ffff f1ffffff 00000000 0c000100 696e6772 65737300`},
		{"redirect", redirect(4, 5), `00000000 04000000 00000000 0000ffff 0003e0b0 08000100 75333200 60000200 38000700 34000100 0b000100 6d697272 65640000
			24000280 20000200 00000000 00000000 04000000 00000000 00000000 01000000 05000000 24000500 01000100 00000000 00000000 00000000 00000000 00000000 00000000 00000000`},
		{"delete", delQdisc(4, tcIngress), `00000000 04000000 0000ffff f1ffffff 00000000`},
	} {
		if want := hexBytes(t, c.want); !sameNested(c.got.Body, want, sizeofTcMsg) {
			t.Errorf("%s\n got %x\nwant %x", c.name, c.got.Body, want)
		}
	}
}

func FuzzDecodeTC(f *testing.F) {
	m := Limit{Rate: 80 * Gbit, Burst: 20000, Latency: time.Millisecond}
	f.Add(newTBF(4, m).Body)
	f.Add(redirect(4, 5).Body)
	f.Add(police(4, m).Body)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var o tcObject
		if decodeTC(&o, b) == nil && (o.limit.Burst < 0 || o.limit.Latency < 0) {
			t.Errorf("%+v", o)
		}
	})
}

func TestDecodeTCReadsWhatWasSent(t *testing.T) {
	t.Parallel()
	m := Limit{Rate: 80 * Gbit, Burst: 640000, Latency: 2 * time.Millisecond}
	var o tcObject
	if err := decodeTC(&o, newTBF(4, m).Body); err != nil || o.limit != m || o.index != 4 || o.parent != tcRoot {
		t.Errorf("%+v, %v", o, err)
	}
	m.Latency = 0
	if err := decodeTC(&o, police(4, m).Body); err != nil || o.limit != m || o.info>>16 != ratePrio {
		t.Errorf("%+v, %v", o, err)
	}
	if err := decodeTC(&o, redirect(4, 5).Body); err != nil || o.to != 5 {
		t.Errorf("%+v, %v", o, err)
	}
}

// What SetRate made goes with the link, one by one and among many.
func TestDeleteTakesTheIFBAlong(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, del := range map[string]func(Link) error{
		"Delete":    func(l Link) error { return l.Delete(ctx) },
		"DeleteAll": func(l Link) error { return DeleteAll(ctx, l) },
		"both named": func(l Link) error {
			ifb, err := Get(ctx, l.NS(), ifbName(l.Index))
			return errors.Join(err, DeleteAll(ctx, ifb, l, ifb))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, _, l := rateTopology(t)
			if err := l.SetRate(ctx, Limit{}, Limit{Rate: Mbit}); err != nil {
				testutil.NeedKernel(t, 4, 0, "tbf, ingress, ifb, u32 and mirred", err)
			}
			testutil.Run(t, host, "ip", "link", "show", ifbName(l.Index))
			if err := del(l); err != nil {
				t.Error(err)
			}
			onlyLo(t, host)
		})
	}
}
