package nl_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

func TestExecAllGoesOn(t *testing.T) {
	t.Parallel()
	c := route(t)
	const n = 350 // four sends
	reqs := make([]nl.Request, n)
	for i := range reqs {
		reqs[i] = address(unix.RTM_NEWADDR, i+1)
	}
	for _, i := range []int{3, 150, 349} { // a second time
		reqs[i] = reqs[0]
	}
	var refused []int
	err := c.ExecAll(t.Context(), reqs, func(i int, e *nl.Error) bool {
		if !errors.Is(e, os.ErrExist) {
			t.Errorf("request %d: %v", i, e)
		}
		refused = append(refused, i)
		return true
	}, nil)
	if err != nil || !slices.Equal(refused, []int{3, 150, 349}) {
		t.Errorf("%v refused, %v", refused, err)
	}
	if got := addresses(t, c); got != 1+n-3 {
		t.Errorf("%d addresses, want %d", got, 1+n-3)
	}
}

func TestExecAllStops(t *testing.T) {
	t.Parallel()
	c := route(t)
	const n = 350
	reqs := make([]nl.Request, n)
	for i := range reqs {
		reqs[i] = address(unix.RTM_NEWADDR, i+1)
	}
	reqs[2] = address(unix.RTM_DELADDR, 5000) // ignored
	reqs[150], reqs[160], reqs[170] = reqs[0], address(unix.RTM_DELADDR, 5000), reqs[0]
	var many *nl.ExecError
	err := c.ExecAll(t.Context(), reqs, nl.IgnoreNotExist, nil)
	if !errors.As(err, &many) || many.Sent != 200 || len(many.Failed) != 2 || many.Failed[0].Index != 150 || many.Failed[1].Index != 170 || many.Cause != nil {
		t.Errorf("%+v", err)
	}
	if got := addresses(t, c); got != 1+200-4 {
		t.Errorf("%d addresses, want %d", got, 1+200-4)
	}

	// The context is looked at between two sends.
	ctx, cancel := context.WithCancel(t.Context())
	err = c.ExecAll(ctx, reqs, func(int, *nl.Error) bool { cancel(); return true }, nil)
	if !errors.As(err, &many) || many.Sent != 100 || len(many.Failed) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v", err)
	}
	if err := c.ExecAll(t.Context(), nil, nil, nil); err != nil {
		t.Error(err)
	}
}
