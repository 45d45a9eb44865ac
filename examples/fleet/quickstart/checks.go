//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/examples/fleet/internal/status"
	"github.com/boxwire/boxwire/route"
)

// A check proves one promise by real traffic. Its detail never holds an address, a time or an id that differs from run to run.
type check struct {
	name string
	run  func(context.Context, *fleet) (detail string, err error)
}

// checks are all but the last one, which is cleanUp itself. Each leaves the fleet as the next one wants it.
var checks = []check{
	{"own-prefixes", ownPrefixes},
	{"all-reach-all", allReachAll},
	{"ways", ways},
	{"masquerade", masquerade},
	{"published", published},
	{"published-elsewhere", publishedElsewhere},
	{"unpublished-closed", unpublishedClosed},
	{"agents-restart", agentsRestart},
	{"store-away", storeAway},
	{"host-dies", hostDies},
	{"host-returns", hostReturns},
}

const cleanUpName = "clean-up"

// Each machine has a prefix of its own of each family, from the fleet's pools.
func ownPrefixes(_ context.Context, fl *fleet) (string, error) {
	var all []netip.Prefix
	config := fl.machines[0].options.Config
	for _, m := range fl.machines {
		if len(m.prefixes) != len(config.Pools) {
			return "", fmt.Errorf("%s has %v of the pools %v", m.host.Name, m.prefixes, config.Pools)
		}
		for _, p := range m.prefixes {
			if !config.Contains(p) || slices.Contains(all, p) {
				return "", fmt.Errorf("%s has %v: not of the pools %v, or twice", m.host.Name, p, config.Pools)
			}
			all = append(all, p)
		}
	}
	detail := fmt.Sprintf("3 machines have a /%d of %v", config.Size4, config.Pools[0])
	if len(config.Pools) > 1 {
		detail += fmt.Sprintf(" and a /%d of %v", config.Size6, config.Pools[1])
	}
	return detail + " each, none of them twice", nil
}

// Every box reaches every other one, and is seen with its own address.
func allReachAll(ctx context.Context, fl *fleet) (string, error) {
	n, err := fl.reach(ctx, fl.machines)
	return fmt.Sprintf("%d ways between 6 boxes, TCP and UDP, %s; each sees the other's own address", n, fl.families()), err
}

// reach asks from every box of the machines every other one, all at the same time, and counts the ways.
func (fl *fleet) reach(ctx context.Context, machines []*machine) (ways int, err error) {
	var boxes []*lab.Box
	for _, m := range machines {
		boxes = append(boxes, m.boxes...)
	}
	var mu sync.Mutex // guards err
	var asking sync.WaitGroup
	for _, from := range boxes {
		for _, to := range boxes {
			if from == to {
				continue
			}
			ways++
			for i, addr := range to.Addrs {
				for _, network := range []string{"tcp", "udp"} {
					asking.Go(func() {
						at := netip.AddrPortFrom(addr.Addr(), servicePort)
						if e := expect(ctx, from.NS, network, at, to.Name, from.Addrs[i].Addr()); e != nil {
							mu.Lock()
							defer mu.Unlock()
							err = errors.Join(err, e)
						}
					})
				}
			}
		}
	}
	asking.Wait()
	return ways, err
}

func (fl *fleet) families() string {
	if len(fl.machines[0].prefixes) > 1 {
		return "IPv4 and IPv6"
	}
	return "IPv4 alone"
}

// The mode auto takes no tunnel where none is needed.
func ways(ctx context.Context, fl *fleet) (string, error) {
	s, err := fl.machines[0].until(ctx, "ready", whole)
	if err != nil {
		return "", err
	}
	for _, p := range s.Peers {
		if want := map[string]state.Mode{"host2": state.Direct, "host3": state.Tunnel}[p.Name]; p.Mode != want {
			return "", fmt.Errorf("host1 reaches %s by mode %s, want %s", p.Name, p.Mode, want)
		}
	}
	return "host1 reaches host2 on their link directly, and host3 behind the router by a tunnel", nil
}

// A box that calls out of the fleet is seen with its machine's address.
func masquerade(ctx context.Context, fl *fleet) (string, error) {
	var errs []error
	for _, m := range fl.machines {
		for i, to := range fl.outside(m) {
			at := netip.AddrPortFrom(to, servicePort)
			errs = append(errs, expect(ctx, m.boxes[0].NS, "tcp", at, "outside", m.host.Addrs()[i]))
		}
	}
	return "the outside sees a machine's address when one of its boxes calls", errors.Join(errs...)
}

// outside are the addresses of the router that the machine knows it by, IPv4 first.
func (fl *fleet) outside(m *machine) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range []netip.Prefix{m.host.Addr4(), m.host.Addr6()} {
		if a.IsValid() {
			addrs = append(addrs, a.Masked().Addr().Next())
		}
	}
	return addrs
}

// A published port leads to a box of its machine, which sees who visits.
func published(ctx context.Context, fl *fleet) (string, error) {
	m := fl.machines[0]
	var errs []error
	for i, at := range m.host.Addrs() {
		errs = append(errs, expect(ctx, fl.lab.Router, "tcp", netip.AddrPortFrom(at, publishedPort), "host1-box1", fl.outside(m)[i]))
	}
	return fmt.Sprintf("port %d of host1 leads to host1-box1, which sees the visitor's address", publishedPort), errors.Join(errs...)
}

// A published port leads to a box of another machine, which answers by way of the first.
func publishedElsewhere(ctx context.Context, fl *fleet) (string, error) {
	m := fl.machines[0]
	var errs []error
	for i, at := range m.host.Addrs() {
		errs = append(errs, expect(ctx, fl.lab.Router, "tcp", netip.AddrPortFrom(at, farPort), "host3-box1", state.Gateway(m.prefixes[i])))
	}
	return fmt.Sprintf("port %d of host1 leads to host3-box1, which sees host1's address in the fleet", farPort), errors.Join(errs...)
}

