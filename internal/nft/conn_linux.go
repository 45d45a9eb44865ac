package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// maxTries bounds how often a transaction is built because the ruleset
// changed underneath.
const maxTries = 100

// askTimeout bounds the questions after an answer was lost.
const askTimeout = 5 * time.Second

var (
	errShort = errors.New("malformed reply: shorter than its header")

	// ErrBusy is what Commit returns when others change the ruleset all the time.
	ErrBusy = errors.New("other programs kept changing the ruleset")

	// ErrUnknown is what Commit returns when it cannot find out whether the
	// transaction was committed.
	ErrUnknown = errors.New("whether the transaction was committed is unknown")
)

// Error says which message of a batch the kernel refused. Nothing of the batch
// was committed.
type Error struct {
	What string // "chain forward"; "" for the commit itself
	Err  *nl.Error
}

// Error returns the text of the refusal and what was refused.
func (e *Error) Error() string {
	if e.What == "" {
		return e.Err.Error()
	}
	return e.What + ": " + e.Err.Error()
}

// Unwrap returns the kernel's refusal.
func (e *Error) Unwrap() error { return e.Err }

// Conn is nftables in one namespace. What it reads of a table by its name is of one family.
type Conn struct {
	nl       *nl.Conn
	family   byte
	elements *int // as Sized says, or nil
}

// New returns a Conn for tables of the inet family that talks over c, of the family
// unix.NETLINK_NETFILTER.
func New(c *nl.Conn) Conn { return Conn{nl: c, family: unix.NFPROTO_INET} }

// In returns a Conn for tables of another family (unix.NFPROTO_BRIDGE, ...).
func (c Conn) In(family byte) Conn { return Conn{nl: c.nl, family: family} }

// Sized returns a Conn that keeps in elements how many elements the table has: Commit
// counts what it adds and deletes, and again what it reads whole. It looks elements up
// one by one while there are more of them than queries.
func (c Conn) Sized(elements *int) Conn {
	c.elements = elements
	return c
}

// Generation reads the generation of the ruleset: a number that every commit
// changes. Where the kernel has no nftables it is errors.ErrUnsupported.
func (c Conn) Generation(ctx context.Context) (gen uint32, err error) {
	err = c.nl.Call(ctx, getGeneration(), func(m nl.Message) (err error) {
		gen, err = decodeGeneration(m)
		return err
	})
	return gen, noGeneration(err)
}

func getGeneration() nl.Request {
	return nl.Request{Type: msgType(unix.NFT_MSG_GETGEN), Body: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}}
}

func decodeGeneration(m nl.Message) (gen uint32, err error) {
	if len(m.Body) < 4 {
		return 0, errShort
	}
	w := nl.Walk(m.Body[4:])
	for w.Next() {
		if w.Type() == unix.NFTA_GEN_ID {
			gen = w.BE32()
		}
	}
	return gen, w.Err()
}

// noGeneration says what it means that the generation cannot be read.
func noGeneration(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return refuse.As(errors.ErrUnsupported, "the kernel has no nftables (module nf_tables): %w", err)
	}
	return err
}

// A Transaction is one change of the ruleset, which [Conn.Commit] carries out.
type Transaction interface {
	// Queries are the questions about the table that Build begins with. Commit calls
	// it once.
	Queries() []Query

	// Build returns the batch, given what Lookup answers to the queries. What Build
	// reads, and what was found, is true at the commit. An empty or nil batch is
	// success.
	Build(ctx context.Context, found []*Element) (*Batch, error)

	// Committed reports whether the effect of the batch is in the ruleset. Commit asks
	// when the kernel's answer was lost and another program may have committed, too.
	Committed(ctx context.Context) (bool, error)

	// Rollback undoes what Build did outside of the ruleset. Commit calls it after each
	// Build whose batch is not known to be committed: before the next Build, and before
	// it returns an error. Its context does not end.
	Rollback(ctx context.Context) error
}

// BuildFunc is a Transaction that only builds a batch. Where the kernel's answer is lost
// and another program has committed, Commit returns ErrUnknown.
type BuildFunc func(context.Context) (*Batch, error)

// Queries returns none.
func (BuildFunc) Queries() []Query { return nil }

// Build calls the function.
func (f BuildFunc) Build(ctx context.Context, _ []*Element) (*Batch, error) { return f(ctx) }

// Committed cannot tell.
func (BuildFunc) Committed(context.Context) (bool, error) {
	return false, errors.New("another program has committed meanwhile")
}

// Rollback has nothing to undo.
func (BuildFunc) Rollback(context.Context) error { return nil }

// Commit builds a batch and sends it as one transaction. If the ruleset was changed by
// any program since just before the build, Commit builds it again.
//
// A nil error means committed. Any other means that nothing was, unless it is
// ErrUnknown. The kernel's refusal is an *Error.
func (c Conn) Commit(ctx context.Context, table string, tx Transaction) error {
	ask := tx.Queries()
	for range maxTries {
		var gen uint32
		found, err := c.find(ctx, table, &gen, ask)
		if err != nil {
			return err
		}
		if err = c.try(ctx, gen, found, tx); err == nil {
			return nil
		}
		if undone := tx.Rollback(context.WithoutCancel(ctx)); undone != nil {
			return errors.Join(err, undone)
		}
		if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return ErrBusy
}

// try builds a transaction on a generation and sends it. If another program commits
// meanwhile, the error is ERESTART.
func (c Conn) try(ctx context.Context, gen uint32, found []*Element, tx Transaction) error {
	b, err := tx.Build(ctx, found)
	if err != nil || b == nil || len(b.reqs) == 0 {
		return err
	}
	if b.err != nil {
		return b.err
	}
	err = c.send(ctx, gen, b, tx)
	if err == nil && c.elements != nil {
		*c.elements = max(0, *c.elements+b.grows)
	}
	return err
}

func (c Conn) send(ctx context.Context, gen uint32, b *Batch, tx Transaction) error {
	begin := nl.Request{
		Type: unix.NFNL_MSG_BATCH_BEGIN,
		Body: nl.AppendBE32(batchHeader(), unix.NFNL_BATCH_GENID, gen),
	}
	end := nl.Request{Type: unix.NFNL_MSG_BATCH_END, Body: batchHeader()}
	err := c.nl.Transaction(ctx, begin, b.reqs, end)
	var refused *nl.ExecError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		first := refused.Failed[0]
		if i := first.Index; i >= 0 && i < len(b.what) {
			return &Error{What: b.what[i], Err: first.Err}
		}
		return &Error{Err: first.Err}
	case errors.Is(err, os.ErrClosed):
		return err
	case errors.Is(err, unix.EMSGSIZE):
		err = fmt.Errorf("the transaction is larger than this process may send at once, which takes CAP_NET_ADMIN over the machine or a larger net.core.wmem_max: %w", err)
	}
	return c.outcome(ctx, gen, err, tx)
}

// outcome finds out what came of a transaction after the transport error cause.
func (c Conn) outcome(ctx context.Context, gen uint32, cause error, tx Transaction) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	now, err := c.Generation(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w, then %w", ErrUnknown, cause, err)
	}
	if now == gen {
		return cause // no program has committed
	}
	ok, err := tx.Committed(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w, then %w", ErrUnknown, cause, err)
	}
	if ok {
		return nil
	}
	return cause
}

// batchHeader is the struct nfgenmsg of a batch, which has the subsystem as its resource
// id.
func batchHeader() []byte {
	return binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, unix.NFNL_SUBSYS_NFTABLES)
}
