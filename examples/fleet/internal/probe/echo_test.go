//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/boxwire/boxwire/route"
	"golang.org/x/sys/unix"
)

func TestEcho(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	pairs := [][2]netip.Addr{{a.Addr4.Addr(), b.Addr4.Addr()}, {{}, b.Addr4.Addr()}}
	if netnstest.HasIPv6() {
		pairs = append(pairs, [2]netip.Addr{a.Addr6.Addr(), b.Addr6.Addr()})
	}
	for _, p := range pairs {
		before := icmpIn(t, b.NS)
		if err := Echo(t.Context(), a.NS, p[0], p[1]); err != nil {
			t.Error(err)
		}
		if after := icmpIn(t, b.NS); after != before+1 {
			t.Errorf("%v: the target's kernel counts %d requests, want 1", p, after-before)
		}
	}
	nft(t, b.NS, "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in meta l4proto { icmp, ipv6-icmp } counter drop")
	for _, p := range pairs {
		if err := Echo(t.Context(), a.NS, p[0], p[1]); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%v, which drops: %v", p, err)
		}
	}
}

// The reply must be of the target and to this request: a third host answers in the target's place, and another program's
// reply has the target's address.
func TestEchoIgnoresWrongReplies(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	from, to := a.Addr4.Addr(), b.Addr4.Addr()
	nft(t, b.NS, "add table inet t; add chain inet t in { type filter hook input priority 0; }; add rule inet t in meta l4proto icmp drop")
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	wrong, err := b.ListenPacket(t.Context(), "ip4:icmp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	go func() { // until Echo has given up
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for id := 0; ; id += 977 {
			m := make([]byte, 8+nonceLen)
			m[4], m[5] = byte(id>>8), byte(id)
			sum := ^checksum(m, 0)
			m[2], m[3] = byte(sum>>8), byte(sum)
			if _, err := wrong.WriteTo(m, &net.IPAddr{IP: from.AsSlice()}); err != nil {
				done <- err
				return
			}
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-ticker.C:
			}
		}
	}()
	if err := Echo(t.Context(), a.NS, from, to); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("only wrong replies came: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	e := &echo{family: netns.IPv4, raw: true, id: 7, nonce: make([]byte, nonceLen)}
	good := e.request(1)
	good[0] = echoReply4
	if !e.answers(good) {
		t.Error("a right reply is refused")
	}
	for name, change := range map[string]func(m []byte) []byte{
		"request":  func(m []byte) []byte { m[0] = echoRequest4; return m },
		"code":     func(m []byte) []byte { m[1] = 1; return m },
		"id":       func(m []byte) []byte { m[5]++; return m },
		"sequence": func(m []byte) []byte { m[7] = echoTries; return m },
		"nonce":    func(m []byte) []byte { m[12]++; return m },
		"short":    func(m []byte) []byte { return m[:len(m)-1] },
		"long":     func(m []byte) []byte { return append(m, 0) },
		"nothing":  func(m []byte) []byte { return nil },
	} {
		if e.answers(change(append([]byte(nil), good...))) {
			t.Errorf("a reply with a wrong %s is accepted", name)
		}
	}
}

