//go:build linux

package lab

import (
	"encoding/binary"
	"testing"

	"github.com/boxwire/boxwire/netns/netnstest"
)

// What the receiving socket has to drop is no loss of the network.
func TestStreamThatIsNotReadInTime(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	s, err := StartStream(t.Context(), a.NS, b.NS, b.Addr4.Addr(), StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReceived(t.Context(), 10); err != nil {
		t.Error(err)
	}
	// The mutex keeps the receiver from reading and the sender from sending. Packets of nobody fill the socket.
	s.mu.Lock()
	other := make([]byte, len(s.payload))
	binary.BigEndian.PutUint64(other, endMark-1)
	for range 100_000 {
		if _, err := s.out.Write(other); err != nil {
			t.Error(err)
			break
		}
	}
	s.mu.Unlock()
	if err := s.WaitReceived(t.Context(), 10); err != nil {
		t.Error(err)
	}
	stats, err := s.Stop(t.Context())
	if err != nil || stats.Overrun == 0 || stats.Lost != 0 {
		t.Errorf("%v, %v", stats, err)
	}
}
