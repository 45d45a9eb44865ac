package portlock

import (
	"testing"

	"golang.org/x/sys/unix"
)

// diagReply is a struct inet_diag_msg with attributes behind.
func diagReply(family byte, attrs ...byte) []byte {
	b := make([]byte, diagMessage, diagMessage+len(attrs))
	b[0], b[1] = family, 10
	b[4], b[5] = 0, 80
	return append(b, attrs...)
}

func TestListenersAreDecoded(t *testing.T) {
	t.Parallel()
	v6only := []byte{5, 0, diagV6Only, 0, 1, 0, 0, 0}
	dual := []byte{5, 0, diagV6Only, 0, 0, 0, 0, 0}
	four, six := port(tcp, "10.1.1.1:80"), port(tcp, "[2001:db8::1]:80")
	for name, x := range map[string]struct {
		reply     []byte
		four, six bool
	}{
		"IPv4":           {diagReply(unix.AF_INET), true, false},
		"IPv6 alone":     {diagReply(unix.AF_INET6, v6only...), false, true},
		"IPv6 with IPv4": {diagReply(unix.AF_INET6, dual...), true, true},
	} {
		l, ok, err := decodeListener(x.reply, tcp)
		if err != nil || !ok || l.Overlaps(four) != x.four || l.Overlaps(six) != x.six {
			t.Errorf("%s: %v, %v, %v", name, l, ok, err)
		}
	}
	if _, _, err := decodeListener(make([]byte, diagMessage-1), tcp); err == nil {
		t.Error("a reply that is too short")
	}
	if _, ok, err := decodeListener(make([]byte, diagMessage), tcp); ok || err != nil {
		t.Errorf("a socket without a port: %v, %v", ok, err)
	}
}

func FuzzDecodeListener(f *testing.F) {
	f.Add(diagReply(unix.AF_INET))
	f.Add(diagReply(unix.AF_INET6, 5, 0, diagV6Only, 0, 1, 0, 0, 0, 8, 0, diagMark, 0, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok, err := decodeListener(b, tcp)
		if err == nil && ok && (l.Range.First == 0 || !l.Range.Addr.IsValid()) {
			t.Errorf("decoded to %v", l)
		}
	})
}
