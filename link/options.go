package link

import (
	"bytes"
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// options is a walk over the options of a kind, or of another set of netlink
// attributes. Each set declares its options once, in a method that calls the
// functions below for each of them in turn; what they do is up to the walk:
// check, encode, decode or name.
//
// Attributes are given by their number and uapi name, so that declarations
// compile everywhere.
type options struct {
	do action

	err error // check: the first value that is out of range

	b      []byte   // encode: what is appended to
	have   *attrs   // encode: what the link has already, which is left out; nil: nothing
	only   *attrSet // encode: the options to encode; nil: all
	sent   attrSet  // encode: the options that were encoded
	names  []string // encode: their names
	zero   bool     // encode: zeros are not left out
	peerFD int      // encode: descriptor of the peer's namespace; -1: the same one

	in   *attrs  // decode: what the kernel sent
	read attrSet // decode: the attributes that belong to an option

	typ  uint16 // name: the attribute asked for
	name string // name: the answer
}

type action uint8

const (
	check action = iota
	encode
	decode
	naming
)

// maxAttr is above the type of every attribute in linux/if_link.h.
const maxAttr = 128

// attrs are the payloads of a message's attributes by their type; those of a
// higher type are dropped. A missing one is nil.
type attrs [maxAttr][]byte

// attrSet is a set of attribute types.
type attrSet [maxAttr / 64]uint64

func (s *attrSet) has(t uint16) bool { return s[t/64]&(1<<(t%64)) != 0 }
func (s *attrSet) add(t uint16)      { s[t/64] |= 1 << (t % 64) }
func (s *attrSet) empty() bool       { return *s == attrSet{} }

// index sorts the attributes in b by type. It keeps b.
func (a *attrs) index(b []byte) error {
	w := nl.Walk(b)
	for w.Next() {
		if t := w.Type(); t < maxAttr {
			if a[t] = w.Data(); a[t] == nil {
				a[t] = []byte{}
			}
		}
	}
	return w.Err()
}

// width is the number of bytes of an integer, and bigEndian if it is in network
// byte order.
type width uint8

const bigEndian width = 0x10

func (w width) bytes() int { return int(w &^ bigEndian) }

// max is the largest number of this width.
func (w width) max() uint64 { return 1<<(8*w.bytes()) - 1 }

func (w width) payload(v uint64) []byte {
	var b [8]byte
	n := w.bytes()
	if w&bigEndian != 0 {
		binary.BigEndian.PutUint64(b[:], v)
		return b[8-n:]
	}
	switch n {
	case 1:
		b[0] = uint8(v)
	case 2:
		binary.NativeEndian.PutUint16(b[:], uint16(v))
	case 4:
		binary.NativeEndian.PutUint32(b[:], uint32(v))
	default:
		binary.NativeEndian.PutUint64(b[:], v)
	}
	return b[:n]
}

// parse reads a payload; ok is false when there is none, or one too short.
func (w width) parse(b []byte) (v uint64, ok bool) {
	n := w.bytes()
	if len(b) < n {
		return 0, false
	}
	if w&bigEndian != 0 {
		for _, c := range b[:n] {
			v = v<<8 | uint64(c)
		}
		return v, true
	}
	switch n {
	case 1:
		return uint64(b[0]), true
	case 2:
		return uint64(binary.NativeEndian.Uint16(b)), true
	case 4:
		return uint64(binary.NativeEndian.Uint32(b)), true
	}
	return binary.NativeEndian.Uint64(b), true
}

// custom is an option of any form: set says whether it has a value, payload
// makes and parse reads one, and same, which may be nil, says whether the link
// has (second) what is asked for (first).
func (o *options) custom(typ uint16, name string, set bool, payload func() []byte, parse func([]byte), same func(want, have []byte) bool) {
	t := typ &^ 0xc000 // without the flag bits
	switch o.do {
	case encode:
		if !set || o.only != nil && !o.only.has(t) {
			return
		}
		p := payload()
		if o.have != nil && o.have[t] != nil {
			if same == nil {
				same = bytes.Equal
			}
			if same(p, o.have[t]) {
				return
			}
		}
		o.b = nl.AppendAttr(o.b, typ, p)
		o.sent.add(t)
		o.names = append(o.names, name)
	case decode:
		o.read.add(t)
		if o.in[t] != nil && parse != nil {
			parse(o.in[t])
		}
	case naming:
		if o.typ == t {
			o.name = name
		}
	}
}

func (o *options) refuse(format string, args ...any) {
	if o.do == check && o.err == nil {
		o.err = refuse.Input(format, args...)
	}
}

type integer interface {
	~int | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// number is an integer whose zero is left out.
func number[T integer](o *options, typ uint16, name string, w width, p *T) {
	if *p < 0 || uint64(*p) > w.max() {
		o.refuse("%s is %d, out of range (0 to %d)", name, *p, w.max())
	}
	o.custom(typ, name, *p != 0 || o.zero,
		func() []byte { return w.payload(uint64(*p)) },
		func(b []byte) {
			if v, ok := w.parse(b); ok {
				*p = T(v)
			}
		}, nil)
}

// numberp is an integer of which zero is a value, too.
func numberp[T integer](o *options, typ uint16, name string, w width, p **T) {
	if v := *p; v != nil && (*v < 0 || uint64(*v) > w.max()) {
		o.refuse("%s is %d, out of range (0 to %d)", name, *v, w.max())
	}
	o.custom(typ, name, *p != nil,
		func() []byte { return w.payload(uint64(**p)) },
		func(b []byte) {
			if v, ok := w.parse(b); ok {
				*p = new(T(v))
			}
		}, nil)
}

// signed is a number of 32 bits with a sign.
func signed(o *options, typ uint16, name string, p **int32) {
	var v *uint32
	if *p != nil {
		v = new(uint32(**p))
	}
	numberp(o, typ, name, 4, &v)
	if v != nil {
		*p = new(int32(*v))
	}
}

// onoff is a number that is 0 or 1.
func onoff(o *options, typ uint16, name string, w width, p **bool) {
	o.custom(typ, name, *p != nil,
		func() []byte {
			if **p {
				return w.payload(1)
			}
			return w.payload(0)
		},
		func(b []byte) {
			if v, ok := w.parse(b); ok {
				*p = new(v != 0)
			}
		}, nil)
}

// flag is a number that is 1 or 0, whose zero is left out.
func flag(o *options, typ uint16, name string, w width, p *bool) {
	o.custom(typ, name, *p || o.zero,
		func() []byte {
			if *p {
				return w.payload(1)
			}
			return w.payload(0)
		},
		func(b []byte) {
			v, ok := w.parse(b)
			*p = ok && v != 0
		}, nil)
}

// flagAttr is on when its attribute is there (NLA_FLAG). Some kernels report
// them with a byte of 0 or 1.
func flagAttr(o *options, typ uint16, name string, p *bool) {
	o.custom(typ, name, *p,
		func() []byte { return nil },
		func(b []byte) { *p = len(b) == 0 || b[0] != 0 },
		func(_, have []byte) bool { return len(have) == 0 || have[0] != 0 })
}

// The units of times.
const (
	ticks  = time.Second / 100 // USER_HZ, the same on every Linux
	millis = time.Millisecond
)

// interval is a time in the unit whose zero is left out.
func interval(o *options, typ uint16, name string, w width, unit time.Duration, p *time.Duration) {
	q := p
	if *p == 0 && o.do != decode && !o.zero {
		q = nil
	}
	intervalp(o, typ, name, w, unit, &q)
	if q != nil {
		*p = *q
	}
}

// intervalp is a time in the unit of which zero is a value, too. The kernel
// counts in its own ticks: what it gives back may be one unit off.
func intervalp(o *options, typ uint16, name string, w width, unit time.Duration, p **time.Duration) {
	if v := *p; v != nil && (*v < 0 || *v%unit != 0 || uint64(*v/unit) > w.max()) {
		o.refuse("%s is %v, not a multiple of %v from 0 to %d times that", name, *v, unit, w.max())
	}
	o.custom(typ, name, *p != nil,
		func() []byte { return w.payload(uint64(**p / unit)) },
		func(b []byte) {
			if v, ok := w.parse(b); ok {
				*p = new(time.Duration(min(v, uint64(math.MaxInt64/unit))) * unit)
			}
		},
		func(want, have []byte) bool {
			a, _ := w.parse(want)
			b, ok := w.parse(have)
			return ok && a-b+1 <= 2
		})
}

// text is a string; the empty one is left out. The payload ends in a NUL.
func text(o *options, typ uint16, name string, p *string) {
	o.custom(typ, name, *p != "",
		func() []byte { return append([]byte(*p), 0) },
		func(b []byte) {
			b, _, _ = bytes.Cut(b, []byte{0})
			*p = string(b)
		}, nil)
}

// hardware is a hardware address of six bytes; nil is left out.
func hardware(o *options, typ uint16, name string, p *net.HardwareAddr) {
	if *p != nil && len(*p) != 6 {
		o.refuse("%s is %q, not a hardware address of 6 bytes", name, *p)
	}
	o.custom(typ, name, *p != nil,
		func() []byte { return *p },
		func(b []byte) {
			if len(b) > 0 {
				*p = bytes.Clone(b)
			}
		}, nil)
}

// address is an IP address, in one of two attributes by its family. Where the
// kernel sends none or the unspecified address, it is left as it is.
func address(o *options, typ4 uint16, name4 string, typ6 uint16, name6 string, p *netip.Addr) {
	if p.Is4In6() || p.Zone() != "" {
		o.refuse("%s is %s: give IPv4 in its own form, and no zone", name4, *p)
	}
	for _, f := range [2]struct {
		typ  uint16
		name string
		is   bool
	}{{typ4, name4, p.Is4()}, {typ6, name6, p.Is6()}} {
		o.custom(f.typ, f.name, f.is,
			func() []byte { return p.AsSlice() },
			func(b []byte) {
				if a, ok := netip.AddrFromSlice(b); ok && !a.IsUnspecified() {
					*p = a
				}
			}, nil)
	}
}
