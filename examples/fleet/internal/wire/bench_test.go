package wire

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/boxwire/boxwire/examples/fleet/internal/plan"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/route"
)

// BenchmarkApply is a program that knows nothing of the kernel: 1,000 new peers, and none that differs. It plans, too.
func BenchmarkApply(b *testing.B) {
	for _, mode := range []state.Mode{state.Tunnel, state.WireGuard} {
		b.Run(string(mode)+"/1000 new peers", func(b *testing.B) {
			h, s := thousand(b, mode)
			needWireGuard(b, mode)
			for b.Loop() {
				did, _, err := h.reconcile(b.Context(), s, nil)
				try(b, err)
				b.StopTimer()
				if did.Routes.Added < 2000 {
					b.Fatalf("%v", did)
				}
				l, err := link.Get(b.Context(), h.ns, "fl0")
				try(b, err)
				try(b, second(route.Flush(b.Context(), h.ns, route.Filter{Protocol: DefaultOwner})))
				try(b, l.Delete(b.Context()))
				b.StartTimer()
			}
		})
		b.Run(string(mode)+"/restart, nothing differs", func(b *testing.B) {
			h, s := thousand(b, mode)
			needWireGuard(b, mode)
			try(b, third(h.reconcile(b.Context(), s, nil)))
			for b.Loop() {
				h.wire = New(h.ns, h.wire.o)
				did, _, err := h.reconcile(b.Context(), s, nil)
				try(b, err)
				if did.Any() {
					b.Fatalf("%v", did)
				}
			}
		})
	}
}

// BenchmarkPlan is the part of BenchmarkApply that sends nothing.
func BenchmarkPlan(b *testing.B) {
	h, s := thousand(b, state.Tunnel)
	self, err := h.wire.Self(b.Context(), h.id, *s.Config, h.prefixes)
	try(b, err)
	for b.Loop() {
		plan.For(s, self, nil, nil)
	}
}

// BenchmarkRepair is the time from the end of a change by somebody else until the wiring is as it was, with the given number of
// peers. It includes one more read of all routes, which shows that they are there.
func BenchmarkRepair(b *testing.B) {
	for _, d := range damages[:3] {
		for _, peers := range []int{2, 1000} {
			b.Run(fmt.Sprintf("%s, %d peers", d.name, peers), func(b *testing.B) {
				h, s := thousand(b, state.Tunnel)
				for id := range s.Nodes {
					if peers == 2 && (id[14] > 0 || id[15] > 3) {
						delete(s.Nodes, id)
					}
				}
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				rounds := make(chan int, 100)
				var loop sync.WaitGroup
				defer loop.Wait()
				defer cancel()
				loop.Go(func() {
					for range h.wire.Changes(ctx) {
						_, _, err := h.reconcile(ctx, s, nil)
						if err == nil {
							routes, _ := h.wire.Routes(ctx)
							rounds <- len(routes)
						}
					}
				})
				whole := len(must(h.plan(b, s)).Routes)
				for <-rounds != whole {
				}
				for b.Loop() {
					b.StopTimer()
					for len(rounds) > 0 {
						<-rounds
					}
					h.damage(b, d.name)
					b.StartTimer()
					for <-rounds != whole || !h.isUp(b) {
					}
				}
			})
		}
	}
}

// damage does what the damage of a name does, by the library: no program has to start within the measured time.
func (h *host) damage(b *testing.B, name string) {
	l, err := link.Get(b.Context(), h.ns, "fl0")
	try(b, err)
	switch name {
	case damages[0].name:
		try(b, l.Delete(b.Context()))
	case damages[1].name:
		try(b, l.SetDown(b.Context()))
	default:
		try(b, second(route.Flush(b.Context(), h.ns, route.Filter{Family: route.IPv4, Protocol: DefaultOwner})))
	}
}

func (h *host) isUp(b *testing.B) bool {
	l, err := link.Get(b.Context(), h.ns, "fl0")
	return err == nil && l.Up
}

func (h *host) plan(b *testing.B, s *state.Snapshot) (plan.Plan, error) {
	_, p, err := h.reconcile(b.Context(), s, nil)
	return p, err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func third[A, B any](_ A, _ B, err error) error { return err }
