package ct

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
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

// count returns how many flows the namespace has, in the table and on their way
// into it. To read that takes the kernel no walk through its hash table, which it
// has one of for all namespaces. A kernel that does not say may have any number.
func (t Table) count(ctx context.Context) (int, error) {
	n := math.MaxInt32
	err := t.nl.Call(ctx, nl.Request{Type: msgType(msgGetStats), Body: everything()}, func(m nl.Message) (err error) {
		n, err = decodeCount(m.Body)
		return err
	})
	var refused *nl.Error
	if errors.As(err, &refused) {
		return n, nil // a dump tells why
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
		return nil, fmt.Errorf("the kernel has no conntrack over netlink (module nf_conntrack_netlink): %w: %w", err, errors.ErrUnsupported)
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
	for len(reqs) > 0 {
		err := t.nl.Exec(ctx, reqs, nil)
		var some *nl.ExecError
		if err == nil {
			break
		}
		if !errors.As(err, &some) {
			return 0, fmt.Errorf("deleting from the conntrack table: %w", err)
		}
		for _, f := range some.Failed {
			n--
			// EBUSY: a flow offloaded to a flowtable, before 6.3.
			if !errors.Is(f.Err, os.ErrNotExist) && !errors.Is(f.Err, unix.EBUSY) {
				return 0, fmt.Errorf("deleting from the conntrack table: %w", f.Err)
			}
		}
		if some.Cause != nil {
			return 0, some.Cause
		}
		reqs = reqs[some.Sent:] // the sends after one with failures were not made
	}
	return n, nil
}
