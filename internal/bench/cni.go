package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

var cniAddRow = row{
	name:    "cni-add",
	work:    "ADD of a container with one published port, by the CNI example in the network of its README and by the reference plugins, run as processes through libcni",
	unit:    "call",
	n:       30,
	plugins: true,
	run: func(ctx context.Context, b *bout) error {
		return compareChains(ctx, b, "ADD", func(add, _ time.Duration) time.Duration { return add })
	},
}

var cniDelRow = row{
	name:    "cni-del",
	work:    "DEL of such a container, in the same way",
	unit:    "call",
	n:       30,
	plugins: true,
	run: func(ctx context.Context, b *bout) error {
		return compareChains(ctx, b, "DEL", func(_, del time.Duration) time.Duration { return del })
	},
}

const (
	nameChain    = "bridge + host-local + portmap"
	nameChainNft = nameChain + ", on nftables"
	nameIdle     = "boxwire, asked for its version"
	only4        = ", IPv4 alone"
	cniTarget    = 8
)

// The network of all contenders; RANGES, STATE and BACKEND are filled in.
const (
	boxwireConf = `{"cniVersion": "1.0.0", "name": "boxnet", "plugins": [
		{"type": "boxwire", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "capabilities": {"portMappings": true},
		 "ipam": {"type": "boxwire", "dataDir": "STATE", "ranges": RANGES}}]}`
	chainConf = `{"cniVersion": "1.0.0", "name": "boxnet", "plugins": [
		{"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "BACKEND",
		 "ipam": {"type": "host-local", "dataDir": "STATE", "ranges": RANGES}},
		{"type": "portmap", "backend": "BACKEND", "capabilities": {"portMappings": true}}]}`

	ranges4    = `[[{"subnet": "10.88.0.0/16"}]]`
	rangesDual = `[[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd88::/64"}]]`
)

// compareChains lets the plugins attach and detach in turns; which says what of
// it is the verb's figure. Beside them are what every plugin has to take for the start of
// a process, and what the kernel takes for the work.
func compareChains(ctx context.Context, b *bout, verb string, which func(add, del time.Duration) time.Duration) error {
	dir, err := pluginFolder()
	if err != nil {
		return err
	}
	var all []*contender
	enter := func(name string, turn func(context.Context, int) (add, del time.Duration, err error), close func() error) {
		all = append(all, &contender{name: name, close: close, round: func(ctx context.Context, i int) (time.Duration, error) {
			add, del, err := turn(ctx, i)
			return which(add, del), err
		}})
	}
	for _, kind := range []struct{ name, conf, backend, ranges string }{
		{nameBoxwire, boxwireConf, "", rangesDual},
		{nameChain, chainConf, "iptables", rangesDual},
		{nameChainNft, chainConf, "nftables", rangesDual},
		{nameBoxwire + only4, boxwireConf, "", ranges4},
		{nameChain + only4, chainConf, "iptables", ranges4},
	} {
		c, err := newChain(ctx, dir, strings.NewReplacer("BACKEND", kind.backend, "RANGES", kind.ranges).Replace(kind.conf))
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", kind.name, err), closeAll(all))
		}
		enter(kind.name, c.turn, c.close)
	}
	bare, err := newBareChain(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", nameFloor, err), closeAll(all))
	}
	enter(nameFloor, bare.turn, bare.close)
	all = append(all, idle(filepath.Join(dir, "boxwire")))
	if err := b.interleave(ctx, b.n, all...); err != nil {
		return err
	}
	b.faster(nameBoxwire, nameChain, cniTarget)
	b.brief("CNI's "+verb+", one published port", nameBoxwire, nameFloor,
		[2]string{"bridge + host-local + portmap", nameChain}, [2]string{"the same on nftables", nameChainNft})
	b.note("In a network of IPv4 alone the reference takes %.1f times as long.", pairRatio(b.figures[nameChain+only4], b.figures[nameBoxwire+only4]))
	ms := func(name string) float64 { return micro(median(b.figures[name])) / 1000 }
	b.note("Of the %.1f ms that the plugin takes for IPv4 alone, the kernel takes %.1f ms for the work itself, which is what the messages for it take when they are sent by bare system calls, and a process that only prints its version takes %.1f ms from its start to its end. The rest is the plugin's: it reads its configuration and its leases, and asks the kernel what is there already. (Of DEL's messages, one reads the kernel's table of connections, of which those through the port have to end. The kernel stays in it for as long as it takes, and the link, which goes meanwhile, waits for that.)",
		ms(nameBoxwire+only4), ms(nameFloor), ms(nameIdle))
	if best := ms(nameChain+only4) / (ms(nameFloor) + ms(nameIdle)); best < cniTarget {
		b.note("With these two alone, no plugin could be more than %.1f times as fast as the reference there.", best)
	}
	return nil
}

