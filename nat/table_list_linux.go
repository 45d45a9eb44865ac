package nat

import (
	"cmp"
	"context"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// ListTables lists the tables of this library in the namespace ns, of any version, sorted by name. It
// changes nothing. A table is one of this library if its comment says so; the comment is all that is
// read. A namespace without tables is an empty list.
//
// Errors: os.ErrPermission without CAP_NET_ADMIN over the namespace; errors.ErrUnsupported where the
// kernel has no nftables; os.ErrClosed for a closed namespace handle.
func ListTables(ctx context.Context, ns *netns.NS) ([]Table, error) {
	all, err := listTables(ctx, ns)
	return all, fail.New("nat.ListTables", ns, "tables", err)
}

func listTables(ctx context.Context, ns *netns.NS) (all []Table, err error) {
	x, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	c := nft.New(x)
	if _, err := c.Generation(ctx); err != nil { // it tells a kernel without nftables
		return nil, err
	}
	tables, err := c.Tables(ctx)
	for _, t := range tables {
		if version, ours := versionOf(t.Comment); ours {
			all = append(all, Table{Name: t.Name, Older: version < skeletonVersion, Newer: version > skeletonVersion})
		}
	}
	slices.SortFunc(all, func(a, b Table) int { return cmp.Compare(a.Name, b.Name) })
	return all, err
}
