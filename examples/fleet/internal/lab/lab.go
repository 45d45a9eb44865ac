//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/boxwire/boxwire/netns"
)

// Options says what a lab begins with. The zero value is one segment with three hosts.
type Options struct {
	// Segments are the numbers of hosts on each segment of the network; nil is one segment with three. A segment may
	// have no host yet; see [Lab.AddHost]. At most 64.
	Segments []int

	// MTU is that of every link of the underlay; 0 is 1500.
	MTU int

	// Named gives the namespaces names in /run/netns, for people who look inside: host1, switch1, router. Two labs with
	// names cannot be there at the same time.
	Named bool

	// Dir is where the lab makes its directory of files. "" is /run if that is the program's own (see [Sandbox]), a
	// tmpfs that ends with the program, and otherwise the directory for temporary files.
	Dir string
}

// A Lab is a network with hosts. It is made by [New] and ended by [Lab.Close]. Its methods are safe for concurrent use,
// but two of them must not change the same host at a time.
type Lab struct {
	Hosts  []*Host   // those of Options and AddHost, in that order; AddHost appends
	Router *netns.NS // leads from segment to segment; the hosts' default gateway, and their outside
	Dir    string    // the lab's directory, empty at first but for the hosts' own

	options  Options
	segments []*segment
	spawn    *spawner
	ctx      context.Context // of what runs in the background
	cancel   context.CancelFunc

	mu        sync.Mutex // guards the following fields, and Hosts while AddHost appends
	spaces    []*space
	ends      []func() error // what Close does first, the last one first
	processes []*Process     // for Dump
	closed    bool
}

// A space is a namespace of the lab.
type space struct {
	name string
	ns   *netns.NS
}

// New makes a lab. Traffic between its hosts flows when New returns. An error leaves nothing behind.
func New(ctx context.Context, o Options) (_ *Lab, err error) {
	if o.Segments == nil {
		o.Segments = []int{3}
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if len(o.Segments) == 0 || len(o.Segments) > maxSegments {
		return nil, fmt.Errorf("lab.New: %d segments: want 1 to %d: %w", len(o.Segments), maxSegments, os.ErrInvalid)
	}
	l := &Lab{options: o}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("lab.New: %w", err), l.Close())
		}
	}()
	if o.Dir == "" {
		o.Dir = tmpfs()
	}
	if l.Dir, err = os.MkdirTemp(o.Dir, "fleet-lab-"); err != nil {
		return nil, err
	}
	if l.spawn, err = newSpawner(); err != nil {
		return nil, err
	}
	if l.Router, err = l.newSpace(ctx, "router"); err != nil {
		return nil, err
	}
	if err := forward(ctx, l.Router); err != nil {
		return nil, err
	}
	for i := range o.Segments {
		if err := l.addSegment(ctx, i); err != nil {
			return nil, err
		}
	}
	for i, n := range o.Segments {
		for range n {
			if _, err := l.AddHost(ctx, i); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

// newSpace makes a namespace that ends with the lab.
func (l *Lab) newSpace(ctx context.Context, name string) (*netns.NS, error) {
	var ns *netns.NS
	var err error
	if l.options.Named {
		ns, err = netns.Create(ctx, name)
	} else {
		ns, err = netns.New(ctx)
	}
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.spaces = append(l.spaces, &space{name, ns})
	l.mu.Unlock()
	if !hasIPv6() {
		err := ns.SetSysctl(ctx, "net.ipv6.conf.all.disable_ipv6", "1")
		return ns, netns.IgnoreNotExist(err)
	}
	return ns, nil
}

// onClose makes Close call a function.
func (l *Lab) onClose(fn func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, fn)
}

// Close ends the lab: processes, streams, namespaces and files. The error joins all that went wrong. Closing twice is fine.
func (l *Lab) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	ends, spaces := l.ends, l.spaces
	l.mu.Unlock()
	l.cancel()
	var errs []error
	for i := len(ends) - 1; i >= 0; i-- {
		errs = append(errs, ends[i]())
	}
	if l.spawn != nil {
		l.spawn.close()
	}
	for i := len(spaces) - 1; i >= 0; i-- {
		errs = append(errs, spaces[i].ns.Delete(context.Background()))
	}
	if l.Dir != "" {
		errs = append(errs, os.RemoveAll(l.Dir))
	}
	return errors.Join(errs...)
}

// hasIPv6 reports whether new namespaces have IPv6. Where they have not, hosts have IPv4 addresses alone.
func hasIPv6() bool {
	value, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/disable_ipv6")
	return err == nil && strings.TrimSpace(string(value)) != "1"
}

// HasIPv6 reports whether the hosts of labs have IPv6 addresses: new namespaces have IPv6 on most machines.
func HasIPv6() bool { return hasIPv6() }

// forward makes a namespace a router.
func forward(ctx context.Context, ns *netns.NS) error {
	err := ns.SetSysctl(ctx, "net.ipv4.ip_forward", "1")
	if err == nil && hasIPv6() {
		err = ns.SetSysctl(ctx, "net.ipv6.conf.all.forwarding", "1")
	}
	return err
}

// Forward makes a host forward packets for its boxes, as an agent does. A test of an agent leaves it to the agent.
func (h *Host) Forward(ctx context.Context) error { return forward(ctx, h.NS) }

// tmpfs is where files of the lab's own are kept in memory, "" where it is not known.
func tmpfs() string {
	if os.Getenv(sandboxEnv) != "" || os.Getenv(netnstestEnv) != "" {
		return filepath.Clean("/run")
	}
	return ""
}
