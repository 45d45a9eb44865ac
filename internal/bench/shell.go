package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// nameShell is what a shell script does, with as few processes as it takes.
const nameShell = "ip -batch"

// ip runs commands of ip in a namespace, in one process. Options come before.
func ip(ctx context.Context, ns *netns.NS, options []string, commands ...string) error {
	path, err := tool("ip")
	if err != nil {
		return err
	}
	cmd := ns.Command(ctx, path, append(options, "-batch", "-")...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// shellAttach runs ip on the host, where it makes the namespace, and in the box.
func shellAttach(h *host) (*contender, error) {
	if _, err := tool("ip"); err != nil {
		return nil, err
	}
	var names []string
	return &contender{
		name: nameShell,
		round: func(ctx context.Context, i int) (time.Duration, error) {
			name := fmt.Sprintf("shell%d", i)
			d, err := took(func() error {
				err := ip(ctx, h.ns, nil,
					"netns add "+name,
					"link add "+hostLink(i)+" up master "+bridgeName+" type veth peer name eth0 netns "+name)
				if err != nil {
					return err
				}
				return ip(ctx, h.ns, []string{"-netns", name},
					"link set lo up",
					"link set eth0 up",
					"address add "+boxAddr(i).String()+" broadcast + dev eth0",
					"route add default via "+gateway4)
			})
			if err != nil {
				return d, err
			}
			names = append(names, name)
			f, err := os.Open(netns.DefaultDir + "/" + name)
			if err == nil {
				h.boxes = append(h.boxes, f)
			}
			return d, err
		},
		close: func() (err error) {
			for _, name := range names {
				err = errors.Join(err, netns.Delete(context.Background(), name))
			}
			return err
		},
	}, nil
}

// shellDetach deletes links with one process.
func shellDetach(ctx context.Context, h *host, links []link.Link) error {
	commands := make([]string, len(links))
	for i, l := range links {
		commands[i] = "link delete " + l.Name
	}
	return ip(ctx, h.ns, nil, commands...)
}
