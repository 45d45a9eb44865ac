package reach

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Held is a TCP connection to a server that is kept open.
type Held struct {
	what string
	conn net.Conn
	in   *bufio.Reader
	n    int
}

// Hold connects a place with a target, and keeps the connection until the test ends.
func (w World) Hold(t testing.TB, place, target string) *Held {
	t.Helper()
	return Hold(t, w.Places[place], w.Targets[target], place+" to "+target)
}

// Hold connects a namespace with the server at an address.
func Hold(t testing.TB, ns *netns.NS, address, what string) *Held {
	t.Helper()
	c, err := ns.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatalf("reach: holding %s: %v", what, err)
	}
	t.Cleanup(func() { c.Close() })
	h := &Held{what: what, conn: c, in: bufio.NewReader(c)}
	if _, err := h.line(); err != nil {
		t.Fatalf("reach: holding %s: %v", what, err)
	}
	return h
}

// line reads a line.
func (h *Held) line() (string, error) {
	if err := h.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	return h.in.ReadString('\n')
}

// Check fails the test unless both ends still hear each other.
func (h *Held) Check(t testing.TB, when string) {
	t.Helper()
	h.n++
	want := fmt.Sprintf("%d\n", h.n)
	_, err := h.conn.Write([]byte(want))
	if err == nil {
		var got string
		if got, err = h.line(); err == nil && got != want {
			err = fmt.Errorf("%q came back for %q", got, want)
		}
	}
	if err != nil {
		t.Errorf("reach: %s: the connection of %s: %v", when, h.what, err)
	}
}
