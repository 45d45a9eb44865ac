package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
)

var cniAddKeysRow = row{
	name:    "cni-add-keys",
	work:    "ADD of a container by keys and modes of the CNI example, and by the reference plugin that has them, run as processes through libcni: with a port in the network of the row cni-add, and without one by a single plugin",
	unit:    "call",
	n:       20,
	plugins: true,
	run: func(ctx context.Context, b *bout) error {
		return compareKeys(ctx, b, "ADD", func(add, _ time.Duration) time.Duration { return add })
	},
}

var cniDelKeysRow = row{
	name:    "cni-del-keys",
	work:    "DEL of such a container, in the same way",
	unit:    "call",
	n:       20,
	plugins: true,
	run: func(ctx context.Context, b *bout) error {
		return compareKeys(ctx, b, "DEL", func(_, del time.Duration) time.Duration { return del })
	},
}

var cniStatusRow = row{
	name:    "cni-status",
	work:    "STATUS by the CNI example in the network of its README and by the reference bridge with host-local, run as processes",
	unit:    "call",
	n:       60,
	plugins: true,
	run:     compareStatus,
}

// cniKeys are what a configuration asks for, in the words of the reference plugin that has it.
var cniKeys = []struct {
	name         string
	plugin, keys string
	vlans        bool // the kernel has to filter by VLAN
}{
	{"macspoofchk", "bridge", `"isDefaultGateway": true, "macspoofchk": true`, false},
	{"vlan", "bridge", `"vlan": 100`, true},
	{"ptp", "ptp", `"ipMasq": true`, false},
	{"macvlan", "macvlan", `"master": "uplink0"`, false},
	{"tap", "tap", `"mac": "02:00:00:00:00:11"`, false},
}

// The network of the row cni-add, with every key that is new and that every kernel has.
var (
	boxwireKeysConf = strings.Replace(boxwireConf, `"bridge": "br0"`, bridgeKeys, 1)
	chainKeysConf   = strings.Replace(chainConf, `"bridge": "br0"`, bridgeKeys, 1)
)

const (
	bridgeKeys    = `"bridge": "br0", "macspoofchk": true, "portIsolation": true, "promiscMode": true`
	nameAllKeys   = "macspoofchk, portIsolation and promiscMode, with a port"
	nameKeys      = nameAllKeys + ", boxwire"
	nameChainKeys = nameAllKeys + ", " + nameChain
)

// keyRivals are the names of the contenders of a key.
type keyRivals struct{ key, boxwire, reference, floor string }

// compareKeys lets the example, under the reference plugin's name, and the plugin itself attach and detach with the same
// configuration, but for the allocator, in turns. Beside them are what every plugin has to take for the start of a process, and what
// the kernel takes for the link.
func compareKeys(ctx context.Context, b *bout, verb string, which func(add, del time.Duration) time.Duration) error {
	dir, err := pluginFolder()
	if err != nil {
		return err
	}
	ours, err := os.MkdirTemp("/run", "named-") // ends with the program
	if err != nil {
		return err
	}
	var all []*contender
	var rivals []keyRivals
	for _, k := range cniKeys {
		if k.vlans {
			if err := filtersVLANs(ctx); err != nil {
				if err := b.excuse(k.name, err); err != nil {
					return errors.Join(err, closeAll(all))
				}
				continue
			}
		}
		link := filepath.Join(ours, k.plugin)
		if err := os.Symlink(filepath.Join(dir, "boxwire"), link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		names := [2]string{k.name + ", boxwire", k.name + ", " + k.plugin + " + host-local"}
		for i, from := range []string{ours, dir} {
			c, err := newKeyChain(ctx, []string{from, dir}, k.plugin, k.keys, []string{"boxwire", "host-local"}[i])
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", names[i], err), closeAll(all))
			}
			all = append(all, &contender{name: names[i], close: c.close, round: func(ctx context.Context, i int) (time.Duration, error) {
				add, del, err := c.plainTurn(ctx, i)
				return which(add, del), err
			}})
		}
		bare, err := newBareKey(ctx, k.plugin, k.vlans)
		if err != nil {
			return errors.Join(fmt.Errorf("%s, %s: %w", k.name, nameFloor, err), closeAll(all))
		}
		floor := k.name + ", " + nameFloor
		all = append(all, &contender{name: floor, close: bare.close, round: func(ctx context.Context, i int) (time.Duration, error) {
			add, del, err := bare.turn(ctx, i)
			return which(add, del), err
		}})
		rivals = append(rivals, keyRivals{k.name, names[0], names[1], floor})
	}
	for _, kind := range []struct{ name, conf string }{{nameKeys, boxwireKeysConf}, {nameChainKeys, chainKeysConf}} {
		c, err := newChain(ctx, dir, strings.NewReplacer("BACKEND", "iptables", "RANGES", rangesDual).Replace(kind.conf))
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", kind.name, err), closeAll(all))
		}
		all = append(all, &contender{name: kind.name, close: c.close, round: func(ctx context.Context, i int) (time.Duration, error) {
			add, del, err := c.turn(ctx, i)
			return which(add, del), err
		}})
	}
	all = append(all, idle(filepath.Join(dir, "boxwire")))
	if err := b.interleave(ctx, b.n, all...); err != nil {
		return err
	}
	ms := func(name string) float64 { return micro(median(b.figures[name])) / 1000 }
	b.faster(nameKeys, nameChainKeys, cniTarget)
	for _, r := range rivals {
		b.faster(r.boxwire, r.reference, cniTarget)
		least := ms(r.floor) + ms(nameIdle)
		b.note("%s: a plugin that does nothing but start (%.1f ms) and have the kernel do its part by plain netlink (%.1f ms) would be %.1f times as fast as the reference; this one takes %.2f times as long as that.",
			r.key, ms(nameIdle), ms(r.floor), ms(r.reference)/least, ms(r.boxwire)/least)
	}
	b.note("The reference plugins have the addresses from host-local, by a process more; the example assigns them itself. Of %s the kernel takes the same time for both, in which it makes or removes the link: the less a plugin does beside that, the smaller is what can be gained.", verb)
	return nil
}

