package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The rows of packets: 64 bytes of UDP one way, and requests with their answers, in flows that exist.

var (
	ppsPublishedRow  = ppsRow("pps-published", "packets of 64 bytes from outside through a published port to a box", toPublished)
	ppsMasqueradeRow = ppsRow("pps-masquerade", "packets of 64 bytes from a box to outside, with the host's address", toOutside)
	ppsSiblingRow    = ppsRow("pps-sibling", "packets of 64 bytes between two boxes of a bridge", toSibling)
)

func ppsRow(name, work string, way ppsWay) row {
	return row{
		name: name, work: work + ": UDP one way, and UDP and TCP there and back, in one flow and in 64",
		unit: "packet, or packet and answer", n: 60, plugins: true,
		run: func(ctx context.Context, b *bout) error { return ppsRun(ctx, b, way) },
	}
}

// A ppsWay is where packets go.
type ppsWay int

const (
	toPublished ppsWay = iota // from outside
	toOutside                 // from a box
	toSibling                 // from a box
)

// The contenders that are no firewall of anybody.
const (
	nameRouted  = "no firewall"
	nameOneRule = "floor, one rule"
)

const ppsFlows = 64

func ppsRun(ctx context.Context, b *bout, way ppsWay) (err error) {
	var all []*course
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.close())
		}
	}()
	for _, w := range wirings(way) {
		c, err := newCourse(ctx, way, w)
		if err != nil {
			if err = b.excuse(w.name, err); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			continue
		}
		all = append(all, c)
	}
	var kinds []string
	for _, flows := range []int{1, ppsFlows} {
		for _, kind := range []struct {
			name  string
			round func(*course, int) (time.Duration, error)
		}{{"UDP one way", (*course).oneWay}, {"UDP there and back", (*course).udpBack}, {"TCP there and back", (*course).tcpBack}} {
			name := kind.name + ", 1 flow"
			if flows > 1 {
				name = fmt.Sprintf("%s, %d flows", kind.name, flows)
			}
			kinds = append(kinds, name)
			var turns []*contender
			for _, c := range all {
				turns = append(turns, &contender{name: name + ": " + c.wiring.name, round: func(context.Context, int) (time.Duration, error) {
					return kind.round(c, flows)
				}})
			}
			if err := b.interleave(ctx, b.n, turns...); err != nil {
				return err
			}
		}
	}
	sayPPS(b, kinds, all)
	sayFlowtable(b, kinds)
	return nil
}

// sayFlowtable compares the library with and without the flowtable.
func sayFlowtable(b *bout, kinds []string) {
	var ratios []string
	for _, kind := range kinds {
		with, without := kind+": "+nameFlowtable, kind+": "+nameBoxwire
		if b.has(with) {
			ratios = append(ratios, fmt.Sprintf("%.2f (%s)", pairRatio(b.figures[with], b.figures[without]), kind))
		}
	}
	if len(ratios) > 0 {
		b.note("With the flowtable, a packet takes this part of the time that it takes boxwire without: %s.", strings.Join(ratios, ", "))
	}
}

// sayPPS compares the library with the leanest of the others' rules, and with the least that does the work.
func sayPPS(b *bout, kinds []string, all []*course) {
	var routed []string
	for _, kind := range kinds {
		series := func(who string) string { return kind + ": " + who }
		leanest := ""
		for _, c := range all {
			if !c.wiring.peer {
				continue
			}
			if s := series(c.wiring.name); leanest == "" || median(b.figures[s]) < median(b.figures[leanest]) {
				leanest = s
			}
		}
		own := series(nameBoxwire)
		for _, other := range []string{leanest, series(nameOneRule), series(nameRouted)} {
			switch {
			case !b.has(other):
			case other == series(nameRouted) && b.has(series(nameOneRule)):
				routed = append(routed, fmt.Sprintf("%.2f (%s)", pairRatio(b.figures[own], b.figures[other]), kind))
			default:
				b.atMost(own, other, 1.05)
			}
		}
	}
	if len(routed) > 0 {
		b.note("%s / %s, which tracks no flow and hides no address, is %s.", nameBoxwire, nameRouted, strings.Join(routed, ", "))
	}
	var others [][2]string
	for _, c := range all {
		if c.wiring.name != nameBoxwire && c.wiring.name != nameOneRule && c.wiring.name != nameFlowtable {
			others = append(others, [2]string{c.wiring.name, kinds[1] + ": " + c.wiring.name})
		}
	}
	bare := kinds[1] + ": " + nameOneRule
	if !b.has(bare) {
		bare = ""
	}
	what := map[ppsWay]string{toPublished: "through a published port", toOutside: "behind a masquerade", toSibling: "between boxes of a bridge"}
	b.brief("64 bytes of UDP there and back, "+what[all[0].way], kinds[1]+": "+nameBoxwire, bare, others...)
}

// Bursts are short enough for the buffer of a socket.
const (
	burst, bursts = 100, 5
	exchanges     = 250
)

// oneWay sends packets, and reads them when the time is taken: the kernel delivers a packet within the
// call that sends it.
func (c *course) oneWay(flows int) (d time.Duration, err error) {
	for range bursts {
		one, err := took(func() error {
			for i := range burst {
				if _, err := unix.Write(c.udp[i%flows], ppsPayload); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		d += one
		b := make([]byte, 128)
		for range burst {
			if _, err := receive(c.server, b); err != nil {
				return 0, fmt.Errorf("a packet has not arrived: %w", err)
			}
		}
	}
	return d / (burst * bursts), nil
}

var ppsPayload = make([]byte, 64)

// udpBack sends a packet and answers it.
func (c *course) udpBack(flows int) (time.Duration, error) {
	b := make([]byte, 128)
	d, err := took(func() error {
		for i := range exchanges {
			fd := c.udp[i%flows]
			if _, err := unix.Write(fd, ppsPayload); err != nil {
				return err
			}
			n, from, err := unix.Recvfrom(c.server, b, 0)
			if err == nil {
				err = unix.Sendto(c.server, b[:n], 0, from)
			}
			if err == nil {
				_, err = receive(fd, b)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return d / exchanges, err
}

// tcpBack does so in connections.
func (c *course) tcpBack(flows int) (time.Duration, error) {
	b := make([]byte, 128)
	d, err := took(func() error {
		for i := range exchanges {
			for _, hop := range [][2]int{{c.tcp[i%flows], c.accepted[i%flows]}, {c.accepted[i%flows], c.tcp[i%flows]}} {
				if _, err := unix.Write(hop[0], ppsPayload); err != nil {
					return err
				}
				if _, err := receive(hop[1], b); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return d / exchanges, err
}
