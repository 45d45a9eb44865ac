//go:build linux

// Package reach says who reaches whom. Places answer on port 80 over TCP and UDP, and the table
// of what each of them gets from each target is compared with a table in the test:
//
//	reach.Check(t, "after a reload", places, targets, `
//		         web  :8080 lan
//		lan      -    web   .
//		db       web  web   lan
//	`)
package reach

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Place is a namespace with a name. It asks.
type Place struct {
	Name string
	NS   *netns.NS
}

// Target is what places ask: one address of each family, or fewer.
type Target struct {
	Name  string
	Addrs []netip.AddrPort
	TCP   bool // it is asked over TCP only
}

// To is a target of addresses as text.
func To(name string, addrs ...string) Target {
	t := Target{Name: name}
	for _, a := range addrs {
		t.Addrs = append(t.Addrs, netip.MustParseAddrPort(a))
	}
	return t
}

// OverTCP is the target asked over TCP only: a program that is bound to no address answers
// over UDP from the address that its route has.
func (t Target) OverTCP() Target {
	t.TCP = true
	return t
}

// Serve answers in a namespace on the given ports until the test ends: with the name, and the
// address of the client.
func Serve(t testing.TB, ns *netns.NS, name string, ports ...uint16) {
	t.Helper()
	for _, port := range ports {
		at := fmt.Sprintf(":%d", port)
		ln, err := ns.Listen(t.Context(), "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		pc, err := ns.ListenPacket(t.Context(), "udp", at)
		if err != nil {
			ln.Close()
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { serveTCP(ln, name) })
		wg.Go(func() { serveUDP(pc, name) })
		t.Cleanup(func() {
			ln.Close()
			pc.Close()
			wg.Wait()
		})
	}
}

func serveTCP(ln net.Listener, name string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			answer := answerTo(name, c.RemoteAddr())
			for b := make([]byte, 64); ; {
				if _, err := c.Read(b); err != nil {
					return
				}
				if _, err := c.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}

func serveUDP(pc net.PacketConn, name string) {
	for b := make([]byte, 64); ; {
		_, from, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = pc.WriteTo(answerTo(name, from), from) // who asks, asks again
	}
}

func answerTo(name string, from net.Addr) []byte {
	a, _ := netip.ParseAddrPort(from.String())
	return fmt.Appendf(nil, "%s %s", name, a.Addr().Unmap())
}

// Conn is a connection that asks.
type Conn struct{ net.Conn }

// Dial opens a connection.
func Dial(ctx context.Context, from *netns.NS, network string, to netip.AddrPort) (Conn, error) {
	c, err := from.Dial(ctx, network, to.String())
	return Conn{c}, err
}

// Ask sends a question, over UDP again and again, and returns who answered, and the address that
// the one who answered saw.
func (c Conn) Ask(ctx context.Context) (name string, seen netip.Addr, err error) {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, 256)
	for {
		if _, err = c.Write([]byte("?")); err != nil {
			return "", seen, err
		}
		if c.LocalAddr().Network() == "udp" {
			c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		}
		n, err := c.Read(b)
		if err == nil {
			name, at, _ := strings.Cut(string(b[:n]), " ")
			seen, err = netip.ParseAddr(at)
			return name, seen, err
		}
		timeout, ok := err.(net.Error)
		if !ok || !timeout.Timeout() || ctx.Err() != nil {
			return "", seen, err
		}
	}
}

// Ask asks once, in a connection of its own.
func Ask(ctx context.Context, from *netns.NS, network string, to netip.AddrPort) (name string, seen netip.Addr, err error) {
	c, err := Dial(ctx, from, network, to)
	if err != nil {
		return "", seen, err
	}
	defer c.Close()
	return c.Ask(ctx)
}

const (
	closedAfter = 1500 * time.Millisecond // no answer for so long is none
	openWithin  = 15 * time.Second        // an answer that is expected is waited for so long
)

// Check compares what each place gets from each target with the wanted table. Its first line has
// the names of the targets, each other line the name of a place and what it gets: the name of who
// answers, "-" for no answer, or "." where it is not asked. All addresses of a target are asked
// over TCP and UDP. Where they differ, a cell has each of them, such as "tcp4:web,tcp6:-".
func Check(t testing.TB, when string, places []Place, targets []Target, want string) {
	t.Helper()
	header, rows := parse(t, want)
	find := func(name string) Target {
		i := slices.IndexFunc(targets, func(to Target) bool { return to.Name == name })
		if i < 0 {
			t.Fatalf("there is no target %s", name)
		}
		return targets[i]
	}
	got := make([][]string, len(rows))
	var wg sync.WaitGroup
	for i, row := range rows {
		p := slices.IndexFunc(places, func(p Place) bool { return p.Name == row[0] })
		if p < 0 {
			t.Fatalf("there is no place %s", row[0])
		}
		got[i] = make([]string, len(row))
		got[i][0] = row[0]
		for j, name := range header {
			if row[j+1] == "." {
				got[i][j+1] = "."
				continue
			}
			to := find(name)
			wg.Go(func() { got[i][j+1] = cell(t.Context(), places[p].NS, to, row[j+1]) })
		}
	}
	wg.Wait()
	if !slices.EqualFunc(got, rows, slices.Equal[[]string]) {
		t.Errorf("%s:\n%s\nwant:\n%s", when, format(header, got), format(header, rows))
	}
}

// cell is what a place gets from a target. What is wanted is waited for longer.
func cell(ctx context.Context, from *netns.NS, to Target, want string) string {
	var mu sync.Mutex
	all := map[string]string{}
	var wg sync.WaitGroup
	for _, network := range []string{"tcp", "udp"} {
		if to.TCP && network == "udp" {
			continue
		}
		for _, at := range to.Addrs {
			key := network + "6"
			if at.Addr().Is4() {
				key = network + "4"
			}
			within := openWithin
			if want == "-" || strings.Contains(","+want+",", ","+key+":-,") {
				within = closedAfter
			}
			wg.Go(func() {
				name := patient(ctx, within, from, network, at)
				mu.Lock()
				defer mu.Unlock()
				all[key] = name
			})
		}
	}
	wg.Wait()
	names := slices.Compact(slices.Sorted(maps.Values(all)))
	if len(names) == 1 {
		return names[0]
	}
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, key+":"+all[key])
	}
	return strings.Join(parts, ",")
}

// patient asks until there is an answer, or the time is over. A refusal is no reason to stop: a
// link may have just been made.
func patient(ctx context.Context, within time.Duration, from *netns.NS, network string, at netip.AddrPort) string {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		name, _, err := Ask(ctx, from, network, at)
		if err == nil {
			return name
		}
		select {
		case <-ctx.Done():
			return "-"
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// parse reads a table.
func parse(t testing.TB, text string) (header []string, rows [][]string) {
	t.Helper()
	for line := range strings.Lines(text) {
		switch fields := strings.Fields(line); {
		case len(fields) == 0:
		case header == nil:
			header = fields
		case len(fields) != len(header)+1:
			t.Fatalf("%q has %d columns, want %d", line, len(fields), len(header)+1)
		default:
			rows = append(rows, fields)
		}
	}
	return header, rows
}

// format writes a table.
func format(header []string, rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "\t"+strings.Join(header, "\t"))
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	return b.String()
}
