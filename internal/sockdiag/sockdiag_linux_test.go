package sockdiag_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/sockdiag"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// witness reads the sockets of a namespace from /proc/net, which the kernel writes by another way:
// network, state, ends and inode of each.
func witness(t *testing.T, ns *netns.NS) []string {
	t.Helper()
	all, err := netns.Do(t.Context(), ns, func(context.Context) (all []string, err error) {
		for _, file := range []string{"tcp", "tcp6", "udp", "udp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + file)
			if errors.Is(err, os.ErrNotExist) && strings.HasSuffix(file, "6") {
				continue // no IPv6
			}
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if f[0] == "sl" {
					continue
				}
				state, err := strconv.ParseUint(f[3], 16, 8)
				if err != nil {
					return nil, err
				}
				all = append(all, fmt.Sprintf("%s %v from %v to %v inode %s", file, sockdiag.State(state), procEnd(t, f[1]), procEnd(t, f[2]), f[9]))
			}
		}
		return all, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(slices.Values(all))
}

// procEnd reads an address and port of /proc/net: words of 32 bits in the machine's order.
func procEnd(t *testing.T, s string) netip.AddrPort {
	addr, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(addr)
	if err != nil {
		t.Error(err)
	}
	for i := 0; i+4 <= len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Error(err)
	}
	return netip.AddrPortFrom(a, uint16(n))
}

// sockets opens some of each kind, and returns one that listens.
func sockets(t *testing.T, ns *netns.NS) netip.AddrPort {
	t.Helper()
	for _, addr := range []string{"127.0.0.1:0", ":0", "[::1]:0"} {
		if strings.HasPrefix(addr, "[") && !netnstest.HasIPv6() {
			continue
		}
		pc, err := ns.ListenPacket(t.Context(), "udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		ln, err := ns.Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		c, err := ns.Dial(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		in, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close() })
	}
	ln, err := ns.Listen(t.Context(), "tcp4", "127.0.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return netip.MustParseAddrPort(ln.Addr().String())
}

func TestSocketsAreThoseOfProc(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	sockets(t, ns)
	var got []string
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		all, known, err := sockdiag.List(t.Context(), ns, sockdiag.Query{Proto: proto})
		if err != nil || !known {
			t.Fatalf("known %t, %v", known, err)
		}
		for _, s := range all {
			got = append(got, fmt.Sprintf("%v inode %d", s, s.Inode))
		}
	}
	slices.Sort(got)
	want := witness(t, ns)
	if len(want) < 5 || !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOnlyThoseAskedForAreListed(t *testing.T) {
	t.Parallel()
	ns, other := netnstest.New(t), netnstest.New(t)
	at := sockets(t, ns)
	all, err := sockdiag.Listeners(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, s := range all {
		got = append(got, fmt.Sprintf("%v inode %d", s, s.Inode))
	}
	for _, s := range witness(t, ns) {
		if strings.HasPrefix(s, "udp") || strings.Contains(s, " listening ") {
			want = append(want, s)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	q := sockdiag.Waiting(unix.IPPROTO_TCP)
	q.Port = at.Port()
	one, known, err := sockdiag.List(t.Context(), ns, q)
	if err != nil || !known || len(one) != 1 || one[0].Local != at || one[0].Both() {
		t.Errorf("on port %d: %v, %v", at.Port(), one, err)
	}
	if none, err := sockdiag.Listeners(t.Context(), other); len(none) != 0 || err != nil {
		t.Errorf("in another namespace: %v, %v", none, err)
	}
	if none, known, err := sockdiag.List(t.Context(), ns, sockdiag.Query{Proto: unix.IPPROTO_GRE}); len(none) != 0 || known || err != nil {
		t.Errorf("a protocol without ports: %v, known %t, %v", none, known, err)
	}
}

// A socket on all addresses may be one of both families.
func TestSocketsOfBothFamilies(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := netnstest.New(t)
	for network, both := range map[string]bool{"tcp": true, "tcp6": false} {
		ln, err := ns.Listen(t.Context(), network, "[::]:0")
		if err != nil {
			t.Fatal(err)
		}
		all, err := sockdiag.Listeners(t.Context(), ns, unix.IPPROTO_TCP)
		if err != nil || len(all) != 1 || all[0].Both() != both || all[0].V6Only == both || all[0].Network() != "tcp6" {
			t.Errorf("%s: %+v, %v", network, all, err)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
