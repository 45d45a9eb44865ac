package firewall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// Read reads the networks and ports of all tables of a namespace. It changes nothing. A namespace
// without nftables has none.
func Read(ctx context.Context, ns *netns.NS) (f topology.Firewall, err error) {
	tables, err := nat.ListTables(ctx, ns)
	if errors.Is(err, errors.ErrUnsupported) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	ours := make(map[string]bool)
	for _, t := range tables {
		ours[t.Name] = true
		switch {
		case t.Older:
			f.Notes = append(f.Notes, fmt.Sprintf("table inet %s is of an older version of the library; its networks and ports are not read", t.Name))
		case t.Newer:
			f.Notes = append(f.Notes, fmt.Sprintf("table inet %s is of a newer version of the library; its networks and ports are not read", t.Name))
		default:
			err = errors.Join(err, readTable(ctx, ns, t.Name, &f))
		}
	}
	return f, errors.Join(err, readForeign(ctx, ns, ours, &f), legacy(ctx, ns, &f))
}

// readTable reads a table of the library. One that is deleted meanwhile is left out.
func readTable(ctx context.Context, ns *netns.NS, name string, f *topology.Firewall) error {
	gw, err := nat.Open(ctx, ns, nat.Options{Name: name, ReadOnly: true})
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	defer gw.Close()
	networks, err := gw.ListNetworks(ctx)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	ports, err := gw.ListPorts(ctx)
	if err != nil {
		return netns.IgnoreNotExist(err)
	}
	table := "inet " + name
	for _, n := range networks {
		f.Networks = append(f.Networks, topology.Network{Table: table, Interface: n.Interface, Subnets: n.Subnets, Flags: flags(n.Network)})
	}
	for _, p := range ports {
		f.Ports = append(f.Ports, topology.Port{
			Table: table, Proto: p.Proto.String(), Host: p.Host, Last: p.HostLast, Box: p.Box, Owner: p.Owner,
		})
	}
	return nil
}

// flags are the options of a network in few words.
func flags(n nat.Network) (words []string) {
	for _, option := range []struct {
		on   bool
		word string
	}{
		{n.Masquerade, "masquerade"}, {len(n.SNAT) > 0, "snat"}, {!n.Masquerade && len(n.SNAT) == 0 && !n.Internal, "routed"},
		{n.Internal, "internal"}, {n.Isolated, "isolated"}, {n.Strict, "strict"},
	} {
		if option.on {
			words = append(words, option.word)
		}
	}
	return words
}

// Why says why a published port of a namespace does not answer; of a range, its first port. It is
// ErrForeign for a port of another firewall, and os.ErrNotExist for one that is not published any more.
func Why(ctx context.Context, s *topology.Snapshot, host uint64, p topology.Port) (nat.Causes, error) {
	name, ours := strings.CutPrefix(p.Table, "inet ")
	if !ours || p.Owner == "" {
		return nil, ErrForeign
	}
	n := s.Namespace(host)
	if n == nil {
		return nil, os.ErrNotExist
	}
	ns, err := n.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	gw, err := nat.Open(ctx, ns, nat.Options{Name: name, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer gw.Close()
	published, err := gw.ListPorts(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(published, func(q nat.Published) bool {
		return q.Proto.String() == p.Proto && q.Host.Addr() == p.Host.Addr() &&
			q.Host.Port() <= p.Host.Port() && p.Host.Port() <= max(q.HostLast, q.Host.Port())
	})
	if i < 0 {
		return nil, os.ErrNotExist
	}
	var hints nat.Hints
	if p.To != nil {
		if far := s.Namespace(p.To.Inode); far != nil {
			if hints.Box, err = far.Open(ctx); err == nil {
				defer hints.Box.Close()
			}
		}
	}
	return gw.Explain(ctx, nat.Port{Proto: published[i].Proto, Host: p.Host}, hints)
}