func TestEchoErrors(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	to := b.Addr4.Addr()
	if err := route.Add(t.Context(), a.NS, route.Route{Dst: netip.MustParsePrefix("10.100.2.0/24"), Type: route.TypeUnreachable}); err != nil {
		t.Fatal(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name     string
		ctx      context.Context
		from, to netip.Addr
		want     error
	}{
		{"an unreachable route", t.Context(), a.Addr4.Addr(), netip.MustParseAddr("10.100.2.1"), syscall.EHOSTUNREACH},
		{"no route", t.Context(), a.Addr4.Addr(), netip.MustParseAddr("10.101.2.1"), syscall.ENETUNREACH},
		{"a source that the host lacks", t.Context(), netip.MustParseAddr("10.9.9.9"), to, syscall.EADDRNOTAVAIL},
		{"no target", t.Context(), a.Addr4.Addr(), netip.Addr{}, os.ErrInvalid},
		{"any target", t.Context(), a.Addr4.Addr(), netip.IPv4Unspecified(), os.ErrInvalid},
		{"a done context", canceled, a.Addr4.Addr(), to, context.Canceled},
	} {
		if err := Echo(tt.ctx, a.NS, tt.from, tt.to); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestEchoAll(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	lo, err := link.Get(t.Context(), b.NS, "lo")
	if err != nil {
		t.Fatal(err)
	}
	from, way := []netip.Addr{a.Addr4.Addr()}, []route.Route{route.To(netip.MustParsePrefix("10.100.0.0/16"), b.Addr4.Addr())}
	if netnstest.HasIPv6() {
		from = append(from, a.Addr6.Addr())
		way = append(way, route.To(netip.MustParsePrefix("fd99::/48"), b.Addr6.Addr()))
	}
	if err := route.Add(t.Context(), a.NS, way...); err != nil {
		t.Fatal(err)
	}
	const n = 500
	var here []netip.Prefix
	var targets []netip.Addr
	for i := range n {
		here = append(here, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, byte(i / 200), byte(1 + i%200)}), 32))
		if netnstest.HasIPv6() {
			here = append(here, netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd99::%x", 1+i)), 128))
		}
	}
	for _, p := range here {
		targets = append(targets, p.Addr())
	}
	if err := lo.AddPrefixes(t.Context(), here...); err != nil {
		t.Fatal(err)
	}
	gone := netip.MustParseAddr("10.100.77.1")
	answers, err := EchoAll(t.Context(), a.NS, from, append(targets, gone))
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != len(targets)+1 || answers[gone] == nil {
		t.Errorf("%d answers, %v of one that is not there", len(answers), answers[gone])
	}
	for _, target := range targets {
		if answers[target] != nil {
			t.Error(answers[target])
		}
	}
}

// A program without CAP_NET_RAW uses a ping socket, if its group may.
func TestEchoPingSocket(t *testing.T) {
	t.Parallel()
	a, b := netnstest.Pair(t)
	want := os.ErrPermission
	for _, groups := range []string{"", "0 0"} { // the kernel's default is nobody
		if groups != "" {
			if err := a.SetSysctl(t.Context(), "net.ipv4.ping_group_range", groups); err != nil {
				t.Fatal(err)
			}
		}
		targets := []netip.Addr{b.Addr4.Addr()}
		from := []netip.Addr{a.Addr4.Addr()}
		if netnstest.HasIPv6() {
			targets, from = append(targets, b.Addr6.Addr()), append(from, a.Addr6.Addr())
		}
		for i := range targets {
			e, err := openEchoSocket(t.Context(), a.NS, familyOf(targets[i]), from, newMarker(), unix.SOCK_DGRAM)
			if !errors.Is(err, want) {
				t.Errorf("groups %q: %v, want %v", groups, err, want)
			}
			if err != nil {
				continue
			}
			e.waiting[targets[i]] = ErrNoAnswer
			e.run(t.Context())
			e.conn.Close()
			if len(e.waiting) != 0 {
				t.Errorf("by a ping socket: %v", e.waiting)
			}
		}
		want = nil
	}
}

// icmpIn is how many echo requests the kernel has received, from /proc.
func icmpIn(t *testing.T, ns *netns.NS) int {
	t.Helper()
	out, err := ns.Command(t.Context(), "cat", "/proc/net/snmp", "/proc/net/snmp6").Output()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	n, names := 0, []string(nil)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		var v int
		switch {
		case strings.HasPrefix(line, "Icmp: InMsgs"):
			names = fields
		case strings.HasPrefix(line, "Icmp: "):
			for i, name := range names {
				if name == "InEchos" {
					fmt.Sscan(fields[i], &v)
				}
			}
		case strings.HasPrefix(line, "Icmp6InEchos "):
			fmt.Sscan(fields[1], &v)
		}
		n += v
	}
	return n
}

func nft(t *testing.T, ns *netns.NS, commands string) {
	t.Helper()
	run(t, ns, "nft", commands)
}

// run runs a program that breaks something, or reads what is.
func run(t *testing.T, ns *netns.NS, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
	out, err := ns.Command(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
