//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/agent"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/store"
	"github.com/boxwire/boxwire/netns"
)

// agentMain is an agent as a process of its own: its arguments are name, directory and endpoints. It ends by SIGTERM.
func agentMain(args []string) int {
	debug.SetGCPercent(agent.GCPercent)
	return untilTerm(func(ctx context.Context) error {
		ns, err := netns.Current()
		if err != nil {
			return err
		}
		defer ns.Close()
		return agent.Run(ctx, agentOptions(ns, args[0], args[1], args[2]))
	})
}

// idleMain is a program of Go with the same packages that does nothing.
func idleMain([]string) int {
	return untilTerm(func(ctx context.Context) error {
		fmt.Println("ready")
		<-ctx.Done()
		return nil
	})
}

// followerMain follows the store as an agent does, and does nothing else: its argument are the endpoints, and how many nodes
// make it ready.
func followerMain(args []string) int {
	return untilTerm(func(ctx context.Context) error {
		want, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		s, err := store.Open(store.Config{Fleet: fleetName, Endpoints: strings.Split(args[0], ","), Insecure: true})
		if err != nil {
			return err
		}
		defer s.Close()
		var last *state.Snapshot
		for snapshot, err := range s.Follow(ctx) {
			if err == nil {
				last = snapshot
				if len(last.Nodes) >= want {
					fmt.Println("ready")
				}
			}
		}
		return nil
	})
}

func untilTerm(fn func(context.Context) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := fn(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// process prepares the agent of a host as a process.
func (w *world) process(h *lab.Host) *lab.Process {
	return h.Program("agent", h.Name, h.Dir, w.store.Endpoints())
}

// ready waits until the agent of a host says that the kernel has what the store asks for.
func ready(ctx context.Context, h *lab.Host, p *lab.Process) error {
	for {
		_, err := ask(ctx, h, "/ready")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the agent of %s: %w: %w; it says:\n%s", h.Name, err, ctx.Err(), p.Output())
		case <-p.Exited():
			return fmt.Errorf("the agent of %s has ended:\n%s", h.Name, p.Output())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// ask asks the page of a host's agent. Anything but 200 is an error.
func ask(ctx context.Context, h *lab.Host, path string) (string, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(h.Dir, "agent.sock"))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return string(text), err
}

// metric reads one of an agent's metrics, one without labels.
func metric(ctx context.Context, h *lab.Host, name string) (float64, error) {
	text, err := ask(ctx, h, "/metrics")
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key == name {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, errors.Join(err, fmt.Errorf("no metric %s", name))
}

// waitOutputs waits until a process has written a text so many times.
func waitOutputs(ctx context.Context, p *lab.Process, text string, times int) error {
	for strings.Count(p.Output(), text) < times {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has not written %q %d times: %w; it says:\n%s", p.Name, text, times, ctx.Err(), p.Output())
		case <-p.Exited():
			return fmt.Errorf("%s has ended:\n%s", p.Name, p.Output())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}
