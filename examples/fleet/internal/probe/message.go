package probe

import (
	"crypto/rand"
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// kind is what a message asks for.
type kind uint8

const (
	kindHello  kind = 1 // who are you, and what time is it?
	kindSize   kind = 2 // did a request of this length come through? The answer is short
	kindMirror kind = 3 // the answer has the length of the request
	kindWatch  kind = 4 // count the packets with Marker from now on
	kindCounts kind = 5 // how many were there? This ends the count
	kindWay    kind = 6 // which way leads to the overlay address?
	reply      kind = 0x80
)

// status is how it went for whoever replies.
type status uint8

const (
	statusOK     status = 0
	statusBusy   status = 1 // another count goes on
	statusFailed status = 2 // it cannot count, such as for lack of CAP_NET_RAW
	statusTooBig status = 3 // its own link does not take an answer of that length
)

// messageLen is the length of each message but those of kindSize and kindMirror, which are padded. A shorter request is ignored, so
// that no reply is longer than its request.
const (
	messageLen = 112
	maxMessage = 65507 // of UDP over IPv4
	magic      = "BXFP"
	version    = 1
)

// marker is the nonce of a message, and what is looked for in packets.
type marker [nonceLen]byte

const nonceLen = 16

func newMarker() marker {
	var m marker
	_, _ = rand.Read(m[:]) // does not fail
	return m
}

// message is a request or a reply. All forms have the same fields at the same places; a reply repeats kind and nonce.
//
//	0 "BXFP"  4 version  5 kind  6 status  7 cause of the way  8 nonce
//	24 node id  40 generation  48 clock, ns since 1970  56 length that arrived  60 counts  80 counts of Zero  84 overlay address  100 zero
type message struct {
	kind       kind
	status     status
	nonce      marker
	id         state.ID
	generation uint64
	clock      time.Time
	length     uint32
	counts     counts
	way        Cause      // of the way that leads to overlay, "" if there is nothing wrong
	overlay    netip.Addr // in a request of kindWay: the asker's address in the overlay
	marker     marker     // in requests of kindWatch and kindCounts, in place of the id
}

// encode writes a message of at least messageLen bytes.
func (m message) encode(length int) []byte {
	b := make([]byte, max(length, messageLen))
	copy(b, magic)
	b[4], b[5], b[6], b[7] = version, byte(m.kind), byte(m.status), wayCode(m.way)
	copy(b[8:], m.nonce[:])
	if m.kind == kindWatch || m.kind == kindCounts {
		copy(b[24:], m.marker[:])
	} else {
		copy(b[24:], m.id[:])
	}
	binary.BigEndian.PutUint64(b[40:], m.generation)
	if !m.clock.IsZero() {
		binary.BigEndian.PutUint64(b[48:], uint64(m.clock.UnixNano()))
	}
	binary.BigEndian.PutUint32(b[56:], m.length)
	for i, k := range m.counts {
		for j, n := range []int{k.LinkOut, k.WireOut, k.WireIn, k.LinkIn, k.Bad} {
			binary.BigEndian.PutUint16(b[60+10*i+2*j:], uint16(min(n, math.MaxUint16)))
		}
		binary.BigEndian.PutUint16(b[80+2*i:], uint16(min(k.Zero, math.MaxUint16)))
	}
	if m.overlay.IsValid() {
		a := m.overlay.As16()
		copy(b[84:], a[:])
	}
	return b
}

// decode reads a message. ok is false for what is none of this version.
func decode(b []byte) (m message, ok bool) {
	if len(b) < messageLen || string(b[:4]) != magic || b[4] != version {
		return message{}, false
	}
	m.kind, m.status, m.way = kind(b[5]), status(b[6]), wayOf(b[7])
	m.nonce = marker(b[8:24])
	if k := m.kind; k == kindWatch || k == kindCounts {
		m.marker = marker(b[24:40])
	} else {
		m.id = state.ID(b[24:40])
	}
	m.generation = binary.BigEndian.Uint64(b[40:])
	if ns := binary.BigEndian.Uint64(b[48:]); ns != 0 && ns <= math.MaxInt64 {
		m.clock = time.Unix(0, int64(ns))
	}
	m.length = binary.BigEndian.Uint32(b[56:])
	for i := range m.counts {
		k := &m.counts[i]
		for j, n := range []*int{&k.LinkOut, &k.WireOut, &k.WireIn, &k.LinkIn, &k.Bad} {
			*n = int(binary.BigEndian.Uint16(b[60+10*i+2*j:]))
		}
		k.Zero = int(binary.BigEndian.Uint16(b[80+2*i:]))
	}
	if a := netip.AddrFrom16([16]byte(b[84:100])).Unmap(); !a.IsUnspecified() {
		m.overlay = a
	}
	return m, true
}

// ways are the causes that a message can name, by their numbers on the wire from 1 on.
var ways = []Cause{LinkMissing, LinkDown, RouteMissing, RouteForeign, RouteOther, PeerTakenForDead}

func wayCode(c Cause) byte {
	for i, w := range ways {
		if w == c {
			return byte(i + 1)
		}
	}
	return 0
}

func wayOf(code byte) Cause {
	if code == 0 || int(code) > len(ways) {
		return ""
	}
	return ways[code-1]
}
