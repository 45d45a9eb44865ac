package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// maxTries bounds how often a transaction is built anew because the ruleset
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

// Conn is nftables in one namespace.
type Conn struct{ nl *nl.Conn }

// New returns a Conn that talks over c, of the family unix.NETLINK_NETFILTER.
func New(c *nl.Conn) Conn { return Conn{c} }

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
		return fmt.Errorf("the kernel has no nftables (module nf_tables): %w: %w", err, errors.ErrUnsupported)
	}
	return err
}

// Commit calls build and sends the batch that it returns as one transaction. If
// the ruleset was changed by anyone since just before build was called, it
// begins again: what build has read is true at the commit. An empty or nil batch
// is success.
//
// landed says whether the effect of the batch is there. It is asked when the
// kernel's answer was lost and others may have committed, too; it may be nil if
// the caller does not mind ErrUnknown then. In every other case a nil error
// means committed, and an error that nothing was.
//
// The kernel's refusal is an *Error.
func (c Conn) Commit(ctx context.Context, build func(context.Context) (*Batch, error), landed func(context.Context) (bool, error)) error {
	return c.CommitFound(ctx, "", nil, func(ctx context.Context, _ []*Element) (*Batch, error) { return build(ctx) }, landed)
}

// CommitFound is Commit for a build that begins with questions about a table: it
// gets what Lookup answers to them. They travel with that for the generation.
func (c Conn) CommitFound(ctx context.Context, table string, ask []Query, build func(context.Context, []*Element) (*Batch, error), landed func(context.Context) (bool, error)) error {
	for range maxTries {
		var gen uint32
		found, err := c.lookup(ctx, table, &gen, ask)
		if err != nil {
			return err
		}
		b, err := build(ctx, found)
		if err != nil || b == nil || len(b.reqs) == 0 {
			return err
		}
		if b.err != nil {
			return b.err
		}
		err = c.send(ctx, gen, b, landed)
		if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return ErrBusy
}

func (c Conn) send(ctx context.Context, gen uint32, b *Batch, landed func(context.Context) (bool, error)) error {
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
	return c.outcome(ctx, gen, err, landed)
}

// outcome finds out what came of a transaction after the transport error cause.
func (c Conn) outcome(ctx context.Context, gen uint32, cause error, landed func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	now, err := c.Generation(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w, then %w", ErrUnknown, cause, err)
	}
	if now == gen {
		return cause // nobody committed, we neither
	}
	if landed == nil {
		return fmt.Errorf("%w: %w", ErrUnknown, cause)
	}
	ok, err := landed(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w, then %w", ErrUnknown, cause, err)
	}
	if ok {
		return nil
	}
	return cause
}

// batchHeader is the struct nfgenmsg of a batch: the subsystem in the place of
// the resource id.
func batchHeader() []byte {
	return binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, unix.NFNL_SUBSYS_NFTABLES)
}