// idle starts the plugin for nothing.
func idle(path string) *contender {
	return &contender{name: nameIdle, round: func(ctx context.Context, _ int) (time.Duration, error) {
		here, err := netns.Current()
		if err != nil {
			return 0, err
		}
		defer here.Close()
		env := append(os.Environ(), "CNI_COMMAND=VERSION")
		return took(func() error {
			_, err := onHost{ns: here}.ExecPlugin(ctx, path, []byte(`{"cniVersion": "1.0.0"}`), env)
			return err
		})
	}}
}

// A bareChain does what the kernel has to do for ADD and DEL, with messages that
// are built beforehand, and reads nothing back.
type bareChain struct {
	*host
	gw       *nat.NAT
	links    *floor.Socket
	elements *floor.Socket
}

func newBareChain(ctx context.Context) (c *bareChain, err error) {
	c = &bareChain{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.host, err = newHost(ctx); err != nil {
		return c, err
	}
	if c.gw, err = nat.Open(ctx, c.ns, nat.Options{NoReserve: true}); err != nil {
		return c, err
	}
	if c.links, err = openFloor(c.ns, unix.NETLINK_ROUTE); err != nil {
		return c, err
	}
	c.elements, err = openFloor(c.ns, unix.NETLINK_NETFILTER)
	return c, err
}

func (c *bareChain) close() error {
	for _, s := range []*floor.Socket{c.links, c.elements} {
		if s != nil {
			s.Close()
		}
	}
	return errors.Join(c.gw.Close(), c.host.close())
}

func (c *bareChain) turn(ctx context.Context, i int) (add, del time.Duration, err error) {
	ns, err := netns.New(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer ns.Close()
	in, err := openFloor(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return 0, 0, err
	}
	defer in.Close()

	const index = 1000 // of the host's end
	p := parcel{box: [][]byte{loopbackUp(), boxMessages(0)}}
	p.pair, p.fdAt = pair{index: index, master: c.bridge, name: hostLink(0), up: true, queues: oneQueue}.message()
	publish := floor.Batch(nftTable, true, extraElement)
	err = ns.WithFd(func(fd int) error {
		add, err = took(func() error { return errors.Join(p.deliver(c.links, in, fd), c.elements.Batch(publish)) })
		return err
	})
	if err == nil {
		err = published(c.ns)
	}
	if err == nil {
		err = c.count(3) // lo and the bridge are the others
	}
	if err != nil {
		return 0, 0, err
	}

	unlink := floor.Message(nil, unix.RTM_DELLINK, unix.NLM_F_ACK, floor.IfInfo(index, false))
	withdraw := floor.Batch(nftTable, false, extraElement)
	flows := floor.GetFlows() // of which those through the port have to end
	del, err = took(func() error {
		err := c.elements.Batch(withdraw)
		if err == nil {
			_, err = c.elements.Dump(flows, func([]byte) {})
		}
		return errors.Join(err, c.links.Send(unlink))
	})
	if err == nil {
		err = c.count(2)
	}
	if err == nil && published(c.ns) == nil {
		err = errors.New("the port is still published")
	}
	return add, del, err
}

// count wants a number of links on the host.
func (c *bareChain) count(want int) error {
	links, err := c.handle.LinkList()
	if err == nil && len(links) != want {
		err = fmt.Errorf("%d links, want %d", len(links), want)
	}
	return err
}