// newKeyChain makes a host with one plugin, without attaching a container.
func newKeyChain(ctx context.Context, dirs []string, plugin, keys, ipam string) (c *chain, err error) {
	c = &chain{}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.street, err = newStreet(ctx); err != nil {
		return c, err
	}
	if c.handle, err = peek(c.host.WithFd); err != nil {
		return c, err
	}
	if c.state, err = os.MkdirTemp("/run", "chain-"); err != nil { // ends with the program
		return c, err
	}
	c.cni = libcni.NewCNIConfigWithCacheDir(dirs, filepath.Join(c.state, "cache"), onHost{c.host, &version.PluginDecoder{}})
	conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "boxnet", "plugins": [{"type": %q, %s, "ipam": {"type": %q, "dataDir": %q, "ranges": [[{"subnet": "10.88.0.0/16"}]]}}]}`,
		plugin, keys, ipam, filepath.Join(c.state, "leases"))
	c.list, err = libcni.ConfListFromBytes([]byte(conf))
	if err == nil && plugin != "macvlan" && plugin != "tap" { // which the host has nothing of
		if c.first, err = c.container(ctx, "first"); err == nil {
			_, err = c.cni.AddNetworkList(ctx, c.list, c.first.RuntimeConf)
		}
	}
	return c, err
}

// plainTurn attaches a container and detaches it. After each it looks at what has been done.
func (c *chain) plainTurn(ctx context.Context, i int) (add, del time.Duration, err error) {
	box, err := c.container(ctx, fmt.Sprintf("box-%06d", i))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, box.close()) }()
	is := func(want bool) error {
		addrs, err := link.ListAddrs(ctx, box.ns)
		if err != nil {
			return err
		}
		has := false
		for _, a := range addrs {
			has = has || strings.HasPrefix(a.Prefix.String(), "10.88.")
		}
		found, err := c.remembers(box.ContainerID)
		if err == nil && (has != want || found != want) {
			err = fmt.Errorf("the container has its address: %t, and a lease: %t, want %t", has, found, want)
		}
		return err
	}
	add, err = took(func() error {
		_, err := c.cni.AddNetworkList(ctx, c.list, box.RuntimeConf)
		return err
	})
	if err == nil {
		err = is(true)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ADD: %w", err)
	}
	del, err = took(func() error { return c.cni.DelNetworkList(ctx, c.list, box.RuntimeConf) })
	if err == nil {
		err = is(false)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("DEL: %w", err)
	}
	return add, del, nil
}

// filtersVLANs says why a kernel cannot filter by VLAN.
func filtersVLANs(ctx context.Context) error {
	ns, err := netns.New(ctx)
	if err != nil {
		return err
	}
	defer ns.Close()
	_, err = link.Create(ctx, ns, link.Spec{Name: "br0", Kind: link.Bridge{VLANFiltering: new(true)}})
	if errors.Is(err, errors.ErrUnsupported) {
		return kernelLacks("CONFIG_BRIDGE_VLAN_FILTERING")
	}
	return err
}

// statusTarget is what STATUS may take, in milliseconds.
const statusTarget = 3

// compareStatus starts the plugins for STATUS in turns, and a process that does nothing.
func compareStatus(ctx context.Context, b *bout) error {
	dir, err := pluginFolder()
	if err != nil {
		return err
	}
	const (
		nameNothing = "a process of Go that does nothing"
		nameBridge  = "bridge + host-local"
	)
	s, err := newStreet(ctx)
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp("/run", "status-") // ends with the program
	if err != nil {
		s.close()
		return err
	}
	conf := func(plugin, ipam string) []byte {
		return fmt.Appendf(nil, `{"cniVersion": "1.1.0", "name": "boxnet", "type": %q, "isDefaultGateway": true, "ipMasq": true,
			"ipam": {"type": %q, "dataDir": %q, "ranges": %s}}`, plugin, ipam, filepath.Join(state, ipam), rangesDual)
	}
	one := func(name, program string, conf []byte) *contender {
		return &contender{name: name, round: func(ctx context.Context, _ int) (time.Duration, error) {
			env := append(os.Environ(), "CNI_COMMAND=STATUS", "CNI_PATH="+dir)
			return took(func() error {
				_, err := onHost{ns: s.host}.ExecPlugin(ctx, filepath.Join(dir, program), conf, env)
				return err
			})
		}}
	}
	boxwire := one(nameBoxwire, "boxwire", conf("boxwire", "boxwire"))
	boxwire.close = func() error { s.close(); return nil }
	if err := b.interleave(ctx, b.n, boxwire, one(nameBridge, "bridge", conf("bridge", "host-local")), one(nameNothing, "nothing", nil)); err != nil {
		return err
	}
	ms := func(name string) float64 { return micro(median(b.figures[name])) / 1000 }
	b.claim("STATUS in milliseconds", ms(nameBoxwire), statusTarget, false)
	b.note("Of the %.1f ms of STATUS, %.1f ms are those of a process that does nothing.", ms(nameBoxwire), ms(nameNothing))
	return nil
}
