package sockdiag

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestAShortReplyIsAnError(t *testing.T) {
	t.Parallel()
	if _, err := decode(make([]byte, messageLen-1), unix.IPPROTO_TCP); err == nil {
		t.Error("a reply without its header is read")
	}
	if _, err := decode(append(make([]byte, messageLen), 9, 0, 1, 0), unix.IPPROTO_TCP); err == nil {
		t.Error("a malformed attribute is read")
	}
}

func TestStatesAndNetworksHaveNames(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		StateListening.String(): "listening", State(12).String(): "new", State(0).String(): "0", State(99).String(): "99",
		Socket{Proto: unix.IPPROTO_SCTP, Family: unix.AF_INET6}.Network(): "sctp6", Socket{Proto: 33}.Network(): "protocol 33, ",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(append(make([]byte, messageLen), 5, 0, attrV6Only, 0, 1, 0, 0, 0, 8, 0, attrMark, 0, 1, 0, 0, 0))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if s, err := decode(b, unix.IPPROTO_TCP); err == nil {
			_, _ = s.String(), s.Both()
		}
	})
}
