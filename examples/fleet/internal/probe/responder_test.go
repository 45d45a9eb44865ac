//go:build linux

package probe

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// pair is a responder on b, and a socket on a that is connected with it.
func pair(t *testing.T, self Self) (*Responder, net.Conn, netnstest.Box, netnstest.Box) {
	t.Helper()
	a, b := netnstest.Pair(t)
	w := &world{t: t, self: self}
	w.self.Host = Host{NS: b.NS, Tunnel: "fl0", Owner: owner, Port: 4790}
	r := w.serve()
	c := must(a.Dial(t.Context(), "udp4", netip.AddrPortFrom(b.Addr4.Addr(), 4791).String()))(t)
	t.Cleanup(func() { c.Close() })
	return r, c, a, b
}

// exchange returns the reply to a request, or nil if there is none before the reply to a later one.
func exchange(t *testing.T, c net.Conn, request []byte) []byte {
	t.Helper()
	last := message{kind: kindSize, nonce: newMarker()}
	for _, b := range [][]byte{request, last.encode(0)} {
		must(c.Write(b))(t)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var answer []byte
	for {
		buf := make([]byte, maxMessage)
		n := must(c.Read(buf))(t)
		if m, ok := decode(buf[:n]); ok && m.nonce == last.nonce {
			return answer
		}
		if answer != nil {
			t.Errorf("two replies to one request: %x", buf[:n])
		}
		answer = buf[:n]
	}
}

func TestReplyIsNeverLonger(t *testing.T) {
	t.Parallel()
	r, c, _, _ := pair(t, Self{ID: state.ID{7}, Generation: 9})
	for k := range kind(16) {
		r.bucket.mu.Lock()
		r.bucket.level = 0 // the limit has a test of its own
		r.bucket.mu.Unlock()
		for _, length := range []int{0, 1, messageLen - 1, messageLen, messageLen + 1, 900, 1472} {
			m := message{kind: k, nonce: newMarker(), overlay: netip.MustParseAddr("10.100.1.1")}
			request := m.encode(length)[:length]
			answer := exchange(t, c, request)
			known := k >= kindHello && k <= kindWay
			if (answer != nil) != (known && length >= messageLen) || len(answer) > len(request) {
				t.Errorf("kind %d, %d bytes: a reply of %d", k, length, len(answer))
			}
			if k == kindMirror && answer != nil && len(answer) != length {
				t.Errorf("a mirror of %d bytes has %d", length, len(answer))
			}
		}
	}
	// A reply is no request: two responders must not talk to each other for ever.
	if answer := exchange(t, c, message{kind: kindHello | reply}.encode(0)); answer != nil {
		t.Errorf("a reply is answered: %x", answer)
	}
}

func TestResponderSaysWhoItIs(t *testing.T) {
	t.Parallel()
	_, c, _, _ := pair(t, Self{ID: state.ID{7}, Generation: 9})
	before := time.Now()
	m, ok := decode(exchange(t, c, message{kind: kindHello, nonce: marker{3}}.encode(0)))
	if !ok || m.kind != kindHello|reply || m.nonce != (marker{3}) || m.id != (state.ID{7}) || m.generation != 9 {
		t.Errorf("%+v, %v", m, ok)
	}
	if m.clock.Before(before.Round(0)) || m.clock.After(time.Now()) {
		t.Errorf("the clock is %v, asked at %v", m.clock, before)
	}
	m, ok = decode(exchange(t, c, message{kind: kindWay, overlay: netip.MustParseAddr("10.100.1.1")}.encode(0)))
	if !ok || m.status != statusOK || m.way != LinkMissing {
		t.Errorf("the way: %+v, %v", m, ok)
	}
}

func TestResponderAllow(t *testing.T) {
	t.Parallel()
	allowed := netip.MustParseAddr("10.77.0.9")
	r, c, a, b := pair(t, Self{Allow: func(from netip.Addr) bool { return from == allowed }})
	eth := must(link.Get(t.Context(), a.NS, "eth0"))(t)
	check(t, eth.AddPrefixes(t.Context(), netip.PrefixFrom(allowed, 24)))
	must(c.Write(message{kind: kindHello}.encode(0)))(t)
	asker := must(newAsker(t.Context(), a.NS, allowed, netip.AddrPortFrom(b.Addr4.Addr(), 4791)))(t)
	defer asker.conn.Close()
	if _, _, err := asker.ask(t.Context(), message{kind: kindHello}); err != nil {
		t.Error(err)
	}
	if n := r.Ignored.Load(); n != 1 {
		t.Errorf("%d requests were ignored, want the first one", n)
	}
}

// The kernel would choose a's nearest address of b as the source, and a's connected socket would not take that reply.
func TestReplyLeavesByTheAddressThatWasAsked(t *testing.T) {
	t.Parallel()
	_, _, a, b := pair(t, Self{})
	eth := must(link.Get(t.Context(), b.NS, "eth0"))(t)
	second := prefixes("10.77.0.200/24", "fd77::200/64")
	if netnstest.HasIPv6() {
		check(t, b.SetSysctl(t.Context(), "net.ipv6.conf.eth0.accept_dad", "0"))
	}
	check(t, eth.AddPrefixes(t.Context(), second...))
	for _, p := range second {
		asker := must(newAsker(t.Context(), a.NS, netip.Addr{}, netip.AddrPortFrom(p.Addr(), 4791)))(t)
		defer asker.conn.Close()
		if _, _, err := asker.ask(t.Context(), message{kind: kindHello}); err != nil {
			t.Error(err)
		}
	}
}

func TestOneCountAtATime(t *testing.T) {
	t.Parallel()
	_, c, _, _ := pair(t, Self{})
	one, two := newMarker(), newMarker()
	for i, step := range []struct {
		kind   kind
		marker marker
		want   status
	}{
		{kindCounts, one, statusFailed}, // none has begun
		{kindWatch, one, statusOK},
		{kindWatch, one, statusOK}, // the reply was lost
		{kindWatch, two, statusBusy},
		{kindCounts, two, statusFailed},
		{kindCounts, one, statusOK},
		{kindCounts, one, statusOK}, // the reply was lost
		{kindWatch, two, statusOK},
		{kindCounts, one, statusFailed},
	} {
		m, ok := decode(exchange(t, c, message{kind: step.kind, nonce: newMarker(), marker: step.marker}.encode(0)))
		if !ok || m.status != step.want {
			t.Errorf("step %d: status %d (%v), want %d", i, m.status, ok, step.want)
		}
	}
}

func TestBucket(t *testing.T) {
	t.Parallel()
	var b bucket
	now := time.Now()
	take := func(n int, each float64) (taken int) {
		for range n {
			if b.take(now, each) {
				taken++
			}
		}
		return taken
	}
	if n := take(3*rate, 1); n != rate {
		t.Errorf("%d at once, want %d", n, rate)
	}
	now = now.Add(100 * time.Millisecond)
	if n := take(3*rate, 1); n != rate/10 {
		t.Errorf("%d after 100 ms, want %d", n, rate/10)
	}
	now = now.Add(-time.Hour)
	if n := take(1, 1); n != 0 {
		t.Error("one more after the clock was set back")
	}
	now = now.Add(time.Hour)
	if n := take(3*rate, 1); n != rate {
		t.Errorf("%d after an hour, want %d", n, rate)
	}
	now = now.Add(time.Hour)
	if n := take(rate, dear); n != rate/dear {
		t.Errorf("%d dear ones, want %d", n, rate/dear)
	}
}

func TestListenTakenPort(t *testing.T) {
	t.Parallel()
	_, _, _, b := pair(t, Self{})
	if r, err := Listen(t.Context(), Self{Host: Host{NS: b.NS, Port: 4790}}); !errors.Is(err, syscall.EADDRINUSE) || r != nil {
		t.Errorf("a port that is taken: %v", err)
	}
}
