//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

var flannelJoinRow = row{
	name: "flannel-join", rounds: 8, flannel: true, run: runFlannelJoin,
	work: "A new node joins 8 others, each agent a process of its own: from the process's start until the kernels of all 8 reach it; the fleet and flannel (etcd, vxlan) in turns, each in a lab of its own",
}

var flannelRestartRow = row{
	name: "flannel-restart", rounds: 8, flannel: true, run: runFlannelRestart,
	work: "The row restart with flannel's daemon",
}

var flannelMemoryRow = row{
	name: "flannel-memory", rounds: 3, flannel: true, run: runFlannelMemory,
	work: "flannel's daemon starts with 1,000 recorded leases, until its kernel has all routes",
}

const (
	flannelRoot = "/coreos.com/network"
	flannelLink = "flannel.1"
	processAll  = "from the process's start to all 8 peers"
)

// flannelConfig writes flannel's config into the store.
func (w *world) flannelConfig(ctx context.Context) error {
	c, err := w.client()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Put(ctx, flannelRoot+"/config", `{"Network":"10.64.0.0/10","SubnetLen":24,"Backend":{"Type":"vxlan"}}`)
	return err
}

// flanneld prepares flannel's daemon of a host.
func (w *world) flanneld(h *lab.Host) *lab.Process {
	p := h.Program("flanneld", "-etcd-endpoints", w.store.Endpoints(), "-iface", h.Uplink(), "-ip-masq=false",
		"-iptables-forward-rules=false", "-subnet-file", filepath.Join(h.Dir, "subnet.env"))
	p.Env = []string{"NODE_NAME=" + h.Name}
	return p
}

// joinRace is one of the two that take turns.
type joinRace struct {
	*world
	series  string
	link    string
	process func(*lab.Host) *lab.Process
}

func runFlannelJoin(ctx context.Context, b *bout) (err error) {
	if err := haveFlannel(b); err != nil {
		return err
	}
	const peers = 8
	var races []*joinRace
	defer func() {
		for _, r := range races {
			err = errors.Join(err, r.close())
		}
	}()
	for _, name := range []string{"fleet", "flannel"} {
		w, err := newWorld(ctx, peers)
		if err != nil {
			return err
		}
		r := &joinRace{world: w, series: name + ": " + processAll, link: "fl0", process: w.process}
		races = append(races, r)
		if name == "flannel" {
			r.link, r.process = flannelLink, w.flanneld
			if err := w.flannelConfig(ctx); err != nil {
				return err
			}
		}
		for _, h := range w.nodes() {
			if err := r.process(h).Start(); err != nil {
				return err
			}
		}
		if err := r.settled(ctx, w.nodes(), peers-1); err != nil {
			return err
		}
	}
	for range b.rounds {
		for _, r := range races {
			if err := r.once(ctx, b, spaces(r.nodes()[:peers])); err != nil {
				return err
			}
		}
	}
	b.note("flannel / fleet: %s (median of the ratios of single rounds).", number(b.ratio(races[1].series, races[0].series)))
	return nil
}

// settled waits until the kernels of the hosts have routes to so many peers.
func (r *joinRace) settled(ctx context.Context, hosts []*lab.Host, peers int) error {
	if r.link == "fl0" {
		return r.waitRoutes(ctx, hosts, peers)
	}
	return r.wait(ctx, hosts, func(h *lab.Host) error {
		n, err := flannelRoutes(ctx, h.NS)
		if err == nil && n < peers {
			err = fmt.Errorf("%s has %d of %d routes of flannel", h.Name, n, peers)
		}
		return err
	})
}

// flannelRoutes counts the routes to flannel's peers: those by a gateway of its link.
func flannelRoutes(ctx context.Context, ns *netns.NS) (int, error) {
	routes, err := route.List(ctx, ns, route.Filter{Family: route.IPv4, Table: route.TableMain})
	n := 0
	for _, r := range routes {
		if r.OnLink && r.Dst.Bits() == 24 && r.Via.IsValid() {
			n++
		}
	}
	return n, err
}