// What is not published is closed to the outside, even if that has a route.
func unpublishedClosed(ctx context.Context, fl *fleet) (string, error) {
	m := fl.machines[0]
	for i, p := range m.prefixes {
		nosy := route.Route{Dst: p, Via: m.host.Addrs()[i]}
		if err := route.Add(ctx, fl.lab.Router, nosy); err != nil {
			return "", err
		}
		err := fl.expectDrop(ctx, m, netip.AddrPortFrom(m.boxes[0].Addrs[i].Addr(), servicePort))
		if err := errors.Join(err, route.Delete(ctx, fl.lab.Router, nosy)); err != nil {
			return "", err
		}
	}
	return "the outside has a route to host1's boxes, and is dropped", nil
}

// Agents that end and start again, as in an upgrade, change nothing and lose nothing.
func agentsRestart(ctx context.Context, fl *fleet) (string, error) {
	from, to := fl.machines[0].boxes[0], fl.machines[2].boxes[0]
	return "3 agents ended and started again: no packet of a stream lost, nothing changed in a kernel",
		fl.undisturbed(ctx, from, to, func() error {
			for _, m := range fl.machines {
				if err := m.stop(); err != nil {
					return err
				}
			}
			for _, m := range fl.machines {
				m.start(ctx)
			}
			for _, m := range fl.machines {
				if _, err := m.until(ctx, "ready again", whole); err != nil {
					return err
				}
			}
			return nil
		})
}

// A store that is killed takes nothing with it.
func storeAway(ctx context.Context, fl *fleet) (string, error) {
	from, to := fl.machines[1].boxes[0], fl.machines[2].boxes[0]
	err := fl.undisturbed(ctx, from, to, func() error {
		if err := fl.store.Kill(); err != nil {
			return err
		}
		_, err := fl.reach(ctx, fl.machines)
		return errors.Join(err, fl.startStore(ctx))
	})
	return "the store was killed, all reached all, and it came back: no packet lost, nothing changed in a kernel", err
}

// undisturbed does something and returns an error unless a packet a millisecond from box to box arrives meanwhile, and nobody
// changes a link, an address or a route of a machine.
func (fl *fleet) undisturbed(ctx context.Context, from, to *lab.Box, do func() error) error {
	var writes []*lab.Writes
	for _, m := range fl.machines {
		w, err := lab.CountWrites(ctx, m.host.NS)
		if err != nil {
			return err
		}
		defer w.Stop(ctx)
		writes = append(writes, w)
	}
	stream, err := lab.StartStream(ctx, from.NS, to.NS, to.Addr(), lab.StreamOptions{})
	if err != nil {
		return err
	}
	err = stream.WaitReceived(ctx, 20)
	if err == nil {
		err = do()
	}
	if err == nil {
		err = stream.WaitReceived(ctx, 20)
	}
	stats, serr := stream.Stop(ctx)
	if err = errors.Join(err, serr); err != nil {
		return err
	}
	if stats.Lost > 0 {
		return fmt.Errorf("packets were lost: %v", stats)
	}
	for i, w := range writes {
		changes, err := w.Changes(ctx)
		if err != nil {
			return err
		}
		changes = slices.DeleteFunc(changes, isLinkLocal)
		if len(changes) > 0 {
			return fmt.Errorf("%d changes in the kernel of %s: %v", len(changes), fl.machines[i].host.Name, changes)
		}
	}
	return nil
}

// isLinkLocal is the kernel's own work: a second after a link came up, it begins to use the link-local address.
func isLinkLocal(c lab.Change) bool {
	return c.Port == 0 && (strings.HasPrefix(c.What, "address fe80:") || strings.HasPrefix(c.What, "route fe80:"))
}

// The boxes of a machine that dies become unreachable, so that callers fail at once. The others go on.
func hostDies(ctx context.Context, fl *fleet) (string, error) {
	left, dead := fl.machines[:2], fl.machines[2]
	if err := dead.die(ctx); err != nil {
		return "", err
	}
	var errs []error
	for _, m := range left {
		if _, err := m.until(ctx, "without host3", func(s status.State) bool { return isDown(s, dead.host.Name) }); err != nil {
			return "", err
		}
		for _, addr := range dead.boxes[0].Addrs {
			at := netip.AddrPortFrom(addr.Addr(), servicePort)
			errs = append(errs, expectRefusal(ctx, m.host.NS, at), expectRefusal(ctx, m.boxes[0].NS, at))
		}
	}
	n, err := fl.reach(ctx, left)
	return fmt.Sprintf("host1, host2 and their boxes are told that host3's are unreachable; the %d ways between 4 boxes work", n), errors.Join(append(errs, err)...)
}

// A machine that comes back has the prefix that it had, and its boxes are reached again.
func hostReturns(ctx context.Context, fl *fleet) (string, error) {
	back := fl.machines[2]
	if err := back.boot(ctx); err != nil {
		return "", err
	}
	for _, m := range fl.machines {
		s, err := m.until(ctx, "whole again", whole)
		if err != nil {
			return "", err
		}
		if !slices.Equal(s.Prefixes, m.prefixes) {
			return "", fmt.Errorf("%s had %v and has %v", m.host.Name, m.prefixes, s.Prefixes)
		}
	}
	n, err := fl.reach(ctx, fl.machines)
	if err == nil {
		_, err = publishedElsewhere(ctx, fl)
	}
	return fmt.Sprintf("host3 has its prefixes again; all %d ways and the port that leads there work", n), err
}
