package nat

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/portlock"
	"golang.org/x/sys/unix"
)

// maxPicks limits how many ports are tried that the kernel chose.
const maxPicks = 64

// PublishFree is [NAT.Publish] for ports whose host port may be 0. It replaces each 0 by a free port of
// net.ipv4.ip_local_port_range: one that no socket uses and that is not published. It returns the ports as
// published. Other ports are published as given. The first host port of a range must be given.
//
//	ports, err := gw.PublishFree(ctx, nat.Port{
//		Proto: nat.TCP, Owner: "web",
//		Host: netip.MustParseAddrPort("0.0.0.0:0"), Box: netip.MustParseAddrPort("10.88.0.2:80"),
//	})
//
// Errors are those of [NAT.Publish], and syscall.EADDRINUSE if no free port is found.
func (n *NAT) PublishFree(ctx context.Context, ports ...Port) ([]Port, error) {
	const op = "nat.PublishFree"
	if p, err := checkFree(ports); err != nil {
		return nil, n.fail(op, p.String(), err)
	}
	if len(ports) == 0 {
		return nil, nil
	}
	tx := &publishFreeTx{wanted: ports}
	defer tx.close()
	if err := n.transact(ctx, op, tx); err != nil {
		return nil, err
	}
	return tx.add, nil
}

// publishFreeTx publishes ports. The kernel chooses those whose host port is 0.
type publishFreeTx struct {
	publishTx
	wanted []Port            // as they were given
	picks  *portlock.Picks   // what the kernel has chosen
	vain   []*portlock.Picks // what it has chosen and is published
}

func (tx *publishFreeTx) subject() string {
	if tx.fault != (Port{}) {
		return tx.fault.String()
	}
	return portsSubject(tx.wanted)
}

// Queries looks up nothing, because the ports are not chosen yet.
func (tx *publishFreeTx) Queries() []nft.Query { return nil }

// Build chooses ports until none of them is published, and returns the batch that
// publishes them.
func (tx *publishFreeTx) Build(ctx context.Context, _ []*nft.Element) (*nft.Batch, error) {
	for range maxPicks {
		if err := tx.pick(ctx); err != nil {
			return nil, err
		}
		if _, _, overlaps := overlap(tx.add); !overlaps {
			b, err := tx.publish(ctx)
			if err == nil || !tx.isPicked(err) {
				return b, err
			}
		}
		// The sockets stay open, so that the kernel does not choose the same again.
		tx.picks.Withdraw()
		tx.vain, tx.picks = append(tx.vain, tx.picks), nil
	}
	tx.fault = tx.wanted[0]
	return nil, fmt.Errorf("no free port in %d tries: %w", maxPicks, unix.EADDRINUSE)
}

// pick lets the kernel choose: it binds a socket for each port without a number.
func (tx *publishFreeTx) pick(ctx context.Context) error {
	var wanted []portlock.HostPort
	var of []int
	for i, p := range tx.wanted {
		if p.Host.Port() == 0 {
			wanted, of = append(wanted, portlock.HostPort{Proto: uint8(p.Proto), Host: p.Host}), append(of, i)
		}
	}
	picks, at, err := tx.n.ports.Pick(ctx, wanted)
	if err != nil {
		if len(of) > 0 {
			tx.fault = tx.wanted[of[at]]
		}
		return err
	}
	tx.picks, tx.add, tx.fault = picks, slices.Clone(tx.wanted), Port{}
	for i, p := range picks.Ports {
		tx.add[of[i]].Host = p.Host
	}
	return nil
}

// publish returns the batch that publishes the chosen ports.
func (tx *publishFreeTx) publish(ctx context.Context) (*nft.Batch, error) {
	tx.refs, tx.del, tx.gone = refChange{}, nil, nil
	found, err := tx.c.Lookup(ctx, tx.n.table, tx.publishTx.Queries()...)
	if err != nil {
		return nil, err
	}
	return tx.publishTx.Build(ctx, found)
}

// isPicked reports whether the error is that a chosen port is published already.
func (tx *publishFreeTx) isPicked(err error) bool {
	var held errTaken
	return errors.As(err, &held) && slices.Contains(tx.picks.Ports, portlock.HostPort{Proto: uint8(tx.fault.Proto), Host: tx.fault.Host})
}

// Rollback releases the chosen ports.
func (tx *publishFreeTx) Rollback(ctx context.Context) error {
	err := tx.publishTx.Rollback(ctx)
	if tx.picks != nil {
		tx.picks.Withdraw()
		tx.picks.Close()
		tx.picks = nil
	}
	return err
}

// finish keeps the sockets of the chosen ports, as Publish does.
func (tx *publishFreeTx) finish(ctx context.Context) error {
	err := tx.publishTx.finish(ctx)
	switch {
	case tx.n.unreserved:
		tx.n.retain(nil)
	case err == nil:
		err = tx.n.ports.Shed(ctx, tx.picks)
	}
	return err
}

// close closes the sockets of rejected choices.
func (tx *publishFreeTx) close() {
	for _, p := range tx.vain {
		p.Close()
	}
}
