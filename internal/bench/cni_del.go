package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

const (
	nameLink     = "the link alone"
	nameLinkTool = "the link alone, ip link del"

	nameLinkFlows = "the link and the flows of a port, bare"

	withFlows = ", 50,000 flows"
	manyFlows = 50000
	delTarget = 1.15
)

var cniDelFlowsRow = row{
	name:    "cni-del-flows",
	work:    "DEL of a container with one published port for IPv4 and IPv6, that nobody has used on a host without a flow, and that somebody has used on one that tracks 50,000 flows, beside the removal of the link alone",
	unit:    "call",
	n:       30,
	plugins: true,
	run: func(ctx context.Context, b *bout) (err error) {
		dir, err := pluginFolder()
		if err != nil {
			return err
		}
		var all []*contender
		for _, kind := range []struct {
			name  string
			flows int
			turn  func(*chain, context.Context, int) (add, del time.Duration, err error)
		}{{"", 0, (*chain).unusedTurn}, {withFlows, b.size(manyFlows, 100), (*chain).turn}} {
			c, err := newChain(ctx, dir, strings.ReplaceAll(boxwireConf, "RANGES", rangesDual))
			if err == nil {
				err = flood(ctx, c.host, kind.flows)
			}
			if err != nil {
				return errors.Join(err, closeAll(all))
			}
			all = append(all, &contender{name: nameBoxwire + kind.name, close: c.close, round: func(ctx context.Context, i int) (time.Duration, error) {
				_, del, err := kind.turn(c, ctx, i)
				return del, err
			}})
		}
		bare, err := newBareChain(ctx)
		if err != nil {
			return errors.Join(err, closeAll(all))
		}
		for i, by := range []struct {
			name   string
			remove func(context.Context, *bareChain, int) error
		}{{nameLink, unlinkBare}, {nameLinkTool, unlinkTool}, {nameLinkFlows, unlinkFlows}} {
			if by.name == nameLinkFlows && !kernel.AtLeast(6, 11) {
				continue
			}
			c := &contender{name: by.name, round: func(ctx context.Context, _ int) (time.Duration, error) {
				return bare.unlinkTurn(ctx, by.remove)
			}}
			if i == 0 {
				c.close = bare.close
			}
			all = append(all, c)
		}
		all = append(all, idle(filepath.Join(dir, "boxwire")))
		if err := b.interleave(ctx, b.n, all...); err != nil {
			return err
		}
		b.atMost(nameBoxwire, nameLink, delTarget)
		b.atMost(nameBoxwire+withFlows, nameLink, delTarget)
		b.note("The link is gone from both namespaces within a millisecond. The rest of its removal is the kernel's rcu_barrier, which waits for memory to be freed, and keeps the thread that removes. Before that, a plugin has to be started, which takes %.1f ms from its start to its end: %s / %s is %.2f.",
			micro(median(b.figures[nameIdle]))/1000, nameBoxwire, nameLinkTool, pairRatio(b.figures[nameBoxwire], b.figures[nameLinkTool]))
		if !kernel.AtLeast(6, 11) {
			return nil
		}
		b.note("With flows, the kernel searches its table of connections, which has those of all namespaces, for those through the port: once for IPv4 and once for IPv6. It passes no quiescent state meanwhile, so that the barrier waits for that, too. %s / %s is %.2f.",
			nameBoxwire+withFlows, nameLinkFlows, pairRatio(b.figures[nameBoxwire+withFlows], b.figures[nameLinkFlows]))
		return nil
	},
}

// unusedTurn attaches a container with a published port that no client connects to, and detaches it.
func (c *chain) unusedTurn(ctx context.Context, i int) (add, del time.Duration, err error) {
	add, err = took(func() (err error) {
		del, err = c.burst(ctx, fmt.Sprintf("box-%06d", i), 1)
		return err
	})
	return add - del, del, err
}

// unlinkBare removes a link by a bare system call.
func unlinkBare(_ context.Context, c *bareChain, index int) error {
	return unlinkOver(c.links, index)
}

func unlinkOver(s *floor.Socket, index int) error {
	return s.Send(floor.Message(nil, unix.RTM_DELLINK, unix.NLM_F_ACK, floor.IfInfo(index, false)))
}

// unlinkTool removes it by a process that does nothing else.
func unlinkTool(ctx context.Context, c *bareChain, _ int) error {
	out, err := c.ns.Command(ctx, "ip", "link", "delete", hostLink(0)).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return err
}

// unlinkFlows removes it, and deletes the flows of a port of both families at the same time.
func unlinkFlows(ctx context.Context, c *bareChain, index int) error {
	return atOnce(2, func(i int) error {
		if i == 0 {
			return unlinkBare(ctx, c, index)
		}
		return errors.Join(c.elements.Send(floor.DeletePortFlows(false, extra.Host.Port())), c.elements.Send(floor.DeletePortFlows(true, extra.Host.Port())))
	})
}

// unlinkTurn makes a pair and measures its removal.
func (c *bareChain) unlinkTurn(ctx context.Context, remove func(context.Context, *bareChain, int) error) (time.Duration, error) {
	const index = 1000
	ns, err := c.pairUp(ctx, 0, index)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	del, err := took(func() error { return remove(ctx, c, index) })
	return del, errors.Join(err, c.count(2))
}

