package nat

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
	four, six := tcp("10.1.1.1:80", "10.0.0.2:80", "").claim(), tcp("[2001:db8::1]:80", "[fd00::2]:80", "").claim()
	for name, x := range map[string]struct {
		reply     []byte
		four, six bool
	}{
		"IPv4":           {diagReply(unix.AF_INET), true, false},
		"IPv6 alone":     {diagReply(unix.AF_INET6, v6only...), false, true},
		"IPv6 with IPv4": {diagReply(unix.AF_INET6, dual...), true, true},
	} {
		l, ok, err := decodeListener(x.reply, TCP)
		if err != nil || !ok || l.meets(four) != x.four || l.meets(six) != x.six {
			t.Errorf("%s: %v, %v, %v", name, l, ok, err)
		}
	}
	if _, _, err := decodeListener(make([]byte, diagMessage-1), TCP); err == nil {
		t.Error("a reply that is too short")
	}
	if _, ok, err := decodeListener(make([]byte, diagMessage), TCP); ok || err != nil {
		t.Errorf("a socket without a port: %v, %v", ok, err)
	}
}

func FuzzDecodeListener(f *testing.F) {
	f.Add(diagReply(unix.AF_INET))
	f.Add(diagReply(unix.AF_INET6, 5, 0, diagV6Only, 0, 1, 0, 0, 0, 8, 0, diagMark, 0, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok, err := decodeListener(b, TCP)
		if err == nil && ok && (l.claim.lo == 0 || !l.claim.addr.IsValid()) {
			t.Errorf("decoded to %v", l)
		}
	})
}

func FuzzDecodeLinkAddr(f *testing.F) {
	f.Add(append(make([]byte, unix.SizeofIfAddrmsg), 8, 0, unix.IFA_LOCAL, 0, 10, 1, 1, 1))
	f.Add(append(make([]byte, unix.SizeofIfAddrmsg), 8, 0, unix.IFA_ADDRESS, 0, 10, 1, 1, 2, 8, 0, unix.IFA_LOCAL, 0, 10, 1, 1, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, _, err := decodeLinkAddr(b); err == nil && a.IsValid() && a.BitLen() != 32 && a.BitLen() != 128 {
			t.Errorf("decoded to %v", a)
		}
	})
}

// Looking for overlaps among ports costs nothing for each of them.
func TestPortsAreCheckedWithoutAllocations(t *testing.T) {
	ports := bulk(1000)
	if n := testing.AllocsPerRun(10, func() {
		if p, err := checkPorts(ports); err != nil {
			t.Error(p, err)
		}
	}); n > 50 {
		t.Errorf("%v allocations for 1000 ports", n)
	}
}
