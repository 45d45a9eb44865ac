package main

import (
	"context"
	"errors"
	"iter"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/topology"
	"github.com/boxwire/boxwire/link"
)

// A source is where a page has the machine from. Tests have one that touches no machine.
type source struct {
	// watch yields a snapshot, and another one whenever the machine has changed.
	watch func(context.Context) iter.Seq2[*topology.Snapshot, error]

	// explain says why ports do not answer. nil leaves the words of the snapshot.
	explain explainer

	// count reads the counters of links, by their indices.
	count func(context.Context, *topology.Namespace, []int) ([]counter, error)
}

// An explainer says why a port of the namespace with the inode number host does not answer. "" is that
// it finds no cause.
type explainer func(ctx context.Context, s *topology.Snapshot, host uint64, p topology.Port) (string, error)

// A counter is how many bytes a link has received and sent since it was made.
type counter struct {
	Index int    `json:"index"`
	Rx    uint64 `json:"rx"`
	Tx    uint64 `json:"tx"`
}

// count reads the counters of links in a namespace, which it opens for as long as it reads. A link that
// is gone is left out.
func count(ctx context.Context, n *topology.Namespace, indices []int) ([]counter, error) {
	ns, err := n.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	links, err := link.List(ctx, ns, link.Filter{})
	if err != nil {
		return nil, err
	}
	all := make([]counter, 0, len(indices))
	for _, l := range links {
		if !slices.Contains(indices, l.Index) {
			continue
		}
		stats, err := l.Stats(ctx)
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, counter{l.Index, stats.RxBytes, stats.TxBytes})
	}
	return all, nil
}