// pairUp makes the pair of a new box.
func (c *bareChain) pairUp(ctx context.Context, i, index int) (*netns.NS, error) {
	ns, err := netns.New(ctx)
	if err != nil {
		return nil, err
	}
	in, err := openFloor(ns, unix.NETLINK_ROUTE)
	if err == nil {
		defer in.Close()
		p := parcel{box: [][]byte{loopbackUp(), boxMessages(i)}}
		p.pair, p.fdAt = pair{index: index, master: c.bridge, name: hostLink(i), up: true, queues: oneQueue}.message()
		err = ns.WithFd(func(fd int) error { return p.deliver(c.links, in, fd) })
	}
	if err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// flood makes flows in a namespace that tracks connections, half of them of each family.
func flood(ctx context.Context, ns *netns.NS, n int) error {
	if n == 0 {
		return nil
	}
	if err := ns.SetSysctl(ctx, "net/netfilter/nf_conntrack_udp_timeout", "36000"); err != nil {
		return err
	}
	for _, addr := range []string{"127.0.0.2", "::1"} {
		c, err := ns.ListenPacket(ctx, "udp", net.JoinHostPort(addr, "0"))
		if err != nil {
			return err
		}
		defer c.Close()
		for port := range n / 2 {
			if _, err := c.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(addr), Port: 10000 + port}); err != nil {
				return err
			}
		}
	}
	text, err := ns.Sysctl(ctx, "net/netfilter/nf_conntrack_count")
	var got int
	if _, serr := fmt.Sscan(text, &got); err == nil && (serr != nil || got < n) {
		err = fmt.Errorf("the kernel tracks %s flows, want %d", text, n)
	}
	return err
}

const (
	nameDels       = "boxwire, at once"
	nameOneDel     = "boxwire, one"
	nameIdleAtOnce = nameIdle + ", at once"
	nameLinks      = "the links alone, at once"
)

var cniDelManyRow = row{
	name:    "cni-del-many",
	work:    "50 DELs at once, each of a container with one published port, beside one; the figure is all of them",
	unit:    "burst",
	n:       5,
	plugins: true,
	run: func(ctx context.Context, b *bout) error {
		dir, err := pluginFolder()
		if err != nil {
			return err
		}
		many := b.size(50, 4)
		c, err := newChain(ctx, dir, strings.ReplaceAll(boxwireConf, "RANGES", rangesDual))
		if err != nil {
			return err
		}
		all := []*contender{
			{name: nameOneDel, close: c.close, round: func(ctx context.Context, i int) (time.Duration, error) {
				return c.burst(ctx, fmt.Sprintf("one-%d", i), 1)
			}},
			{name: nameDels, round: func(ctx context.Context, i int) (time.Duration, error) {
				return c.burst(ctx, fmt.Sprintf("many-%d", i), many)
			}},
		}
		bare, err := newBareChain(ctx)
		if err != nil {
			return errors.Join(err, closeAll(all))
		}
		start := idle(filepath.Join(dir, "boxwire"))
		all = append(all,
			&contender{name: nameLinks, close: bare.close, round: func(ctx context.Context, i int) (time.Duration, error) {
				return bare.unlinkMany(ctx, many)
			}},
			&contender{name: nameIdleAtOnce, round: func(ctx context.Context, i int) (time.Duration, error) {
				return took(func() error {
					return atOnce(many, func(int) error { _, err := start.round(ctx, i); return err })
				})
			}})
		if err := b.interleave(ctx, b.n, all...); err != nil {
			return err
		}
		b.atMost(nameDels, nameOneDel, 2)
		ms := func(name string) float64 { return micro(median(b.figures[name])) / 1000 }
		b.note("As many processes that only print their version take %.1f ms at once, and as many links that threads remove by bare system calls %.1f ms. The two are a floor of %.2f times one DEL for plugins on this machine.",
			ms(nameIdleAtOnce), ms(nameLinks), max(ms(nameIdleAtOnce), ms(nameLinks))/ms(nameOneDel))
		return nil
	},
}

// burst attaches containers one after the other and detaches them at once.
func (c *chain) burst(ctx context.Context, name string, n int) (del time.Duration, err error) {
	boxes := make([]*container, n)
	defer func() {
		for _, box := range boxes {
			err = errors.Join(err, box.close())
		}
	}()
	for i := range boxes {
		if boxes[i], err = c.container(ctx, fmt.Sprintf("%s-%d", name, i)); err != nil {
			return 0, err
		}
		boxes[i].CapabilityArgs = map[string]any{"portMappings": []map[string]any{
			{"hostPort": 9000 + i, "containerPort": 80, "protocol": "tcp"},
		}}
		if _, err = c.cni.AddNetworkList(ctx, c.list, boxes[i].RuntimeConf); err != nil {
			return 0, fmt.Errorf("ADD: %w", err)
		}
	}
	del, err = took(func() error {
		return atOnce(n, func(i int) error { return c.cni.DelNetworkList(ctx, c.list, boxes[i].RuntimeConf) })
	})
	if err != nil {
		return 0, fmt.Errorf("DEL: %w", err)
	}
	if left, err := c.pairs(); err != nil || left != 1 {
		return 0, fmt.Errorf("%d pairs on the host with none but the first container: %w", left, err)
	}
	found, err := c.remembers(name)
	if err == nil && found {
		err = errors.New("a lease is still there")
	}
	return del, err
}

// unlinkMany removes links at once, each by a thread and a socket of its own.
func (c *bareChain) unlinkMany(ctx context.Context, n int) (del time.Duration, err error) {
	sockets := make([]*floor.Socket, n)
	for i := range n {
		ns, err := c.pairUp(ctx, i, 1000+i)
		if err != nil {
			return 0, err
		}
		defer ns.Close()
		if sockets[i], err = openFloor(c.ns, unix.NETLINK_ROUTE); err != nil {
			return 0, err
		}
		defer sockets[i].Close()
	}
	del, err = took(func() error {
		return atOnce(n, func(i int) error { return unlinkOver(sockets[i], 1000+i) })
	})
	return del, errors.Join(err, c.count(2))
}

// atOnce calls fn n times at once.
func atOnce(n int, fn func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
