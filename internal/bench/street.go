package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/route"
)

// A street is a host with a neighbour, who tries the host's published ports.
type street struct {
	host, outside *netns.NS
}

const (
	streetHost    = "203.0.113.1"
	streetOutside = "203.0.113.2"
)

func newStreet(ctx context.Context) (s street, err error) {
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, ns := range []**netns.NS{&s.host, &s.outside} {
		if *ns, err = netns.New(ctx); err != nil {
			return s, err
		}
	}
	_, err = link.Create(ctx, s.host, link.Spec{
		Name: "uplink0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix(streetHost + "/24")},
		Kind: link.Veth{Peer: link.Spec{
			NS: s.outside, Name: "eth0", Up: true,
			Addrs: []netip.Prefix{netip.MustParsePrefix(streetOutside + "/24")},
		}},
	})
	return s, err
}

func (s street) close() {
	s.outside.Close()
	s.host.Close()
}

// attach makes a bridge on the host, and a box on it with a default route.
func (s street) attach(ctx context.Context) (box *netns.NS, err error) {
	br, err := link.Create(ctx, s.host, link.Spec{
		Name: bridgeName, Up: true, Kind: link.Bridge{}, MAC: []byte{2, 0, 0, 0, 0, 1},
		Addrs: []netip.Prefix{netip.MustParsePrefix(gateway4 + "/16")},
	})
	if err != nil {
		return nil, err
	}
	if box, err = netns.New(ctx); err != nil {
		return nil, err
	}
	_, err = link.Create(ctx, s.host, link.Spec{
		Name: "box0", Up: true, Master: br.Ref(),
		Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth0", Up: true, Addrs: []netip.Prefix{boxAddr(0)}}},
	})
	if err == nil {
		err = route.Add(ctx, box, route.Default(gateway))
	}
	if err != nil {
		box.Close()
		return nil, err
	}
	return box, nil
}

// ask connects from outside to a port of the host and returns what is said there
// until the connection ends.
func (s street) ask(ctx context.Context, port uint16) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := s.outside.Dial(ctx, "tcp4", netip.AddrPortFrom(netip.MustParseAddr(streetHost), port).String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// answers asks at a published port and wants to hear word.
func (s street) answers(ctx context.Context, port uint16, word string) error {
	got, err := s.ask(ctx, port)
	if err != nil {
		return fmt.Errorf("the published port: %w", err)
	}
	if got != word {
		return fmt.Errorf("the published port answers %q, want %q", got, word)
	}
	return nil
}

// say answers every connection to port 80 of a namespace with a word, until the
// function that it returns is called.
func say(ctx context.Context, ns *netns.NS, word string) (stop func() error, err error) {
	l, err := ns.Listen(ctx, "tcp4", ":80")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, word)
			c.Close()
		}
	}()
	return l.Close, nil
}
