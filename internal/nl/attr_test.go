package nl_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
)

// TestEncoderAgainstOracle compares our bytes with an encoder that is not ours.
func TestEncoderAgainstOracle(t *testing.T) {
	t.Parallel()
	var b []byte
	b = nl.AppendU8(b, 1, 0x12)
	b = nl.AppendU16(b, 2, 0x1234)
	b = nl.AppendU32(b, 3, 0x12345678)
	b = nl.AppendU64(b, 4, 0x123456789abcdef0)
	b = nl.AppendString(b, 5, "web0")
	b = nl.AppendAttr(b, 6, []byte{1, 2, 3, 4, 5})
	b, outer := nl.Begin(b, 7)
	b = nl.AppendU8(b, 8, 9)
	b, inner := nl.Begin(b, 9)
	nl.End(b, inner)
	nl.End(b, outer)
	b = nl.AppendFlag(b, 10)

	ae := netlink.NewAttributeEncoder()
	ae.Uint8(1, 0x12)
	ae.Uint16(2, 0x1234)
	ae.Uint32(3, 0x12345678)
	ae.Uint64(4, 0x123456789abcdef0)
	ae.String(5, "web0")
	ae.Bytes(6, []byte{1, 2, 3, 4, 5})
	ae.Nested(7, func(ae *netlink.AttributeEncoder) error {
		ae.Uint8(8, 9)
		ae.Nested(9, func(*netlink.AttributeEncoder) error { return nil })
		return nil
	})
	ae.Flag(10, true)
	want, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("encoded\n%x, the oracle\n%x", b, want)
	}

	b = nl.AppendBE64(nl.AppendBE32(nl.AppendBE16(nil, 1, 0x1234), 2, 0x12345678), 3, 0x123456789abcdef0)
	ae = netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	ae.Uint16(1, 0x1234)
	ae.Uint32(2, 0x12345678)
	ae.Uint64(3, 0x123456789abcdef0)
	if want, err = ae.Encode(); err != nil || !bytes.Equal(b, want) {
		t.Errorf("encoded %x, the oracle %x (%v)", b, want, err)
	}
}

func TestWalkReadsValues(t *testing.T) {
	t.Parallel()
	b := nl.AppendU32(nl.AppendString(nl.AppendU8(nil, 1, 7), 2, "eth0"), 3, 1500)
	b = nl.AppendBE16(b, 4, 80)
	b, at := nl.Begin(b, 5)
	b = nl.AppendU16(b, 6, 42)
	nl.End(b, at)
	var u8 uint8
	var name string
	var u32 uint32
	var port, nested uint16
	w := nl.Walk(b)
	for w.Next() {
		switch w.Type() {
		case 1:
			u8 = w.U8()
		case 2:
			name = w.String()
		case 3:
			u32 = w.U32()
		case 4:
			port = w.BE16()
		case 5:
			for in := w.Nested(); in.Next(); {
				nested = in.U16()
			}
		}
	}
	if w.Err() != nil || u8 != 7 || name != "eth0" || u32 != 1500 || port != 80 || nested != 42 {
		t.Errorf("%v %v %v %v %v, %v", u8, name, u32, port, nested, w.Err())
	}
}

func TestWalkTellsMalformed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		b    []byte
		says string
	}{
		{[]byte{1, 2}, "stray"},
		{[]byte{3, 0, 1, 0}, "claims 3"},
		{[]byte{9, 0, 1, 0, 0}, "claims 9"},
		{nl.AppendU8(nil, 1, 1), "want 4"},
	} {
		w := nl.Walk(tt.b)
		for w.Next() {
			if v := w.U32(); v != 0 {
				t.Errorf("%x: read %d", tt.b, v)
			}
		}
		if w.Err() == nil || !strings.Contains(w.Err().Error(), tt.says) {
			t.Errorf("%x: %v, want %q", tt.b, w.Err(), tt.says)
		}
	}
}

func TestWalkAllocatesNothing(t *testing.T) {
	b := nl.AppendU32(nl.AppendString(nl.AppendU8(nil, 1, 7), 2, "eth0"), 3, 1500)
	sum := uint32(0)
	if n := allocs.PerRun(t, 100, func() {
		w := nl.Walk(b)
		for w.Next() {
			if w.Type() == 3 {
				sum += w.U32()
			}
		}
	}); n != 0 {
		t.Errorf("a walk allocates %v times", n)
	}
}

// FuzzWalk walks over random bytes and, where another decoder accepts them, wants
// the same attributes.
func FuzzWalk(f *testing.F) {
	f.Add(nl.AppendU32(nl.AppendString(nil, 1, "web0"), 0x8002, 7))
	f.Add([]byte{4, 0, 1, 0, 5, 0, 2, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		type attr struct {
			typ  uint16
			data string
		}
		var got []attr
		w := nl.Walk(b)
		for w.Next() {
			got = append(got, attr{w.Type(), string(w.Data())})
			v := w // what is too short for a number ends a walk
			v.U8()
			v.U64()
			_ = v.String()
		}
		if w.Err() != nil {
			return // the other one takes a length of 0 for 4
		}
		ad, err := netlink.NewAttributeDecoder(b)
		if err != nil {
			return
		}
		var want []attr
		for ad.Next() {
			want = append(want, attr{ad.Type(), string(ad.Bytes())})
		}
		if ad.Err() != nil {
			return
		}
		if len(got) != len(want) {
			t.Fatalf("%x: %d attributes, the oracle has %d", b, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%x: attribute %d is %+v, the oracle says %+v", b, i, got[i], want[i])
			}
		}
	})
}

// FuzzEncode encodes what a walk then has to find again.
func FuzzEncode(f *testing.F) {
	f.Add(uint16(3), []byte("abc"), uint32(9), "name")
	f.Fuzz(func(t *testing.T, typ uint16, data []byte, v uint32, s string) {
		if len(data)+len(s) > 60000 {
			return
		}
		typ &= 0x3fff
		s = strings.ReplaceAll(s, "\x00", "")
		b, at := nl.Begin(nil, typ)
		b = nl.AppendAttr(b, typ, data)
		b = nl.AppendU32(b, typ, v)
		b = nl.AppendString(b, typ, s)
		nl.End(b, at)
		w := nl.Walk(b)
		if !w.Next() || w.Type() != typ {
			t.Fatalf("no outer attribute in %x", b)
		}
		in := w.Nested()
		if !in.Next() || !bytes.Equal(in.Data(), data) || !in.Next() || in.U32() != v || !in.Next() || in.String() != s || in.Next() || in.Err() != nil {
			t.Fatalf("%x does not hold %x, %d, %q: %v", b, data, v, s, in.Err())
		}
		if w.Next() || w.Err() != nil {
			t.Fatalf("something behind the attribute: %v", w.Err())
		}
	})
}
