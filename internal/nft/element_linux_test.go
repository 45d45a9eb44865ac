package nft

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/testutil/allocs"
)

// encode returns a message's body with the elements in a list.
func encode(elems ...Element) []byte {
	b := NewBatch("t")
	b.AddElements("s", elems...)
	return b.reqs[0].Body
}

func decode(t testing.TB, body []byte) (all []Element) {
	t.Helper()
	err := decodeElements(body, func(e Element) error { all = append(all, e); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestElementsRoundTrip(t *testing.T) {
	t.Parallel()
	want := []Element{
		{Key: []byte{1, 2, 3, 4}, Data: []byte{10, 0, 0, 1, 0, 80, 0, 0}, Comment: "web"},
		{Key: []byte{1, 2, 3, 4}, KeyEnd: []byte{1, 2, 3, 9}},
		{Key: bytes.Repeat([]byte{'x'}, 32), Verdict: VerdictAccept},
		{Key: bytes.Repeat([]byte{'y'}, 32), Verdict: VerdictGoto, Chain: "icc_off"},
		{Key: []byte{5}, Comment: strings.Repeat("c", MaxComment)},
	}
	if got := decode(t, encode(want...)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The bytes that nft 1.0.6 sends for
// add element inet boxwire pub4 { 1.2.3.4 . tcp . 80 comment "own" : 10.0.0.1 . 80 }
// (as strace shows them, on a little-endian machine).
func TestElementIsEncodedAsNftDoes(t *testing.T) {
	t.Parallel()
	if one := nl.AppendU16(nil, 0, 1); one[4] != 1 {
		t.Skip("a big-endian machine")
	}
	golden := "\x34\x00\x01\x80\x14\x00\x01\x80\x10\x00\x01\x00\x01\x02\x03\x04\x06\x00\x00\x00\x00\x50\x00\x00" +
		"\x10\x00\x02\x80\x0c\x00\x01\x00\x0a\x00\x00\x01\x00\x50\x00\x00\x0a\x00\x06\x00\x00\x04\x6f\x77\x6e\x00\x00\x00"
	e := Element{Key: []byte{1, 2, 3, 4, 6, 0, 0, 0, 0, 80, 0, 0}, Data: []byte{10, 0, 0, 1, 0, 80, 0, 0}, Comment: "own"}
	if got := string(e.append(nil)); got != golden {
		t.Errorf("got  %x\nwant %x", got, golden)
	}
}

// The bytes that nft 1.0.6 sends for
// add element inet boxwire pair { "a" . "b" : goto icc_off }
func TestAVerdictIsEncodedAsNftDoes(t *testing.T) {
	t.Parallel()
	if one := nl.AppendU16(nil, 0, 1); one[4] != 1 {
		t.Skip("a big-endian machine")
	}
	pad := strings.Repeat("\x00", 15)
	golden := "\x48\x00\x01\x80\x28\x00\x01\x80\x24\x00\x01\x00a" + pad + "b" + pad +
		"\x1c\x00\x02\x80\x18\x00\x02\x80\x08\x00\x01\x00\xff\xff\xff\xfc\x0c\x00\x02\x00icc_off\x00"
	e := Element{Key: []byte("a" + pad + "b" + pad), Verdict: VerdictGoto, Chain: "icc_off"}
	if got := string(e.append(nil)); got != golden {
		t.Errorf("got  %x\nwant %x", got, golden)
	}
}

func TestManyElementsAreSpreadOverMessages(t *testing.T) {
	t.Parallel()
	elems := make([]Element, 3000)
	for i := range elems {
		elems[i] = Element{Key: []byte{byte(i >> 8), byte(i)}, Data: make([]byte, 8), Comment: strings.Repeat("c", MaxComment)}
	}
	b := NewBatch("t")
	b.AddElements("s", elems...)
	n := 0
	for _, r := range b.reqs {
		n += len(decode(t, r.Body))
	}
	if n != len(elems) || len(b.reqs) < 2 {
		t.Errorf("%d elements in %d messages", n, len(b.reqs))
	}
}

func TestCounterOfAnElement(t *testing.T) {
	t.Parallel()
	for name, list := range map[string]bool{"NFTA_SET_ELEM_EXPR": false, "NFTA_SET_ELEM_EXPRESSIONS": true} {
		m := []byte{0, 0, 0, 0}
		var at, outer, elem, one, data int
		m, at = nl.Begin(m, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		m, elem = nl.Begin(m, unix.NFTA_LIST_ELEM)
		if list {
			m, outer = nl.Begin(m, attrElemExpressions)
			m, one = nl.Begin(m, unix.NFTA_LIST_ELEM)
		} else {
			m, one = nl.Begin(m, unix.NFTA_SET_ELEM_EXPR)
		}
		m = nl.AppendString(m, unix.NFTA_EXPR_NAME, "counter")
		m, data = nl.Begin(m, unix.NFTA_EXPR_DATA)
		m = nl.AppendBE64(m, unix.NFTA_COUNTER_PACKETS, 7)
		nl.End(m, data)
		nl.End(m, one)
		if list {
			nl.End(m, outer)
		}
		nl.End(m, elem)
		nl.End(m, at)
		if got := decode(t, m); len(got) != 1 || got[0].Packets != 7 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMalformedUserdataIsNoComment(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "\x00": "", "\x00\x05ab": "", "\x00\x03ab\x00": "ab", "\x00\x02ab": "ab",
		"\x07\x01x\x00\x02a\x00": "a", "\x07\xffx": "", "\x00\x00": "",
	} {
		if got := decodeComment([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestEncodingAnElementAllocatesItsBufferOnly(t *testing.T) {
	e := Element{Key: make([]byte, 12), Data: make([]byte, 8), Comment: "web"}
	buf := make([]byte, 0, 256)
	// One: the userdata.
	if n := allocs.PerRun(t, 100, func() { buf = e.append(buf[:0]) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// A batch allocates for its messages and the elements' userdata only.
func TestABatchOfElementsAllocatesLittle(t *testing.T) {
	elems := make([]Element, 1000)
	for i := range elems {
		elems[i] = Element{Key: []byte{6, 0, 0, 0, byte(i >> 8), byte(i), 0, 0}, Data: make([]byte, 8), Comment: "web"}
	}
	if n := allocs.PerRun(t, 10, func() {
		b := NewBatch("t")
		b.AddElements("s", elems...)
	}); n > 1100 {
		t.Errorf("%v allocations for 1000 elements", n)
	}
}

func TestComparingElementsAllocatesTheirUserdataOnly(t *testing.T) {
	e := Element{Key: make([]byte, 12), Data: make([]byte, 8), Comment: "web"}
	o := e
	o.Packets = 7 // which makes no difference
	if n := allocs.PerRun(t, 100, func() {
		if !e.Equal(&o) {
			t.Error("they differ")
		}
	}); n > 2 {
		t.Errorf("%v allocations", n)
	}
	for _, o := range []Element{{Key: e.Key, Data: e.Data}, {Key: e.Key, Comment: "web"}, {Key: make([]byte, 8), Data: e.Data, Comment: "web"}} {
		if e.Equal(&o) {
			t.Errorf("%v is taken for %v", o, e)
		}
	}
}

func FuzzDecodeElements(f *testing.F) {
	f.Add(encode(Element{Key: []byte{1, 2, 3, 4}, Data: []byte{10, 0, 0, 1, 0, 80, 0, 0}, Comment: "web"}))
	f.Add(encode(Element{Key: make([]byte, 32), Verdict: VerdictAccept}, Element{Key: make([]byte, 32), Verdict: VerdictGoto, Chain: "icc_off"}))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		_ = decodeElements(body, func(e Element) error {
			if len(e.Comment) > 255 {
				t.Errorf("a comment of %d bytes", len(e.Comment))
			}
			return nil
		})
	})
}

// AddElements and DeleteElements are AddEach and DeleteEach for elements that lie together.
func (b *Batch) AddElements(set string, elems ...Element)    { b.AddEach(set, pointers(elems)) }
func (b *Batch) DeleteElements(set string, elems ...Element) { b.DeleteEach(set, pointers(elems)) }
