package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/containernetworking/cni/pkg/invoke"
	"golang.org/x/sys/unix"
)

const namePortmap = "cni portmap"

// portmapConf is what the plugin gets for the extra port: the network, and what
// the plugin before it in the chain has said of the container.
const portmapConf = `{"cniVersion": "1.0.0", "name": "boxnet", "type": "portmap",
	"runtimeConfig": {"portMappings": [{"hostPort": %d, "containerPort": %d, "protocol": "tcp"}]},
	"prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": %q}],
		"ips": [{"address": %q, "gateway": %q, "interface": 0}]}}`

// portmapPublish runs the reference plugin for one container that is attached
// already. It keeps its ports in rules of their own, so that others published
// beforehand would have to be its own: only the empty case is measured.
func portmapPublish(ctx context.Context, ports int) (c *contender, err error) {
	if ports > 0 {
		return nil, nil
	}
	dir, err := pluginFolder()
	if err != nil {
		return nil, err
	}
	s, err := newStreet(ctx)
	if err != nil {
		return nil, err
	}
	var box *netns.NS
	var stop func() error
	end := func() error {
		if stop != nil {
			stop()
		}
		box.Close()
		s.close()
		return nil
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	if box, err = s.attach(ctx); err != nil {
		return nil, err
	}
	if err := s.host.SetSysctl(ctx, "net.ipv4.ip_forward", "1"); err != nil {
		return nil, err
	}
	const word = "box"
	if stop, err = say(ctx, box, word); err != nil {
		return nil, err
	}

	path, sandbox := filepath.Join(dir, "portmap"), ""
	err = box.WithFd(func(fd int) error {
		sandbox = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd) // while box is open
		return nil
	})
	if err != nil {
		return nil, err
	}
	conf := fmt.Appendf(nil, portmapConf, extra.Host.Port(), extra.Box.Port(), sandbox, boxAddr(0), gateway4)
	run := func(command string) error {
		env := (&invoke.Args{Command: command, ContainerID: "box", NetNS: sandbox, IfName: "eth0", Path: dir}).AsEnv()
		_, err := onHost{ns: s.host}.ExecPlugin(ctx, path, conf, env)
		return err
	}
	port := extra.Host.Port()
	return &contender{
		name:  with(namePortmap, ports),
		close: end,
		round: func(ctx context.Context, _ int) (time.Duration, error) {
			d, err := took(func() error { return run("ADD") })
			if err == nil {
				err = s.answers(ctx, port, word)
			}
			if err == nil {
				err = run("DEL")
			}
			if err != nil {
				return d, err
			}
			if _, err := s.ask(ctx, port); !errors.Is(err, unix.ECONNREFUSED) {
				return d, fmt.Errorf("the port is still published after DEL: connecting: %w", err)
			}
			return d, nil
		},
	}, nil
}
