package link

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// addrRequest builds the message that adds (RTM_NEWADDR) or removes
// (RTM_DELADDR) an address in its simple form.
func addrRequest(typ uint16, index int, p netip.Prefix, dad bool) nl.Request {
	a := newAddr(p, dad)
	if typ == unix.RTM_DELADDR {
		return encodeAddr(index, &a, editDelete)
	}
	return encodeAddr(index, &a, editAdd)
}

func sampleAddr(family uint8) []byte {
	r := addrRequest(unix.RTM_NEWADDR, 5, netip.MustParsePrefix("10.0.0.1/24"), false)
	if family == unix.AF_INET6 {
		r = addrRequest(unix.RTM_NEWADDR, 5, netip.MustParsePrefix("fd88::1/64"), false)
	}
	return nl.AppendU32(r.Body, unix.IFA_FLAGS, unix.IFA_F_NODAD|unix.IFA_F_PERMANENT|0x80000000)
}

func TestDecodeAddrSkipsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	var a Addr
	err := decodeAddr(&a, nl.AppendAttr(sampleAddr(unix.AF_INET6), 999, make([]byte, 40)))
	if err != nil || a.Link != 5 || a.Prefix.String() != "fd88::1/64" || a.Flags != AddrNoDAD|AddrPermanent|0x80000000 {
		t.Errorf("decoded %+v %v", a, err)
	}
	if err := decodeAddr(&a, make([]byte, 8)); err == nil {
		t.Error("an address message without an address was taken")
	}
}

// Recorded from ip(8) of iproute2 6.1:
//
//	ip address add 10.0.0.1/24 dev br0 label br0:x broadcast 10.0.0.255 scope link valid_lft 100 preferred_lft 50 metric 77 noprefixroute
//	ip address add 10.0.1.1 peer 10.0.9.9/24 dev br0
//	ip address replace fd00::1/64 dev br0 nodad home mngtmpaddr valid_lft 100 preferred_lft 0 metric 5
//	ip address del 10.0.0.1/24 dev br0
func TestAddrBytesEqualRecorded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		got  nl.Request
		want string
	}{
		{"everything of IPv4", encodeAddr(2, &Addr{
			Prefix: netip.MustParsePrefix("10.0.0.1/24"), Broadcast: netip.MustParseAddr("10.0.0.255"), Label: "br0:x", Scope: AddrScopeLink,
			Valid: 100 * time.Second, Preferred: 50 * time.Second, Metric: 77, Flags: AddrNoPrefixRoute,
		}, editAdd), `021800fd 02000000 08000200 0a000001 0a000300 6272303a 78000000 08000400 0a0000ff 08000900 4d000000
			08000800 00020000 08000100 0a000001 14000600 32000000 64000000 00000000 00000000`},
		{"peer", encodeAddr(2, &Addr{Prefix: netip.MustParsePrefix("10.0.1.1/24"), Peer: netip.MustParseAddr("10.0.9.9")}, editAdd),
			`02180000 02000000 08000200 0a000101 08000100 0a000909`},
		{"everything of IPv6", encodeAddr(2, &Addr{
			Prefix: netip.MustParsePrefix("fd00::1/64"), Flags: AddrNoDAD | AddrHome | AddrManageTemp | AddrDeprecated, Valid: 100 * time.Second, Metric: 5,
		}, editReplace), `0a400000 02000000 14000200 fd000000 00000000 00000000 00000001 08000900 05000000
			08000800 12010000 14000100 fd000000 00000000 00000000 00000001 14000600 00000000 64000000 00000000 00000000`},
		{"delete", encodeAddr(2, &Addr{Prefix: netip.MustParsePrefix("10.0.0.1/24")}, editDelete), `02180000 02000000 08000200 0a000001 08000100 0a000001`},
	} {
		if want := hexBytes(t, c.want); !sameNested(c.got.Body, want, unix.SizeofIfAddrmsg) {
			t.Errorf("%s\n got %x\nwant %x", c.name, c.got.Body, want)
		}
	}
}

func TestAddrEncodesToWhatItWas(t *testing.T) {
	t.Parallel()
	for _, a := range []Addr{
		StaticAddr(netip.MustParsePrefix("10.0.0.1/24")),
		StaticAddr(netip.MustParsePrefix("127.0.0.5/8")),
		{Prefix: netip.MustParsePrefix("10.0.0.1/24"), Label: "x", Metric: 1, Protocol: 0x99, Valid: time.Hour, Flags: AddrMulticastJoin, Preferred: time.Minute},
		{Prefix: netip.MustParsePrefix("fd00::1/128"), Peer: netip.MustParseAddr("fd00::2"), Flags: AddrNoDAD | AddrNoPrefixRoute},
	} {
		var got Addr
		if err := decodeAddr(&got, encodeAddr(7, &a, editAdd).Body); err != nil {
			t.Fatal(err)
		}
		want := a
		want.Link = 7
		if want.Valid != 0 && want.Preferred == 0 {
			want.Preferred = want.Valid
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v became %+v", want, got)
		}
	}
}

func FuzzDecodeAddr(f *testing.F) {
	f.Add(sampleAddr(unix.AF_INET))
	f.Add(sampleAddr(unix.AF_INET6))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Addr
		err := decodeAddr(&a, b)
		if err == nil && !a.Prefix.IsValid() {
			t.Fatalf("an invalid prefix without an error: %+v", a)
		}
	})
}
