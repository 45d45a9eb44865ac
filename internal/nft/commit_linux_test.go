package nft

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

func conn(t testing.TB, ns *netns.NS) Conn {
	t.Helper()
	x, err := nsconn.Shared(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	return New(x)
}

func table(name string) *Batch {
	b := NewBatch(name)
	b.AddTable("hello")
	return b
}

func TestCommitIsBuiltAnewWhenTheRulesetChanged(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := conn(t, ns)
	tries := 0
	err := c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
		if tries++; tries < 3 {
			testutil.Run(t, ns, "nft", "add", "table", "other"+strings.Repeat("x", tries))
		}
		return table("ours"), nil
	}))
	if err != nil || tries != 3 {
		t.Errorf("%d tries, %v", tries, err)
	}
	if comment, err := c.TableComment(t.Context(), "ours"); comment != "hello" || err != nil {
		t.Errorf("comment %q, %v", comment, err)
	}
}

func TestARulesetThatNeverRestsIsErrBusy(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c, other := conn(t, ns), 0
	err := c.Commit(t.Context(), "ours", BuildFunc(func(ctx context.Context) (*Batch, error) {
		other++
		err := c.Commit(ctx, "ours", BuildFunc(func(context.Context) (*Batch, error) {
			if other%2 == 1 {
				return table("other"), nil
			}
			b := NewBatch("other")
			b.DeleteTable()
			return b, nil
		}))
		return table("ours"), err
	}))
	if !errors.Is(err, ErrBusy) || other != maxTries {
		t.Errorf("%d tries, %v", other, err)
	}
}

func TestARefusedBatchNamesTheMessageAndCommitsNothing(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := conn(t, ns)
	err := c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
		b := table("ours")
		b.AddChain(Chain{Name: "one"})
		b.AddElements("missing", Element{Key: []byte{1, 2, 3, 4}})
		return b, nil
	}))
	var refused *Error
	if !errors.As(err, &refused) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(refused.What, "missing") {
		t.Errorf("%v", err)
	}
	if _, err := c.TableComment(t.Context(), "ours"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the table is there: %v", err)
	}
}

// outcome is a transaction that is known to be committed or not.
type outcome struct {
	BuildFunc
	done bool
}

func (o outcome) Committed(context.Context) (bool, error) { return o.done, nil }

// The generation shows the result of a transaction whose answer was lost, or, if
// another program has committed, the caller does.
func TestOutcomeOfALostAnswer(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := conn(t, ns)
	lost := errors.New("lost")
	gen, err := c.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	yes, no := outcome{done: true}, outcome{}
	if err := c.outcome(t.Context(), gen, lost, yes); !errors.Is(err, lost) || errors.Is(err, ErrUnknown) {
		t.Errorf("no other commit: %v", err)
	}
	testutil.Run(t, ns, "nft", "add", "table", "other")
	if err := c.outcome(t.Context(), gen, lost, yes); err != nil {
		t.Errorf("landed: %v", err)
	}
	if err := c.outcome(t.Context(), gen, lost, no); !errors.Is(err, lost) || errors.Is(err, ErrUnknown) {
		t.Errorf("another one's commit: %v", err)
	}
	if err := c.outcome(t.Context(), gen, lost, BuildFunc(nil)); !errors.Is(err, ErrUnknown) {
		t.Errorf("no way to tell: %v", err)
	}
}

func TestLookupGoesOnAfterMissingElements(t *testing.T) {
	t.Parallel()
	c := conn(t, netnstest.New(t))
	err := c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
		b := table("ours")
		b.AddSet(Set{Name: "s", Key: []Field{{Type: 7, Len: 4, Order: 2}}})
		for i := range 300 {
			if i%3 == 0 {
				b.AddElements("s", Element{Key: []byte{10, 0, byte(i >> 8), byte(i)}})
			}
		}
		return b, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	var q []Query
	for i := range 300 {
		q = append(q, Query{Set: "s", Key: []byte{10, 0, byte(i >> 8), byte(i)}})
	}
	found, err := c.Lookup(t.Context(), "ours", q...)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range found {
		if (e != nil) != (i%3 == 0) {
			t.Errorf("element %d: %v", i, e)
		}
	}
}
