package ct

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
)

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// TestTupleAgainstTheConntrackTool compares with the bytes that conntrack 1.4.7
// sends for the tuple of `conntrack -D -p udp -s 192.0.2.1 -d 192.0.2.2 --sport
// 1111 --dport 8080` (little endian lengths, as strace shows them).
func TestTupleAgainstTheConntrackTool(t *testing.T) {
	t.Parallel()
	if n := nl.AppendU16(nil, 1, 1); n[4] != 1 {
		t.Skip("the recording is of a little endian machine")
	}
	want := "\x34\x00\x01\x80" +
		"\x14\x00\x01\x80\x08\x00\x01\x00\xc0\x00\x02\x01\x08\x00\x02\x00\xc0\x00\x02\x02" +
		"\x1c\x00\x02\x80\x05\x00\x01\x00\x11\x00\x00\x00\x06\x00\x02\x00\x04\x57\x00\x00\x06\x00\x03\x00\x1f\x90\x00\x00"
	got := appendTuple(nil, attrTupleOrig, &Tuple{Proto: 17, Src: addrPort("192.0.2.1:1111"), Dst: addrPort("192.0.2.2:8080")})
	if string(got) != want {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestTupleDecodesToItself(t *testing.T) {
	t.Parallel()
	for _, want := range []Tuple{
		{Proto: 6, Src: addrPort("192.0.2.1:1111"), Dst: addrPort("192.0.2.2:80")},
		{Proto: 132, Src: addrPort("[2001:db8::1]:1111"), Dst: addrPort("[2001:db8::2]:80"), Zone: 7},
		{Proto: 1, Src: addrPort("192.0.2.1:0"), Dst: addrPort("192.0.2.2:0"), ICMP: ICMP{Type: 8, ID: 77}},
		{Proto: 58, Src: addrPort("[2001:db8::1]:0"), Dst: addrPort("[2001:db8::2]:0"), ICMP: ICMP{Type: 128, Code: 1, ID: 77}},
	} {
		w := nl.Walk(appendTuple(nil, attrTupleOrig, &want))
		if !w.Next() {
			t.Fatal(w.Err())
		}
		if got, err := decodeTuple(w.Nested()); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
}

func TestSelectionNamesItsParts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		target Target
		flags  uint32
	}{
		{udp("192.0.2.2:53"), partProto | partDst | partDstPort},
		{udp("[2001:db8::2]:53"), partProto | partDstPort}, // the kernel's comparison is wrong
		{udp("0.0.0.0:53"), partProto | partDstPort},
		{Target{Proto: 6, Addr: netip.IPv6Unspecified(), First: 1000, Last: 2000}, partProto},
	} {
		var flags uint32
		var tuple Tuple
		body := selection(c.target)
		for w := nl.Walk(body[4:]); w.Next(); {
			switch w.Type() {
			case attrTupleOrig:
				tuple, _ = decodeTuple(w.Nested())
			case attrFilter:
				for f := w.Nested(); f.Next(); {
					flags = f.U32()
				}
			}
		}
		if flags != c.flags || tuple.Proto != c.target.Proto ||
			(flags&partDstPort != 0) != (tuple.Dst.Port() == c.target.First) ||
			(flags&partDst != 0) != (tuple.Dst.Addr() == c.target.Addr) {
			t.Errorf("%+v: flags %#x, tuple %+v", c.target, flags, tuple)
		}
		if v6 := body[0] == unix.AF_INET6; v6 != c.target.Addr.Is6() {
			t.Errorf("%+v: family %d", c.target, body[0])
		}
	}
}

func TestSelectionOfTheTranslated(t *testing.T) {
	t.Parallel()
	target := Target{Proto: 6, Addr: netip.IPv4Unspecified(), First: 8080, Last: 8080, Translated: addrPort("10.88.0.2:80")}
	var flags [2]uint32
	var orig, reply Tuple
	for w := nl.Walk(selectionWith(target, true)[4:]); w.Next(); {
		switch w.Type() {
		case attrTupleOrig:
			orig, _ = decodeTuple(w.Nested())
		case attrTupleReply:
			reply, _ = decodeTuple(w.Nested())
		case attrFilter:
			for f := w.Nested(); f.Next(); {
				flags[f.Type()-filterOrig] = f.U32()
			}
		}
	}
	if flags != [2]uint32{1<<3 | 1<<5, 1<<0 | 1<<3 | 1<<4} || orig.Dst.Port() != 8080 || reply.Src != target.Translated || reply.Proto != 6 {
		t.Errorf("flags %#x, %+v, %+v", flags, orig, reply)
	}
}

// flow is the body of a message as the kernel makes it.
func flow(f *Flow) []byte {
	b := appendTuple(header(f.v6()), attrTupleOrig, &f.Orig)
	b = appendTuple(b, attrTupleReply, &f.Reply)
	b = nl.AppendBE32(b, attrStatus, f.Status)
	b = nl.AppendBE32(b, attrTimeout, uint32(f.Timeout/time.Second))
	b = nl.AppendBE32(b, attrMark, f.Mark)
	b = nl.AppendBE32(b, attrID, f.ID)
	b = nl.AppendBE16(b, attrZone, f.Zone)
	b, info := nl.Begin(b, attrProtoinfo)
	b, tcp := nl.Begin(b, 1)
	b = nl.AppendU8(b, 1, f.State)
	nl.End(b, tcp)
	nl.End(b, info)
	for typ, c := range map[uint16]Counter{attrCountersOrig: f.Sent, attrCountersReply: f.Received} {
		var at int
		b, at = nl.Begin(b, typ)
		b = nl.AppendBE64(b, counterPacket, c.Packets)
		b = nl.AppendBE64(b, counterBytes, c.Bytes)
		nl.End(b, at)
	}
	return b
}

var example = Flow{
	Orig:   Tuple{Proto: 6, Src: addrPort("192.0.2.1:1111"), Dst: addrPort("192.0.2.2:8080")},
	Reply:  Tuple{Proto: 6, Src: addrPort("10.88.0.2:80"), Dst: addrPort("192.0.2.1:1111")},
	Status: 0x1e, State: 3, Timeout: 5 * time.Minute, Mark: 9, Zone: 2, ID: 0xfeedface,
	Counted: true, Sent: Counter{3, 180}, Received: Counter{2, 120},
}

func TestFlowDecodesWhole(t *testing.T) {
	t.Parallel()
	if got, err := decodeFlow(flow(&example)); err != nil || got != example {
		t.Errorf("%+v, %v; want %+v", got, err, example)
	}
}

func TestDeletionNamesTheID(t *testing.T) {
	t.Parallel()
	f, err := decodeFlow(deletion(&example).Body)
	if err != nil || f.ID != example.ID || f.Orig != example.Orig || f.Zone != example.Zone {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestDecodingAFlowAllocatesNothing(t *testing.T) {
	b := flow(&example)
	if n := allocs.PerRun(t, 100, func() {
		if _, err := decodeFlow(b); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecodeFlow(f *testing.F) {
	f.Add(flow(&example))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeFlow(b)
		if err != nil || !got.Orig.Src.IsValid() || !got.Orig.Dst.IsValid() ||
			got.Orig.Src.Addr().Is4() != got.Orig.Dst.Addr().Is4() || !hasPorts(got.Orig.Proto) {
			return
		}
		// What was read can be named again.
		got.Orig.ICMP = ICMP{}
		again, err := decodeFlow(deletion(&got).Body)
		if err != nil || again.Orig != got.Orig || again.ID != got.ID {
			t.Errorf("%+v became %+v, %v", got.Orig, again.Orig, err)
		}
	})
}
