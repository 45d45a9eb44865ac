package ct

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// Table is the connection tracking table of one namespace.
type Table struct{ nl *nl.Conn }

// New returns the table that c, of the family unix.NETLINK_NETFILTER, talks to.
func New(c *nl.Conn) Table { return Table{c} }

// List returns the flows that keep says true of; a nil keep keeps all. Where the
// kernel has no conntrack over netlink it is errors.ErrUnsupported.
func (t Table) List(ctx context.Context, keep func(*Flow) bool) ([]Flow, error) {
	if n, err := t.count(ctx); err != nil || n == 0 {
		return nil, err
	}
	return t.dump(ctx, everything(), keep)
}

// Any reports whether the namespace has any flow, in the table or on its way into it.
func (t Table) Any(ctx context.Context) (bool, error) {
	n, err := t.count(ctx)
	return n > 0, err
}

// count returns the number of flows of the namespace, including those that are not in the
// table yet. The kernel counts them without a walk through its hash table, which all
// namespaces share. If it does not report the number, there may be any number.
func (t Table) count(ctx context.Context) (int, error) {
	n := math.MaxInt32
	err := t.nl.Call(ctx, nl.Request{Type: msgType(msgGetStats), Body: everything()}, func(m nl.Message) (err error) {
		n, err = decodeCount(m.Body)
		return err
	})
	var refused *nl.Error
	if errors.As(err, &refused) {
		return n, nil // a dump reports why
	}
	if err != nil {
		return 0, fmt.Errorf("counting the conntrack table: %w", err)
	}
	return n, nil
}

func (t Table) dump(ctx context.Context, body []byte, keep func(*Flow) bool) ([]Flow, error) {
	var all []Flow
	err := t.nl.Dump(ctx, nl.Request{Type: msgType(msgGet), Body: body}, func() { all = all[:0] }, func(m nl.Message) error {
		f, err := decodeFlow(m.Body)
		if err == nil && (keep == nil || keep(&f)) {
			all = append(all, f)
		}
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		// nfnetlink's answer for a subsystem that it does not have.
		return nil, refuse.As(errors.ErrUnsupported, "the kernel has no conntrack over netlink (module nf_conntrack_netlink): %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the conntrack table: %w", err)
	}
	return all, nil
}

// Delete deletes flows, and returns how many of them were still there.
func (t Table) Delete(ctx context.Context, flows ...Flow) (int, error) {
	reqs := make([]nl.Request, len(flows))
	for i := range flows {
		reqs[i] = deletion(&flows[i])
	}
	n := len(reqs)
	err := t.nl.ExecAll(ctx, reqs, func(_ int, e *nl.Error) bool {
		n--
		return errors.Is(e, os.ErrNotExist) || errors.Is(e, unix.EBUSY) // EBUSY: in a flowtable, before 6.4 and some stable releases
	}, nil)
	var many *nl.ExecError
	switch {
	case err == nil:
		return n, nil
	case errors.As(err, &many) && many.Cause != nil:
		return 0, many.Cause
	}
	return 0, fmt.Errorf("deleting from the conntrack table: %w", err)
}
