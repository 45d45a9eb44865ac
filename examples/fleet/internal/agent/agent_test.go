package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
	"github.com/boxwire/boxwire/link"
)

// running is an agent in this process.
type running struct {
	Options
	t    *testing.T
	stop context.CancelFunc
	end  chan error
}

// options are those of an agent of a host.
func options(t *testing.T, h *lab.Host, s *lab.Store) Options {
	t.Helper()
	config := state.DefaultConfig()
	config.Hold, config.TTL = state.Duration(2*time.Second), state.Duration(2*time.Second)
	dir := t.TempDir()
	return Options{
		Host: h.NS, Fleet: "lab", Name: h.Name, StateDir: filepath.Join(dir, "state"), Socket: filepath.Join(dir, "agent.sock"), Config: config,
		Store: &store.Config{Endpoints: strings.Split(s.Endpoints(), ","), Insecure: true, Dial: h.NS.Dial},
		Log:   slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", h.Name),
	}
}

// run starts an agent that ends with the test.
func run(t *testing.T, o Options) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Options: o, t: t, stop: cancel, end: make(chan error, 1)}
	go func() { r.end <- Run(ctx, o) }()
	t.Cleanup(r.stopped)
	return r
}

// stopped ends the agent and expects that it ends without an error.
func (r *running) stopped() {
	r.t.Helper()
	r.stop()
	if err, ok := <-r.end; ok && err != nil {
		r.t.Errorf("agent of %s: %v", r.Name, err)
	}
	close(r.end)
	r.end = make(chan error)
	close(r.end)
}

// until waits until the agent's state is as wanted.
func (r *running) until(what string, ok func(status.State) bool) status.State {
	r.t.Helper()
	var last string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-r.end:
			r.t.Fatalf("agent of %s: %v", r.Name, err)
		default:
		}
		s, err := status.Get(r.t.Context(), r.Socket)
		if err == nil && ok(s) {
			return s
		}
		last = fmt.Sprintf("%+v, %v", s, err)
	}
	r.t.Fatalf("%s: not %s: %s", r.Name, what, last)
	return status.State{}
}

// knows waits until the agent is ready and n peers are up.
func (r *running) knows(n int) status.State {
	r.t.Helper()
	return r.until(fmt.Sprint("ready with ", n, " peers"), func(s status.State) bool {
		up := 0
		for _, p := range s.Peers {
			if p.Alive && !p.Down && p.Endpoint.IsValid() {
				up++
			}
		}
		return s.Ready && up == n
	})
}

// inside are the addresses of a host's box number k.
func inside(prefixes []netip.Prefix, k int) []netip.Prefix {
	var addrs []netip.Prefix
	for _, p := range prefixes {
		a := state.Gateway(p).Next()
		for range k {
			a = a.Next()
		}
		addrs = append(addrs, netip.PrefixFrom(a, p.Bits()))
	}
	return addrs
}

// reach waits until packets pass from box to box, TCP and UDP.
func reach(t *testing.T, from, to *lab.Box, addr netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := lab.Reach(ctx, from.NS, to.NS, addr); err != nil {
		t.Errorf("from %v to %v: %v", from, to, err)
	}
}

func TestAllReachAll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode state.Mode
		ways []state.Mode // of host 1 to its neighbour and to the host beyond the router
	}{
		{state.Auto, []state.Mode{state.Direct, state.Tunnel}},
		{state.Tunnel, []state.Mode{state.Tunnel, state.Tunnel}},
		{state.WireGuard, []state.Mode{state.WireGuard, state.WireGuard}},
	} {
		t.Run(string(c.mode), func(t *testing.T) {
			t.Parallel()
			l := labtest.New(t, lab.Options{Segments: []int{2, 1}})
			if c.mode == state.WireGuard {
				needWireGuard(t, l.Hosts[0])
			}
			etcd, err := l.StartStore(t.Context(), l.Hosts[0])
			if err != nil {
				t.Fatal(err)
			}
			var boxes []*lab.Box
			var agents []*running
			for _, h := range l.Hosts {
				o := options(t, h, etcd)
				o.Config.Mode = c.mode
				agents = append(agents, run(t, o))
			}
			for i, a := range agents {
				s := a.knows(2)
				for k := range 2 {
					b, err := l.Hosts[i].Box(t.Context(), lab.BoxSpec{Addrs: inside(s.Prefixes, k), MTU: s.MTU})
					if err != nil {
						t.Fatal(err)
					}
					boxes = append(boxes, b)
				}
			}
			for i, p := range agents[0].knows(2).Peers {
				if p.Mode != c.ways[i] {
					t.Errorf("host 1 reaches %s by %s, want %s", p.Name, p.Mode, c.ways[i])
				}
			}
			for _, from := range boxes {
				for _, to := range boxes {
					for _, addr := range to.Addrs {
						if from != to {
							reach(t, from, to, addr.Addr())
						}
					}
				}
			}
		})
	}
}

// needWireGuard skips the test where the kernel has no WireGuard.
func needWireGuard(t *testing.T, h *lab.Host) {
	t.Helper()
	l, err := link.Create(t.Context(), h.NS, link.Spec{Name: "wgtry", Kind: link.WireGuard{}})
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("this kernel has no WireGuard: ", err) // Debian's kernels of the matrix do
	}
	if err == nil {
		err = l.Delete(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}
