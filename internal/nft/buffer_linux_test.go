package nft

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// ENOBUFS taken for a failure though all was committed (google/nftables#103, #350):
// with the smallest receive buffer that there is, a batch of thousands is known to
// be committed, or not to be.
func TestAFullReceiveBufferLeavesNoDoubt(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	x := nl.NewConn(unix.NETLINK_NETFILTER, func() (*os.File, error) {
		return netns.Do(t.Context(), ns, func(context.Context) (*os.File, error) {
			f, err := nl.Dial(unix.NETLINK_NETFILTER)
			if err == nil {
				err = unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
				err = errors.Join(err, unix.SetNonblock(int(f.Fd()), true)) // Fd makes it block
			}
			return f, err
		})
	})
	defer x.Close()
	small, c := New(x), conn(t, ns)
	var elems []Element
	for i := range 3000 {
		elems = append(elems, Element{Key: []byte{10, 0, byte(i >> 8), byte(i)}})
	}
	count := func() int {
		all, err := c.Elements(t.Context(), "ours", "s")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	err := small.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
		b := table("ours")
		b.AddSet(Set{Name: "s", Key: []Field{{Type: 7, Len: 4, Order: 2}}})
		for _, e := range elems {
			b.AddElements("s", e) // a message for each
		}
		return b, nil
	}))
	if err != nil || count() != len(elems) {
		t.Errorf("%d of %d elements, %v", count(), len(elems), err)
	}
	// Each of these is refused, with a message for each.
	err = small.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) {
		b := NewBatch("ours")
		b.DeleteElements("s", elems[0])
		for _, e := range elems {
			b.AddElements("s", e, e)
			b.AddElements("missing", e)
		}
		return b, nil
	}))
	if err == nil || errors.Is(err, ErrUnknown) || count() != len(elems) {
		t.Errorf("%d of %d elements are left, %v", count(), len(elems), err)
	}
	t.Log(err)
	if _, err := small.TableComment(t.Context(), "missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the connection after that: %v", err)
	}
}
