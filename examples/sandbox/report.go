//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/boxwire/boxwire/nat"
)

// maxReported bounds how many refused names, and how many denied destinations, are printed.
const maxReported = 20

// report prints what was denied, a line for each name and each destination. Where nothing was, it
// prints nothing.
func report(ctx context.Context, b *box, f *forwarder, out io.Writer) error {
	var lines []string
	for name, n := range f.refusals() {
		lines = append(lines, fmt.Sprintf("name %q, %s", name, times(uint64(n), "query", "queries")))
	}
	slices.Sort(lines)
	print := func(what string) {
		for i, line := range lines {
			if i == maxReported {
				fmt.Fprintf(out, "sandbox: denied: %d further %s\n", len(lines)-i, what)
				break
			}
			fmt.Fprintln(out, "sandbox: denied:", line)
		}
	}
	print("names")
	total, err := b.denied(ctx)
	if err != nil {
		return err
	}
	all, err := b.gw.ListDenied(ctx)
	if err != nil {
		return err
	}
	lines = nil
	for _, d := range slices.Backward(all) { // the first one first
		// The record of an earlier box that had the address is older.
		if d.Ingress || !slices.Contains(b.addrs, d.Src) || d.Ago > time.Since(b.began) {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s, %s", destination(d), times(d.Packets, "packet", "packets")))
		total -= min(total, d.Packets)
	}
	print("destinations")
	if total > 0 {
		fmt.Fprintf(out, "sandbox: denied: %s without a record\n", times(total, "packet", "packets"))
	}
	return nil
}

// refusals are the refused queries by name.
func (f *forwarder) refusals() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := maps.Clone(f.refused)
	if f.others > 0 {
		all["(others)"] = f.others
	}
	return all
}

// denied is how many packets of the box its policy denied.
func (b *box) denied(ctx context.Context) (uint64, error) {
	policies, err := b.gw.ListPolicies(ctx)
	for _, p := range policies {
		if p.Owner == b.state.Policies[0].Owner {
			return p.DeniedOut, err
		}
	}
	return 0, err
}

// destination names where denied packets went: "tcp 203.0.113.9:22".
func destination(d nat.Denial) string {
	const icmp6 = 58
	switch {
	case d.Proto == icmp6:
		return "icmpv6 " + d.Dst.String()
	case d.Port == 0:
		return d.Proto.String() + " " + d.Dst.String()
	}
	return d.Proto.String() + " " + netip.AddrPortFrom(d.Dst, d.Port).String()
}

func times(n uint64, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}
