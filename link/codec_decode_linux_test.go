package link

import (
	"encoding/binary"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

func sampleLink() []byte {
	b := appendIfInfo(nil, 5, unix.IFF_UP|running, 0)
	b = nl.AppendString(b, unix.IFLA_IFNAME, "web0")
	b = nl.AppendU32(b, unix.IFLA_MTU, 1400)
	b = nl.AppendU32(b, unix.IFLA_MASTER, 3)
	b = nl.AppendU8(b, unix.IFLA_OPERSTATE, 6)
	b = nl.AppendAttr(b, unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 1})
	b = nl.AppendU32(b, unix.IFLA_LINK, 9)
	b = nl.AppendU32(b, unix.IFLA_LINK_NETNSID, 4)
	b, at := nl.Begin(b, unix.IFLA_LINKINFO)
	b = nl.AppendString(b, unix.IFLA_INFO_KIND, "veth")
	b = nl.AppendAttr(b, 77, []byte{1, 2, 3}) // newer than the library
	nl.End(b, at)
	return nl.AppendAttr(b, 999, make([]byte, 40))
}

func TestDecodeSkipsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	var l Link
	if err := decodeLink(&l, sampleLink()); err != nil {
		t.Fatal(err)
	}
	if l.Index != 5 || l.Name != "web0" || l.MTU != 1400 || l.Master != 3 || l.OperState != OperUp || !l.Up || !l.Running ||
		l.PeerIndex != 9 || l.LinkNSID != 4 || l.Kind != "veth" || l.MAC.String() != "02:00:00:00:00:01" {
		t.Errorf("decoded %+v", l)
	}
}

func TestDecodeRefusesMalformed(t *testing.T) {
	t.Parallel()
	var l Link
	for n := range unix.SizeofIfInfomsg {
		if decodeLink(&l, make([]byte, n)) == nil {
			t.Errorf("a link of %d bytes was taken", n)
		}
	}
	short := nl.AppendAttr(appendIfInfo(nil, 1, 0, 0), unix.IFLA_MTU, []byte{1})
	if decodeLink(&l, short) == nil {
		t.Error("an MTU of one byte was taken")
	}
}

// FuzzDecodeLink compares with rtnetlink's decoder where both accept the input.
func FuzzDecodeLink(f *testing.F) {
	f.Add(sampleLink())
	f.Add(appendIfInfo(nil, 1, 0, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l Link
		if decodeLink(&l, b) != nil {
			return
		}
		if l.Index != int(int32(binary.NativeEndian.Uint32(b[4:]))) {
			t.Fatalf("index %d", l.Index)
		}
		defer func() { _ = recover() }() // the other decoder may panic; that is not ours
		var m rtnetlink.LinkMessage
		if m.UnmarshalBinary(b) != nil || m.Attributes == nil {
			return
		}
		if int32(m.Index) != int32(l.Index) || (m.Flags&unix.IFF_UP != 0) != l.Up {
			t.Errorf("%+v differs from %+v", l, m)
		}
	})
}
