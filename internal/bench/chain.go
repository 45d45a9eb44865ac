package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A chain is CNI plugins one behind the other, on a host of their own.
type chain struct {
	street
	cni    *libcni.CNIConfig
	list   *libcni.NetworkConfigList
	state  string // directory of the plugins' state
	handle *netlink.Handle
	first  *container // stays, so that a turn does not begin with making the bridge
}

// newChain makes a host for the plugins in dir, and attaches a container. In the
// configuration, STATE is where a plugin keeps its state.
func newChain(ctx context.Context, dir, conf string) (c *chain, err error) {
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
	c.cni = libcni.NewCNIConfigWithCacheDir([]string{dir}, filepath.Join(c.state, "cache"), onHost{c.host, &version.PluginDecoder{}})
	c.list, err = libcni.ConfListFromBytes(bytes.ReplaceAll([]byte(conf), []byte("STATE"), []byte(filepath.Join(c.state, "leases"))))
	if err != nil {
		return c, err
	}
	if c.first, err = c.container(ctx, "first"); err != nil {
		return c, err
	}
	_, err = c.cni.AddNetworkList(ctx, c.list, c.first.RuntimeConf)
	return c, err
}

func (c *chain) close() error {
	if c.handle != nil {
		c.handle.Close()
	}
	err := c.first.close()
	c.street.close()
	return err
}

// A container is a named namespace, and what a runtime says of it.
type container struct {
	*libcni.RuntimeConf
	ns *netns.NS
}

// container makes one.
func (c *chain) container(ctx context.Context, id string) (*container, error) {
	ns, err := netns.Dir(filepath.Join(c.state, "netns")).Create(ctx, id)
	if err != nil {
		return nil, err
	}
	return &container{ns: ns, RuntimeConf: &libcni.RuntimeConf{ContainerID: id, IfName: "eth0", NetNS: ns.Path()}}, nil
}

func (b *container) close() error {
	if b == nil {
		return nil
	}
	err := b.ns.Delete(context.Background())
	return errors.Join(err, b.ns.Close())
}

// turn attaches a container with a published port and detaches it. After each it
// looks at what has been done.
func (c *chain) turn(ctx context.Context, i int) (add, del time.Duration, err error) {
	box, err := c.container(ctx, fmt.Sprintf("box-%06d", i))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, box.close()) }()
	box.CapabilityArgs = map[string]any{"portMappings": []map[string]any{
		{"hostPort": extra.Host.Port(), "containerPort": extra.Box.Port(), "protocol": "tcp"},
	}}
	var result types.Result
	add, err = took(func() (err error) {
		result, err = c.cni.AddNetworkList(ctx, c.list, box.RuntimeConf)
		return err
	})
	if err == nil {
		err = c.attached(ctx, box, result)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("ADD: %w", err)
	}
	del, err = took(func() error { return c.cni.DelNetworkList(ctx, c.list, box.RuntimeConf) })
	if err == nil {
		err = c.detached(ctx, box)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("DEL: %w", err)
	}
	return add, del, nil
}

// attached checks that the container has its link with the address of the result, a
// lease of it, and that the neighbour reaches it by the host's port.
func (c *chain) attached(ctx context.Context, box *container, made types.Result) error {
	result, err := current.NewResultFromResult(made)
	if err != nil {
		return err
	}
	if len(result.IPs) == 0 {
		return errors.New("the result has no address")
	}
	handle, err := peek(box.ns.WithFd)
	if err != nil {
		return err
	}
	defer handle.Close()
	eth, err := handle.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, ip := range result.IPs {
		family := unix.AF_INET6
		if ip.Address.IP.To4() != nil {
			family = unix.AF_INET
		}
		addrs, err := handle.AddrList(eth, family)
		if err != nil {
			return err
		}
		if len(addrs) == 0 || addrs[0].IPNet.String() != ip.Address.String() {
			return fmt.Errorf("addresses %v, want %v", addrs, ip.Address)
		}
	}
	if n, err := c.pairs(); err != nil || n != 2 {
		return fmt.Errorf("%d pairs on the host with one container and the first: %w", n, err)
	}
	if found, err := c.remembers(box.ContainerID); err != nil || !found {
		return fmt.Errorf("there is no lease: %w", err)
	}
	stop, err := say(ctx, box.ns, box.ContainerID)
	if err != nil {
		return err
	}
	return errors.Join(c.answers(ctx, extra.Host.Port(), box.ContainerID), stop())
}

// detached looks whether link, lease and published port are gone.
func (c *chain) detached(ctx context.Context, box *container) error {
	handle, err := peek(box.ns.WithFd)
	if err != nil {
		return err
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil || len(links) != 1 {
		return fmt.Errorf("%d links are in the container, want lo alone: %w", len(links), err)
	}
	if n, err := c.pairs(); err != nil || n != 1 {
		return fmt.Errorf("%d pairs on the host with none but the first container: %w", n, err)
	}
	if found, err := c.remembers(box.ContainerID); err != nil || found {
		return fmt.Errorf("the lease is still there: %w", err)
	}
	if _, err := c.ask(ctx, extra.Host.Port()); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("the port is still published: connecting: %w", err)
	}
	return nil
}

// pairs counts the pairs of containers on the host.
func (c *chain) pairs() (n int, err error) {
	links, err := c.handle.LinkList()
	for _, l := range links {
		if l.Type() == "veth" && l.Attrs().MasterIndex != 0 {
			n++
		}
	}
	return n, err
}

// remembers looks for a container in the state of the plugins.
func (c *chain) remembers(id string) (found bool, err error) {
	err = filepath.WalkDir(filepath.Join(c.state, "leases"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, []byte(id))
		return err
	})
	return found, err
}

// onHost starts plugins in a namespace, which is the host to them.
type onHost struct {
	ns *netns.NS
	*version.PluginDecoder
}

// FindInPath implements [invoke.Exec].
func (onHost) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin implements [invoke.Exec].
func (h onHost) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	cmd := h.ns.Command(ctx, path)
	cmd.Env, cmd.Stdin = env, bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil, err // not started
	}
	reported := &types.Error{}
	if json.Unmarshal(out, reported) != nil || reported.Msg == "" {
		return nil, fmt.Errorf("%s: %w, output %q, stderr %q", path, err, out, exit.Stderr)
	}
	return nil, reported
}
