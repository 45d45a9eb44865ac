package portlock

import (
	"net/netip"
	"testing"

	"github.com/boxwire/boxwire/internal/sockdiag"
	"golang.org/x/sys/unix"
)

func TestListenersOverlapThePortsThatTheyTake(t *testing.T) {
	t.Parallel()
	four, six := port(tcp, "10.1.1.1:80"), port(tcp, "[2001:db8::1]:80")
	for _, x := range []struct {
		addr      string
		v6Only    bool
		four, six bool
	}{
		{"0.0.0.0:80", false, true, false},
		{"[::]:80", true, false, true},
		{"[::]:80", false, true, true},
		{"[::ffff:10.1.1.1]:80", false, true, false},
		{"10.1.1.2:80", false, false, false},
		{"0.0.0.0:81", false, false, false},
	} {
		s := sockdiag.Socket{Proto: tcp, Family: unix.AF_INET6, State: sockdiag.StateListening, Local: netip.MustParseAddrPort(x.addr), V6Only: x.v6Only}
		if s.Local.Addr().Is4() {
			s.Family = unix.AF_INET
		}
		if l := listenerOf(s); l.Overlaps(four) != x.four || l.Overlaps(six) != x.six {
			t.Errorf("%s, IPv6 only %t: %+v", x.addr, x.v6Only, l)
		}
	}
}

func TestAProcessCannotWriteToATerminalByItsName(t *testing.T) {
	t.Parallel()
	for comm, want := range map[string]string{"nginx\n": "nginx (process 7)", "\x1b]0;ok\a\n": `\x1b]0;ok\a (process 7)`, "a\nb\n": `a\nb (process 7)`} {
		if got := called([]byte(comm), "7"); got != want {
			t.Errorf("%q is %q, want %q", comm, got, want)
		}
	}
}
