package link

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// showFeatures is what ethtool(8) prints: "on", "off [fixed]" and so on. It prints
// the features under other names as well, which are older.
func showFeatures(t testing.TB, ns *netns.NS, dev string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for line := range strings.Lines(testutil.Run(t, ns, "ethtool", "-k", dev)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			m[name] = value
		}
	}
	return m
}

// inEthtool gives the names that ethtool(8) shows in place of the kernel's.
var inEthtool = map[string]string{
	"rx-checksum": "rx-checksumming", "tx-generic-segmentation": "generic-segmentation-offload", "rx-gro": "generic-receive-offload",
	"rx-lro": "large-receive-offload", "rx-vlan-hw-parse": "rx-vlan-offload", "tx-vlan-hw-insert": "tx-vlan-offload",
	"rx-ntuple-filter": "ntuple-filters", "rx-hashing": "receive-hashing",
}

func TestFeaturesReadAndSet(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "a", Kind: Veth{Peer: Spec{Name: "b"}}})
	list, err := l.Features(ctx)
	testutil.NeedKernel(t, 5, 7, "features by ethtool's netlink", err)
	show := showFeatures(t, ns, "a")
	compared := 0
	for _, f := range list {
		name := f.Name
		if n, ok := inEthtool[name]; ok {
			name = n
		}
		value, ok := show[name]
		if !ok {
			continue // newer than the program
		}
		compared++
		if f.Active != strings.HasPrefix(value, "on") || f.Fixed != strings.Contains(value, "[fixed]") {
			t.Errorf("%+v, ethtool shows %q", f, value)
		}
	}
	if compared < 40 {
		t.Errorf("only %d of %d features were compared", compared, len(list))
	}
	const csum, tso, rx = "tx-checksum-ip-generic", "tx-tcp-segmentation", "rx-gro"
	if err := l.SetFeatures(ctx, map[string]bool{csum: false, tso: false, rx: true}); err != nil {
		t.Fatal(err)
	}
	show = showFeatures(t, ns, "a")
	if !strings.HasPrefix(show[csum], "off") || !strings.HasPrefix(show[tso], "off") || show["generic-receive-offload"] != "on" {
		t.Errorf("ethtool shows %q, %q, %q", show[csum], show[tso], show["generic-receive-offload"])
	}
	// Segmentation needs checksums: neither it nor what was asked along with it.
	wantErr(t, l.SetFeatures(ctx, map[string]bool{tso: true, rx: false}), errors.ErrUnsupported, "did not switch "+tso)
	show = showFeatures(t, ns, "a")
	if !strings.HasPrefix(show[tso], "off") || show["generic-receive-offload"] != "on" {
		t.Errorf("after a failure ethtool shows %q, %q", show[tso], show["generic-receive-offload"])
	}
	wantErr(t, l.SetFeatures(ctx, map[string]bool{"rx-fcs": true}), errors.ErrUnsupported, `cannot switch the feature "rx-fcs"`)
	wantErr(t, l.SetFeatures(ctx, map[string]bool{"no-such": true}), errors.ErrUnsupported, `no feature "no-such"`)
	wantErr(t, l.SetFeatures(ctx, map[string]bool{"": true}), os.ErrInvalid)
	if err := l.SetFeatures(ctx, nil); err != nil {
		t.Error(err)
	}
	if err := l.SetFeatures(ctx, map[string]bool{csum: true, tso: true}); err != nil {
		t.Error(err)
	}
	if err := l.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = l.Features(ctx)
	wantErr(t, err, os.ErrNotExist, "the link is gone")
}

// Recorded from "ethtool -K a0 tx-nocache-copy on tx-tcp-segmentation off" of
// ethtool 6.1, which names the link and a reply format in the header: here it is
// the index.
func TestFeatureBytesEqualRecorded(t *testing.T) {
	t.Parallel()
	r := featuresRequest(21, ethFeaturesSet, 5, map[string]bool{"tx-nocache-copy": true, "tx-tcp-segmentation": false})
	want := hexBytes(t, `0c010000 0c000180 08000100 05000000
		40000380 3c000380 1c000180 14000200 74782d6e 6f636163 68652d63 6f707900 04000300 1c000180 18000200 74782d74 63702d73 65676d65 6e746174 696f6e00`)
	if r.Type != 21 || !sameNested(r.Body, want, sizeofGenlMsg) {
		t.Errorf("\n got %x\nwant %x", r.Body, want)
	}
}

func FuzzDecodeFeatures(f *testing.F) {
	bitset := func(b []byte, typ uint16, names ...string) []byte {
		b, at := nl.Begin(b, typ)
		b = nl.AppendFlag(b, ethBitsetNoMask)
		b, bits := nl.Begin(b, ethBitsetBits)
		for _, n := range names {
			var bit int
			b, bit = nl.Begin(b, ethBitsetBit)
			b = nl.AppendString(b, ethBitsetBitName, n)
			nl.End(b, bit)
		}
		nl.End(b, bits)
		nl.End(b, at)
		return b
	}
	f.Add(bitset(bitset(make([]byte, 4), ethHW, "rx-gro"), ethActive, "rx-gro", "rx-fcs"))
	f.Add(featuresRequest(0, ethFeaturesSet, 1, map[string]bool{"a": true}).Body)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := decodeFeatures(b)
		seen := map[string]bool{}
		for _, f := range list {
			if err == nil && (f.Name == "" || seen[f.Name]) {
				t.Errorf("%+v", list)
			}
			seen[f.Name] = true
		}
	})
}
