//go:build linux

package boxes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/engines/reach"
	"github.com/boxwire/boxwire/netns"
)

// Echo sends back what it gets at a TCP port of a namespace, until the test ends.
func Echo(t testing.TB, ns *netns.NS, address string) {
	t.Helper()
	ln, err := ns.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// Stream is a connection to Echo that stays open.
type Stream struct {
	conn net.Conn
	n    byte
}

// Connect opens a stream.
func Connect(t testing.TB, ns *netns.NS, address string) *Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := &Stream{conn: c}
	s.Check(t, "before all")
	return s
}

// patience bounds how long an answer may take.
const patience = 30 * time.Second

// Check sends something and wants it back.
func (s *Stream) Check(t testing.TB, when string) {
	t.Helper()
	s.n++
	sent, got := []byte{s.n}, []byte{0}
	err := s.conn.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = s.conn.Write(sent)
	}
	if err == nil {
		_, err = io.ReadFull(s.conn, got)
	}
	if err == nil && got[0] != sent[0] {
		err = errors.New("another answer")
	}
	if err != nil {
		t.Errorf("the connection from before, %s: %v", when, err)
	}
}

// Visit has visitors come all the time while something is done, and wants an answer of the name for each,
// even if its first packets are lost.
func Visit(t testing.TB, ns *netns.NS, address, name, while string, do func()) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if err := visit(t.Context(), ns, address, name); err != nil {
					t.Errorf("a visitor during %s: %v", while, err)
				}
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	do()
	close(done)
	wg.Wait()
}

func visit(ctx context.Context, ns *netns.NS, address, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a, err := reach.Ask(ctx, ns, "tcp", address)
	if err == nil && a.Server != name {
		err = fmt.Errorf("%s answers, want %s", a.Server, name)
	}
	return err
}
