package ct

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// tracked returns a namespace that tracks connections, and its table.
func tracked(t testing.TB) (*netns.NS, Table) {
	t.Helper()
	ns := netnstest.New(t)
	testutil.Run(t, ns, "nft", "add table inet t; add chain inet t c { type filter hook output priority 0; }; add rule inet t c ct state new accept")
	c, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	return ns, New(c)
}

// send makes a UDP flow to each address.
func send(t testing.TB, ns *netns.NS, to ...string) {
	t.Helper()
	for _, addr := range to {
		c, err := ns.Dial(t.Context(), "udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
}

// destinations are those of the flows that are there, sorted.
func destinations(t testing.TB, table Table) []string {
	t.Helper()
	flows, err := table.List(t.Context(), func(f *Flow) bool { return hasPorts(f.Orig.Proto) })
	if err != nil {
		t.Fatal(err)
	}
	var to []string
	for _, f := range flows {
		to = append(to, f.Orig.Dst.String())
	}
	slices.Sort(to)
	return to
}

func everyAddr(context.Context, netip.Addr) (bool, error) { return true, nil }

func udp(addr string) Target {
	a := addrPort(addr)
	return Target{Proto: unix.IPPROTO_UDP, Addr: a.Addr(), First: a.Port(), Last: a.Port()}
}

// ports makes the target one of the ports up to last.
func ports(g Target, last uint16) Target { g.Last = last; return g }

// of makes the target one of another protocol.
func of(proto uint8, g Target) Target { g.Proto = proto; return g }

// unanswered makes the target one of flows without an answer.
func unanswered(g Target) Target { g.Unanswered = true; return g }

func TestListTellsWhatTheSocketsAre(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns, table := tracked(t)
	sysctl := func(name, value string) string {
		out, err := netns.Do(t.Context(), ns, func(context.Context) (string, error) {
			path := "/proc/sys/net/netfilter/" + name
			if value != "" {
				return "", os.WriteFile(path, []byte(value), 0)
			}
			b, err := os.ReadFile(path)
			return strings.TrimSpace(string(b)), err
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	sysctl("nf_conntrack_acct", "1")
	ln, err := ns.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := ns.Dial(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send(t, ns, "[::1]:53")
	all, err := table.List(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := sysctl("nf_conntrack_count", ""); n != strconv.Itoa(len(all)) {
		t.Errorf("%d flows, the kernel counts %s", len(all), n)
	}
	found := 0
	for _, f := range all {
		switch f.Orig.Proto {
		case unix.IPPROTO_TCP:
			found++
			// SYN, SYN-ACK and ACK went by: TCP_CONNTRACK_ESTABLISHED is 3.
			if f.Orig.Src.String() != c.LocalAddr().String() || f.Orig.Dst.String() != ln.Addr().String() ||
				f.Reply.Src != f.Orig.Dst || f.Reply.Dst != f.Orig.Src || f.State != 3 ||
				!f.Counted || f.Sent.Packets != 2 || f.Received.Packets != 1 || f.Sent.Bytes < 80 || f.Timeout <= 0 {
				t.Errorf("%+v is not %v to %v", f, c.LocalAddr(), c.RemoteAddr())
			}
		case unix.IPPROTO_UDP:
			found++
			if f.Orig.Dst != addrPort("[::1]:53") || f.State != 0 || f.Sent.Packets != 1 {
				t.Errorf("%+v is not the one to [::1]:53", f)
			}
		}
	}
	if found != 2 {
		t.Errorf("%d flows of sockets in %+v", found, all)
	}
}

func TestFlushTakesTheTargetsOnly(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, c := range []struct {
		name    string
		targets []Target
		local   func(context.Context, netip.Addr) (bool, error)
		gone    []string
	}{
		{"one address", []Target{udp("127.0.0.1:53")}, nil, []string{"127.0.0.1:53"}},
		{"one address, IPv6", []Target{udp("[::1]:53")}, nil, []string{"[::1]:53"}},
		{"every address", []Target{udp("0.0.0.0:53")}, everyAddr, []string{"127.0.0.1:53", "127.0.0.2:53"}},
		{"every address, IPv6", []Target{udp("[::]:53")}, everyAddr, []string{"[::1]:53"}},
		{"every address that is local", []Target{udp("0.0.0.0:53")},
			func(_ context.Context, a netip.Addr) (bool, error) { return a.String() == "127.0.0.2", nil }, []string{"127.0.0.2:53"}},
		{"a range", []Target{ports(udp("0.0.0.0:50"), 54)}, everyAddr, []string{"127.0.0.1:53", "127.0.0.1:54", "127.0.0.2:53"}},
		{"a range of an address", []Target{ports(udp("127.0.0.1:50"), 54)}, nil, []string{"127.0.0.1:53", "127.0.0.1:54"}},
		{"every address of both families", []Target{udp("0.0.0.0:53"), udp("[::]:53")}, everyAddr,
			[]string{"127.0.0.1:53", "127.0.0.2:53", "[::1]:53"}},
		{"both families, flows of IPv4 only", []Target{udp("0.0.0.0:55"), udp("[::]:55")}, everyAddr, []string{"127.0.0.1:55"}},
		{"both families, flows of IPv6 only", []Target{udp("0.0.0.0:56"), udp("[::]:56")}, everyAddr, []string{"[::1]:56"}},
		{"one that stands there twice", []Target{udp("0.0.0.0:53"), udp("0.0.0.0:53")}, everyAddr, []string{"127.0.0.1:53", "127.0.0.2:53"}},
		{"another protocol", []Target{of(6, udp("127.0.0.1:53")), of(132, udp("127.0.0.1:53"))}, nil, nil},
		{"more than are asked for singly", []Target{udp("127.0.0.1:53"), udp("127.0.0.1:1"), udp("127.0.0.1:2"), udp("127.0.0.1:3"), udp("[::]:53")},
			everyAddr, []string{"127.0.0.1:53", "[::1]:53"}},
		{"unanswered", []Target{unanswered(udp("0.0.0.0:53"))}, everyAddr, []string{"127.0.0.1:53", "127.0.0.2:53"}},
		{"nothing", nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns, table := tracked(t)
			to := []string{"127.0.0.1:53", "127.0.0.1:54", "127.0.0.1:55", "127.0.0.2:53", "[::1]:53", "[::1]:54", "[::1]:56"}
			send(t, ns, to...)
			if err := table.Flush(t.Context(), c.targets, c.local); err != nil {
				t.Fatal(err)
			}
			want := slices.DeleteFunc(slices.Clone(to), func(s string) bool { return slices.Contains(c.gone, s) })
			if got := destinations(t, table); !slices.Equal(got, want) {
				t.Errorf("left are %v, want %v", got, want)
			}
		})
	}
}

func TestFlushOfAnEmptyTable(t *testing.T) {
	t.Parallel()
	_, table := tracked(t)
	nobody := func(context.Context, netip.Addr) (bool, error) {
		t.Error("asked about an address of no flow")
		return false, nil
	}
	targets := []Target{udp("127.0.0.1:53"), udp("0.0.0.0:53"), udp("[::]:53"), ports(udp("0.0.0.0:50"), 54), unanswered(of(6, udp("[::]:80")))}
	if err := table.Flush(t.Context(), targets, nobody); err != nil {
		t.Error(err)
	}
}

// A connection that a program of the host has is spared.
func TestFlushOfTheUnansweredSparesConnections(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, addr := range []string{"127.0.0.1", "[::1]"} {
		for _, many := range []bool{false, true} {
			ns, table := tracked(t)
			ln, err := ns.Listen(t.Context(), "tcp", addr+":0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			to := ln.Addr().String()
			c, err := ns.Dial(t.Context(), "tcp", to)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			targets := []Target{unanswered(of(6, udp(to)))}
			for many && len(targets) <= maxDeletes {
				targets = append(targets, targets[0])
			}
			if err := table.Flush(t.Context(), targets, nil); err != nil {
				t.Fatal(err)
			}
			if got := destinations(t, table); !slices.Equal(got, []string{to}) {
				t.Errorf("left are %v", got)
			}
			targets[0].Unanswered = false
			if err := table.Flush(t.Context(), targets, nil); err != nil {
				t.Fatal(err)
			}
			if got := destinations(t, table); len(got) != 0 {
				t.Errorf("left are %v", got)
			}
		}
	}
}

// The kernel compares no ports of SCTP: a delete by a filter would take all.
func TestFlushOfSCTPComparesPorts(t *testing.T) {
	t.Parallel()
	ns, table := tracked(t)
	for _, port := range []int{80, 81} {
		_, err := netns.Do(t.Context(), ns, func(context.Context) (any, error) {
			s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
			if err != nil {
				return nil, err
			}
			defer unix.Close(s)
			return nil, unix.Sendto(s, sctpInit(9, uint16(port)), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := destinations(t, table); len(got) != 2 {
		t.Skipf("this kernel tracks no SCTP: %v", got)
	}
	if err := table.Flush(t.Context(), []Target{of(132, udp("127.0.0.1:80"))}, nil); err != nil {
		t.Fatal(err)
	}
	if got := destinations(t, table); !slices.Equal(got, []string{"127.0.0.1:81"}) {
		t.Errorf("left are %v", got)
	}
}

func TestKernelDeletesByFilter(t *testing.T) {
	t.Parallel()
	ns, table := tracked(t)
	send(t, ns, "127.0.0.1:53", "127.0.0.1:54")
	done, err := table.deleteByFilter(t.Context(), udp("127.0.0.1:53"))
	if err != nil {
		t.Fatal(err)
	}
	if want := testutil.KernelAtLeast(6, 11); done != want {
		t.Errorf("deleted by a filter: %v, want %v", done, want)
	}
	want := []string{"127.0.0.1:53", "127.0.0.1:54"}
	if done {
		want = want[1:]
	}
	if got := destinations(t, table); !slices.Equal(got, want) {
		t.Errorf("left are %v, want %v", got, want)
	}
}

// What older kernels take: reading, and deleting one by one.
// A flow that was translated is deleted by where to, whatever its address was: the kernel compares it,
// and spares flows to the same port that went elsewhere. Kernels that cannot delete by a filter read
// the flows, and take every one of a local address.
func TestFlushOfTheTranslated(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		to         Target
		translated string
		gone       []string
		elsewhere  bool // the others to that port stay only where the kernel compares
	}{
		{"all addresses", udp("0.0.0.0:53"), "127.0.0.9:5300", []string{"127.0.0.1:53", "127.0.0.2:53"}, true},
		{"one address", udp("127.0.0.1:53"), "127.0.0.9:5300", []string{"127.0.0.1:53"}, false},
		{"another port there", udp("0.0.0.0:53"), "127.0.0.9:5301", nil, true},
		{"another address there", udp("0.0.0.0:53"), "127.0.0.8:5300", nil, true},
		{"another port here", udp("0.0.0.0:52"), "127.0.0.9:5300", nil, false},
		{"another protocol", of(6, udp("0.0.0.0:53")), "127.0.0.9:5300", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns, table := tracked(t)
			testutil.Run(t, ns, "nft", "add table ip d; add chain ip d c { type nat hook output priority -100; }; "+
				"add rule ip d c ip daddr 127.0.0.1-127.0.0.2 udp dport 53 dnat to 127.0.0.9:5300")
			to := []string{"127.0.0.1:53", "127.0.0.1:54", "127.0.0.2:53", "127.0.0.3:53"}
			send(t, ns, to...)
			c.to.Translated = addrPort(c.translated)
			if err := table.Flush(t.Context(), []Target{c.to}, everyAddr); err != nil {
				t.Fatal(err)
			}
			if c.elsewhere && !testutil.KernelAtLeast(6, 11) {
				c.gone = []string{"127.0.0.1:53", "127.0.0.2:53", "127.0.0.3:53"}
			}
			want := slices.DeleteFunc(slices.Clone(to), func(s string) bool { return slices.Contains(c.gone, s) })
			if got := destinations(t, table); !slices.Equal(got, want) {
				t.Errorf("left are %v, want %v", got, want)
			}
		})
	}
}

// Kernels cannot tell IPv6 addresses apart. Where nothing else translates from the port, those that
// were translated to the port of the box are the flows. One that began before is none of them.
func TestFlushOfTheTranslatedIPv6(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	for _, alone := range []bool{true, false} {
		ns, table := tracked(t)
		send(t, ns, "[::1]:53", "[::1]:54", "127.0.0.1:53")
		testutil.Run(t, ns, "nft", "add table ip6 d; add chain ip6 d c { type nat hook output priority -100; }; "+
			"add rule ip6 d c udp dport 53 dnat to [::1]:5300")
		send(t, ns, "[::1]:53")
		target := udp("[::]:53")
		target.Translated, target.Alone = addrPort("[::1]:5300"), alone
		nowhere := func(context.Context, netip.Addr) (bool, error) { return false, nil }
		if err := table.Flush(t.Context(), []Target{target}, nowhere); err != nil {
			t.Fatal(err)
		}
		want := []string{"127.0.0.1:53", "[::1]:53", "[::1]:53", "[::1]:54"}
		if alone && testutil.KernelAtLeast(6, 11) { // else local is asked
			want = slices.Delete(want, 1, 2)
		}
		if got := destinations(t, table); !slices.Equal(got, want) {
			t.Errorf("alone %v: left are %v, want %v", alone, got, want)
		}
	}
}

func TestFallbackDeletesOneByOne(t *testing.T) {
	t.Parallel()
	ns, table := tracked(t)
	send(t, ns, "127.0.0.1:53", "127.0.0.1:54")
	m := newMatcher([]Target{udp("127.0.0.1:53")})
	flows, err := table.dump(t.Context(), selection(udp("127.0.0.1:53")), m.match)
	if err != nil || len(flows) != 1 {
		t.Fatalf("%v, %v", flows, err)
	}
	for _, want := range []int{1, 0} { // the second time it is gone
		if n, err := table.Delete(t.Context(), flows...); n != want || err != nil {
			t.Errorf("deleted %d, want %d: %v", n, want, err)
		}
	}
	if got := destinations(t, table); !slices.Equal(got, []string{"127.0.0.1:54"}) {
		t.Errorf("left are %v", got)
	}
}

func TestDeleteTakesNoOtherFlowInThePlace(t *testing.T) {
	t.Parallel()
	ns, table := tracked(t)
	send(t, ns, "127.0.0.1:53")
	flows, err := table.List(t.Context(), func(f *Flow) bool { return hasPorts(f.Orig.Proto) })
	if err != nil || len(flows) != 1 {
		t.Fatalf("%v, %v", flows, err)
	}
	flows[0].ID++
	if n, err := table.Delete(t.Context(), flows...); n != 0 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	if got := destinations(t, table); len(got) != 1 {
		t.Errorf("left are %v", got)
	}
}

// sctpInit is an SCTP packet with an INIT chunk (RFC 9260) and its checksum.
func sctpInit(from, to uint16) []byte {
	b := []byte{byte(from >> 8), byte(from), byte(to >> 8), byte(to), 0, 0, 0, 0, 0, 0, 0, 0,
		1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1}
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(b[8:], sum)
	return b
}
