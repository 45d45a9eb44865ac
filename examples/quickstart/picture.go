//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
)

// draw prints what is wired to what. Every name, address and port in it is read back from the kernel.
func (w *world) draw(ctx context.Context, out io.Writer) error {
	var p picture
	p.line("outside", addresses(ctx, &p, w.outside, "eth0"), "")
	p.line("  |", "", "")
	p.line("host  "+uplinkName, addresses(ctx, &p, w.host, uplinkName), "")
	p.line("  |   NAT", "", "boxes leave as the host; published ports come in")
	p.line("host  "+bridgeName, addresses(ctx, &p, w.host, bridgeName), "")
	for i, box := range []*netns.NS{w.web1, w.web2} {
		branch, below := "  |--- ", "  |"
		if i == 1 {
			branch, below = "  `--- ", ""
		}
		p.line(branch+box.Name(), addresses(ctx, &p, box, "eth0"), "")
		for _, port := range w.portsOf(ctx, &p, box.Name()) {
			p.line(below, "", port)
		}
	}
	if p.err != nil {
		return p.err
	}
	_, err := fmt.Fprintf(out, "\n%s\n", p.text.String())
	return err
}

// A picture is the lines drawn so far, and the first error met while drawing.
type picture struct {
	text strings.Builder
	err  error
}

func (p *picture) line(left, right, note string) {
	if note != "" {
		right = "  " + note
	}
	p.text.WriteString("  " + strings.TrimRight(fmt.Sprintf("%-17s %s", left, right), " ") + "\n")
}

func (p *picture) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// addresses returns the addresses of a link, IPv4 first, without those the kernel gives every link.
func addresses(ctx context.Context, p *picture, ns *netns.NS, name string) string {
	l, err := link.Get(ctx, ns, name)
	if err != nil {
		p.fail(err)
		return ""
	}
	addrs, err := l.Addrs(ctx)
	if err != nil {
		p.fail(err)
		return ""
	}
	var texts []string
	for _, a := range addrs {
		if !a.Prefix.Addr().IsLinkLocalUnicast() {
			texts = append(texts, a.Prefix.String())
		}
	}
	slices.SortStableFunc(texts, func(a, b string) int { return strings.Count(a, ":") - strings.Count(b, ":") })
	return strings.Join(texts, "  ")
}

// portsOf returns a line for each port published to a box.
func (w *world) portsOf(ctx context.Context, p *picture, owner string) []string {
	ports, err := w.gw.ListPorts(ctx)
	if err != nil {
		p.fail(err)
	}
	var lines []string
	for _, port := range ports {
		if port.Owner == owner {
			lines = append(lines, port.Port.String())
		}
	}
	slices.Sort(lines)
	return lines
}
