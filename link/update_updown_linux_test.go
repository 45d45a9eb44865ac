package link

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns/netnstest"
)

// A kernel may work longer than changeTimeout on many requests: that is no connection
// gone wrong, and cuts neither the requests nor their undoing.
func TestAChangeMayTakeLong(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	ns := netnstest.New(t)
	l := mustCreate(t, ns, Spec{Name: "br0", Kind: Bridge{}})
	conn, err := route(ns)
	if err != nil {
		t.Fatal(err)
	}
	many := make([]netip.Prefix, 350) // four sends
	for i := range many {
		many[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 16)
	}
	slow := func(what func() error) (err error) {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			conn.Fault(func(r nl.Request) nl.Request {
				if n++; n%100 == 50 {
					time.Sleep(2 * changeTimeout)
				}
				return r
			})
			defer conn.Fault(nil)
			err = what()
		})
		return err
	}
	if err := slow(func() error { return l.AddPrefixes(ctx, append(many, many[0])...) }); err == nil {
		t.Error("an address was taken twice")
	}
	if have, err := l.Addrs(ctx); err != nil || len(have) > 0 {
		t.Errorf("%d addresses are left, %v", len(have), err)
	}
	if err := slow(func() error { return l.AddPrefixes(ctx, many...) }); err != nil {
		t.Error(err)
	}
	if have, err := l.Addrs(ctx); err != nil || len(have) != len(many) {
		t.Errorf("%d addresses, %v", len(have), err)
	}
}

// Who waits for the kernel's answer does not wait forever.
func TestTheWaitForAnAnswerEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		wait, err := changeContext(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(2 * changeTimeout)
		if wait.Err() != nil {
			t.Error("cancelled")
		}
		begin := time.Now()
		<-wait.Done()
		if took := time.Since(begin); took != changeTimeout {
			t.Errorf("the wait took %v", took)
		}
		if err := wait.Err(); err != context.DeadlineExceeded {
			t.Error(err)
		}
		if _, err := changeContext(ctx); err != context.Canceled { // nothing begins
			t.Error(err)
		}
	})
}

// The read of a link that was made does not wait forever for an answer, nor does the
// undo after it.
func TestTheReadAfterACreateEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		host, box := netnstest.New(t), netnstest.New(t)
		conn, err := route(box)
		if err != nil {
			t.Fatal(err)
		}
		asked, answer := make(chan struct{}), make(chan struct{})
		go func() {
			_ = conn.Call(context.Background(), getLink("lo", 0), func(nl.Message) error {
				close(asked)
				<-answer
				return nil
			})
		}()
		<-asked
		begin := time.Now()
		_, err = Create(context.Background(), host, Spec{Name: "a", NS: box, Kind: Bridge{}})
		wantErr(t, err, context.DeadlineExceeded, "deleting it again")
		if took := time.Since(begin); took != changeTimeout+undoTimeout {
			t.Errorf("Create took %v", took)
		}
		close(answer)
	})
}