func (r *joinRace) once(ctx context.Context, b *bout, peers []*netns.NS) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	h, err := r.AddHost(ctx, 0)
	if err != nil {
		return err
	}
	probers, err := newProbers(ctx, peers)
	if err != nil {
		return err
	}
	defer closeProbers(probers)
	server, err := echo(ctx, h.NS)
	if err != nil {
		return err
	}
	defer server.Close()
	p := r.process(h)
	began := time.Now()
	if err := p.Start(); err != nil {
		return err
	}
	var addr netip.Addr
	err = r.wait(ctx, []*lab.Host{h}, func(h *lab.Host) (err error) {
		addr, err = gateway(ctx, h, r.link, false)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w; it says:\n%s", err, p.Output())
	}
	times, err := probeAll(ctx, probers, addr, began)
	if err != nil {
		return fmt.Errorf("%w; it says:\n%s", err, p.Output())
	}
	var last time.Time
	for _, at := range times {
		if at.After(last) {
			last = at
		}
	}
	b.took(r.series, last.Sub(began))
	return nil
}

func runFlannelRestart(ctx context.Context, b *bout) (err error) {
	if err := haveFlannel(b); err != nil {
		return err
	}
	w, err := newWorld(ctx, 3)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.flannelConfig(ctx); err != nil {
		return err
	}
	race := &joinRace{world: w, link: flannelLink, process: w.flanneld}
	var daemons []*lab.Process
	for _, h := range w.nodes() {
		p := w.flanneld(h)
		if err := errors.Join(p.Start(), h.Forward(ctx)); err != nil {
			return err
		}
		daemons = append(daemons, p)
	}
	if err := race.settled(ctx, w.nodes(), 2); err != nil {
		return err
	}
	var addrs []netip.Addr
	for _, h := range w.nodes() {
		a, err := gateway(ctx, h, flannelLink, false)
		if err != nil {
			return err
		}
		addrs = append(addrs, a.Next())
	}
	restarts := 1 // times that the daemon has said that it runs
	r := restarter{host: w.nodes()[0], process: daemons[0], prefix: "flannel: "}
	r.ready = func(ctx context.Context) error {
		restarts++
		return waitOutputs(ctx, daemons[0], "Running backend.", restarts)
	}
	if err := r.boxes(ctx, w.nodes()[1], addrs[0], addrs[1], 1450); err != nil {
		return err
	}
	for range b.rounds {
		if err := r.once(ctx, b); err != nil {
			return err
		}
	}
	b.note("%s packets were sent. Ready is flannel's line \"Running backend.\".", number(r.sent))
	return nil
}

func runFlannelMemory(ctx context.Context, b *bout) (err error) {
	if err := haveFlannel(b); err != nil {
		return err
	}
	w, err := newWorld(ctx, b.rounds)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.flannelConfig(ctx); err != nil {
		return err
	}
	const peers = 1000
	if err := w.recordLeases(ctx, peers); err != nil {
		return err
	}
	race := &joinRace{world: w, link: flannelLink}
	for _, h := range w.nodes() {
		p := w.flanneld(h)
		began := time.Now()
		if err := p.Start(); err != nil {
			return err
		}
		if err := race.settled(ctx, []*lab.Host{h}, peers); err != nil {
			return fmt.Errorf("%w; it says:\n%s", err, p.Output())
		}
		b.took("flannel: from the process's start until the kernel has all routes", time.Since(began))
		m, err := memoryOf(p.Pid())
		if err != nil {
			return err
		}
		b.add("flannel: the most it ever had (VmHWM)", "MiB", m.peak)
		b.add("flannel, settled (VmRSS)", "MiB", m.rss)
		b.add("flannel, settled, without the program's file (RssAnon)", "MiB", m.anon)
		if err := p.Kill(); err != nil {
			return err
		}
	}
	b.note("flannel's leases have IPv4 alone: half of the routes of the row memory, with a neighbour and a forwarding entry each.")
	return nil
}

// recordLeases writes leases of flannel without an agent.
func (w *world) recordLeases(ctx context.Context, n int) error {
	c, err := w.client()
	if err != nil {
		return err
	}
	defer c.Close()
	grant, err := c.Grant(ctx, 24*60*60)
	if err != nil {
		return err
	}
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i
	}
	return atOnce(numbers, 32, func(i int) error {
		data, err := json.Marshal(map[string]any{
			"PublicIP": recorded(i).Endpoints[0], "PublicIPv6": nil, "BackendType": "vxlan",
			"BackendData": map[string]any{"VNI": 1, "VtepMAC": net.HardwareAddr{2, 1, 0, 0, byte(i >> 8), byte(i)}.String()},
		})
		if err != nil {
			return err
		}
		key := fmt.Sprintf("%s/subnets/10.%d.%d.0-24", flannelRoot, 100+i>>8, i&255)
		_, err = c.Put(ctx, key, string(data), clientv3.WithLease(grant.ID))
		return err
	})
}
