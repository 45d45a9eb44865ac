package nat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
	"golang.org/x/sys/unix"
)

// A transaction is one change of the table, with what belongs to it outside of the table: reserved
// ports, settings of links, flows. run calls its methods.
type transaction interface {
	nft.Transaction

	// finish does what follows the commit. Its context does not end.
	finish(ctx context.Context) error

	// explain says what it means that nothing was committed.
	explain(ctx context.Context, err error) error

	// next reports whether another batch has to follow the one that was committed. reopen undoes the
	// first one, if the second one fails for a cause. See closing.
	next() bool
	reopen(ctx context.Context, cause error) error

	// over names the table that the transaction is about.
	over(n *NAT, c nft.Conn)

	// subject says what an error is about; "" is the table.
	subject() string
}

// tableTx has what all transactions share: the answers of one that looks nothing up, cannot tell
// whether it was committed, and changes nothing outside of the table.
type tableTx struct {
	n *NAT
	c nft.Conn

	closing closing
}

func (tx *tableTx) over(n *NAT, c nft.Conn) { tx.n, tx.c = n, c }

func (tx *tableTx) subject() string { return "" }

func (tx *tableTx) explain(ctx context.Context, err error) error {
	return tx.n.explain(ctx, tx.c, err)
}

func (tx *tableTx) Queries() []nft.Query { return nil }

func (tx *tableTx) Committed(context.Context) (bool, error) {
	return false, errors.New("another program has committed meanwhile")
}

func (tx *tableTx) Rollback(context.Context) error { return nil }

func (tx *tableTx) finish(context.Context) error { return nil }

// transact runs a transaction while no other change is under way in the namespace. It is all that a
// method does after the check of its arguments.
func (n *NAT) transact(ctx context.Context, op string, tx transaction) error {
	c, err := n.lock(ctx)
	if err == nil {
		defer n.unlock()
		err = n.run(ctx, c, tx)
	}
	if err != nil {
		err = n.fail(op, cmp.Or(tx.subject(), n.String()), err)
	}
	return err
}

// run commits a transaction, or rolls it back, and does what follows from it.
func (n *NAT) run(ctx context.Context, c nft.Conn, tx transaction) error {
	tx.over(n, c)
	err := n.commit(ctx, c, tx)
	if err == nil && tx.next() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
		defer cancel()
		if err = tx.Rollback(ctx); err == nil { // Build does it again
			err = n.commit(ctx, c, tx)
		}
	}
	if err != nil {
		return errors.Join(tx.explain(ctx, err), tx.reopen(ctx, err))
	}
	return tx.finish(context.WithoutCancel(ctx))
}

// commit commits a batch of a transaction. If a grant that the batch deletes runs out after it was
// read, the kernel refuses the batch, and it is built again. So it is if a link goes that the flowtable
// would have, and where the kernel lacks the family bridge, without the table there that drops reports.
func (n *NAT) commit(ctx context.Context, c nft.Conn, tx transaction) error {
	for began := time.Now(); ; {
		err := c.Sized(&n.elements).Commit(ctx, n.table, tx)
		switch {
		case err == nil:
			return nil
		case n.lacksBridge(err):
		case !isExpired(err) && !lacksLink(err):
			return namesFlowtable(err)
		case time.Since(began) > finishTimeout:
			return fmt.Errorf("%w: grants run out or links go all the while", nft.ErrBusy)
		}
	}
}

// missing returns the set that lacked an element that a transaction should have deleted; "" for other
// errors.
func missing(err error) string {
	var refused *nft.Error
	if !errors.As(err, &refused) || refused.Err.Errno != unix.ENOENT {
		return ""
	}
	set, ok := strings.CutPrefix(refused.What, "an element of ")
	if !ok {
		return ""
	}
	return set
}

// isExpired reports whether a grant that a transaction deletes ran out after it was read.
func isExpired(err error) bool {
	return isGrant(missing(err))
}
