package link

import (
	"context"
	"errors"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// What ip(8) would send is read as what it was asked for: options stand in the
// same form in both directions.
func TestDetailsOfMessagesOfIP(t *testing.T) {
	t.Parallel()
	for name, body := range readGolden(t) {
		s := goldens[name]
		var d Details
		if err := decodeDetails(&d, body); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Kind == nil {
			continue // reported by an attribute that requests lack: whose port it is
		}
		if name == "macvlan-sources" {
			s.Kind = Macvlan{Sources: s.Kind.(Macvlan).Sources}
		}
		if missing := lacks(s.Kind, d.Spec.Kind); missing != "" {
			t.Errorf("%s: lacks %s:\n got %+v\nwant %+v", name, missing, d.Spec.Kind, s.Kind)
		}
		s.Kind = nil
		if missing := lacks(s, d.Spec); missing != "" {
			t.Errorf("%s: lacks %s: %+v", name, missing, d.Spec)
		}
		if len(d.Data) > 0 && declare(d.Spec.Kind).other == nil && d.Data[0].Type != 3 {
			t.Errorf("%s: left over: %v", name, d.Data)
		}
	}
}

func TestDetailsKeepWhatTheyDoNotKnow(t *testing.T) {
	t.Parallel()
	b := appendIfInfo(nil, 5, unix.IFF_UP, 0)
	b = nl.AppendString(b, unix.IFLA_IFNAME, "x")
	b, info := nl.Begin(b, unix.IFLA_LINKINFO)
	b = nl.AppendString(b, unix.IFLA_INFO_KIND, "bridge")
	b, data := nl.Begin(b, unix.IFLA_INFO_DATA)
	b = nl.AppendU32(b, 120, 7)
	nl.End(b, data)
	nl.End(b, info)
	b = nl.AppendU32(b, 121, 8)
	b = nl.AppendAttr(b, unix.IFLA_STATS64, make([]byte, 8*30)) // longer than today's
	b = nl.AppendAttr(b, 9999, []byte{1})
	var d Details
	if err := decodeDetails(&d, b); err != nil {
		t.Fatal(err)
	}
	if len(d.Data) != 1 || d.Data[0].Type != 120 || len(d.Unknown) != 1 || d.Unknown[0].Type != 121 || d.Flags != unix.IFF_UP {
		t.Errorf("%+v", d)
	}
}

func TestStatsCountPackets(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns, web := netnstest.New(t), netnstest.New(t)
	l := mustCreate(t, ns, Spec{
		Name: "a", Up: true, Addrs: prefixes("10.0.0.1/24"), IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone)},
		Kind: Veth{Peer: Spec{NS: web, Name: "b", Up: true, Addrs: prefixes("10.0.0.2/24"), IPv6: IPv6Conf{AddrGenMode: new(AddrGenNone)}}},
	})
	c := boxBridge{host: ns}
	c.reach(t, ns, web, prefixes("10.0.0.2/24"))
	if err := l.SetDown(ctx); err != nil { // so that nothing moves any more
		t.Fatal(err)
	}
	s, err := l.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Details(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var w []struct {
		Stats struct {
			Rx, Tx struct{ Packets, Bytes, Errors, Dropped uint64 }
		} `json:"stats64"`
	}
	testutil.JSON(t, ns, &w, "ip", "-s", "-j", "link", "show", "a")
	rx, tx := w[0].Stats.Rx, w[0].Stats.Tx
	if s != d.Stats || s.TxPackets < 2 || s.TxPackets != tx.Packets || s.TxBytes != tx.Bytes || s.RxPackets != rx.Packets || s.RxBytes != rx.Bytes {
		t.Errorf("Stats %+v, Details %+v, ip %+v", s, d.Stats, w[0].Stats)
	}
	if err := l.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Stats(ctx); !errors.Is(err, unix.ENODEV) {
		t.Errorf("of a link that is gone: %v", err)
	}
}

func FuzzDecodeDetails(f *testing.F) {
	for _, s := range goldens {
		if s.Kind != nil && s.Name != "" {
			f.Add(made(&s, -1).Body)
		}
	}
	f.Add(sampleLink())
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Details
		if decodeDetails(&d, b) != nil {
			return
		}
		// What was read can be written and read again, and is the same then.
		if d.Spec.Kind == nil {
			return
		}
		var m message
		_, fields := d.Spec.Kind.fields()
		m.put(placeData, fields)
		var in attrs
		if err := in.index(m.b); err != nil {
			t.Fatalf("%+v is written as %x: %v", d.Spec.Kind, m.b, err)
		}
		if got, _ := decodeKind(d.Kind, &in); lacks(d.Spec.Kind, got) != "" {
			t.Fatalf("%+v became %+v", d.Spec.Kind, got)
		}
	})
}
