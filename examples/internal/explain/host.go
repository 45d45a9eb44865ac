package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/plain"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
)

// A Host is the host of a program's boxes, as the program knows it.
type Host struct {
	NS    *netns.NS
	Table string // of the networks and ports
	Boxes []Box
	Words Words
}

// A Box is a box that the program knows.
type Box struct {
	Name   string       // as people call it
	Owner  string       // of its published ports
	Addrs  []netip.Addr // that it was given
	Routed bool         // the table has a network for it: it is no port of a plain switch
	Gone   bool         // and what was made for it is left
	NS     *netns.NS    // nil where it is gone, or cannot be found
}

// Words are what a program says for what only it can repair: each is a sentence without its full stop.
type Words struct {
	Box     string // what a box is called
	Restore string // what brings the table, the network's link and its settings back
	Publish string // what publishes a port
	Accept  string // what has the forward chain of iptables-nft let boxes through
	Gone    string // what removes what is left of a box
	Again   string // what gives a box its link and addresses again
}

// Explain writes what it finds, and returns the exit status for it. Where it could not look at all of it, it returns the error
// with what it found.
func (h Host) Explain(ctx context.Context, a Ask, out io.Writer) (status int, err error) {
	gw, err := nat.Open(ctx, h.NS, nat.Options{Name: h.Table, ReadOnly: true})
	r := report{Host: h, ask: a}
	switch {
	case errors.Is(err, os.ErrNotExist):
		err = nil
	case err != nil:
		return StatusFailed, err
	default:
		defer gw.Close()
		r.gw = gw
		if r.ports, err = gw.ListPorts(ctx); err == nil {
			r.networks, err = gw.ListNetworks(ctx)
		}
		if err != nil {
			return StatusFailed, err
		}
	}
	switch {
	case a.Port != 0:
		err = r.lookAtPort(ctx)
	case len(a.Boxes) > 0:
		for _, name := range a.Boxes {
			err = errors.Join(err, r.lookAtName(ctx, name))
		}
	default:
		err = r.lookAtAll(ctx)
	}
	if _, werr := io.WriteString(out, r.String()); err == nil && werr != nil {
		err = werr
	}
	if status = r.status(); err != nil && status != StatusWrong {
		status = StatusFailed
	}
	return status, err
}

// A report is one run of Explain.
type report struct {
	Host
	ask      Ask
	gw       *nat.NAT // nil: the table is not there
	ports    []nat.Published
	networks []nat.NetworkState
	all      []section
}

// A section is what is found of one thing.
type section struct {
	title    string
	findings []finding
	fact     string // in place of "no cause is found"
}

// A finding is a cause, and what to do about it.
type finding struct {
	text, todo string
	certain    bool
}

func (r *report) String() string {
	var b strings.Builder
	for _, s := range r.all {
		fmt.Fprintln(&b, plain.Text(s.title))
		for _, f := range s.findings {
			kind := "cause"
			if !f.certain {
				kind = "possible cause"
			}
			fmt.Fprintf(&b, "  %s: %s\n", kind, sentence(f.text))
			if f.todo != "" {
				fmt.Fprintf(&b, "  to do: %s\n", sentence(f.todo))
			}
		}
		switch {
		case s.fact != "":
			fmt.Fprintf(&b, "  %s\n", sentence(s.fact))
		case len(s.findings) == 0:
			fmt.Fprintln(&b, "  no cause is found on this host")
		}
	}
	return b.String()
}

// sentence keeps a text on one line, which a terminal shows as it is, and gives it no second full stop. Boxes name their links
// themselves.
func sentence(text string) string {
	return plain.Text(strings.TrimRight(strings.Join(strings.Fields(text), " "), "."))
}

func (r *report) status() int {
	status := StatusFine
	for _, s := range r.all {
		for _, f := range s.findings {
			if f.certain {
				return StatusWrong
			}
			status = StatusMaybe
		}
	}
	return status
}

// lookAtAll looks at every box, and at every port that no box owns.
func (r *report) lookAtAll(ctx context.Context) (err error) {
	for i := range r.Boxes {
		err = errors.Join(err, r.lookAtBox(ctx, &r.Boxes[i]))
	}
	for _, p := range r.ports {
		if r.owned(p.Owner) == nil {
			err = errors.Join(err, r.explainPort(ctx, p))
		}
	}
	if len(r.all) == 0 {
		r.all = append(r.all, section{title: fmt.Sprintf("there is no %s, and no port is published", r.Words.Box), fact: "there is nothing to explain"})
	}
	return err
}

func (r *report) owned(owner string) *Box {
	i := slices.IndexFunc(r.Boxes, func(b Box) bool { return b.Owner == owner })
	if i < 0 {
		return nil
	}
	return &r.Boxes[i]
}

// lookAtPort looks at what is published at the port, and what else is there where nothing is.
func (r *report) lookAtPort(ctx context.Context) (err error) {
	found := false
	for _, p := range r.ports {
		if r.ask.asksFor(p.Port) {
			found = true
			last := p.Port
			at := r.ask.Addr
			if !at.IsValid() {
				at = last.Host.Addr()
			}
			asked := p
			asked.Box = netip.AddrPortFrom(p.Box.Addr(), p.Box.Port()+r.ask.Port-p.Host.Port())
			asked.Host, asked.HostLast, asked.BoxLast = netip.AddrPortFrom(at, r.ask.Port), 0, 0
			err = errors.Join(err, r.explainPort(ctx, asked))
		}
	}
	if found {
		return err
	}
	what := fmt.Sprint("port ", r.ask.Port)
	if r.ask.Addr.IsValid() {
		what = netip.AddrPortFrom(r.ask.Addr, r.ask.Port).String()
	}
	if r.ask.Proto != 0 {
		what = fmt.Sprintf("%v %s", r.ask.Proto, what)
	}
	s := section{title: what}
	if r.gw == nil && r.expectsTable() {
		s.findings = append(s.findings, r.noTable())
	}
	text := "the port is not published"
	if near := r.near(); len(near) > 0 {
		text += fmt.Sprintf("; published are %s", strings.Join(near, ", "))
	}
	s.findings = append(s.findings, finding{text, r.Words.Publish, true})
	r.all = append(r.all, s)
	return err
}

// near are published ports that are taken for the one that is asked for: those of that number, and those that lead to it.
func (r *report) near() (all []string) {
	for _, p := range r.ports {
		if p.Host.Port() == r.ask.Port || p.Box.Port() == r.ask.Port {
			all = append(all, fmt.Sprintf("%v %v, which leads to %v of %s", p.Proto, p.Host, p.Box, r.nameOf(p.Owner)))
		}
	}
	return all
}

func (r *report) nameOf(owner string) string {
	if b := r.owned(owner); b != nil {
		return b.Name
	}
	return owner
}

// expectsTable says whether there is a box that the table has to be there for.
func (r *report) expectsTable() bool {
	return slices.ContainsFunc(r.Boxes, func(b Box) bool { return b.Routed })
}

func (r *report) noTable() finding {
	return finding{fmt.Sprintf("the table inet %s of the firewall is not there, so that nothing is published or translated", r.Table), r.Words.Restore, true}
}

// explainPort says why a published port does not answer.
func (r *report) explainPort(ctx context.Context, p nat.Published) error {
	b := r.owned(p.Owner)
	s := section{title: fmt.Sprintf("%v %v leads to %v of %s", p.Proto, p.Host, p.Box, r.nameOf(p.Owner))}
	hints := nat.Hints{From: r.ask.From}
	follows := false // the host's way to the box is broken for a reason that is named
	if b == nil || b.Gone {
		s.findings = append(s.findings, finding{fmt.Sprintf("the %s is gone, and its port is still published", r.Words.Box), r.Words.Gone, true})
		follows = true
	} else {
		hints.Box = b.NS
		f, broken, err := r.lookAtLink(ctx, p.Box.Addr())
		if err != nil {
			return err
		}
		if broken {
			s.findings = append(s.findings, f)
			follows = true
		}
	}
	causes, err := r.gw.Explain(ctx, nat.Port{Proto: p.Proto, Host: p.Host}, hints)
	for _, c := range causes {
		if follows && isOfTheWay(c) {
			continue
		}
		s.findings = append(s.findings, r.finding(c, p.Box.Addr(), fmt.Sprint(p.Proto), p.Host.Port()))
	}
	r.all = append(r.all, s)
	return err
}

// isOfTheWay says whether a cause is about the host's way to a box.
func isOfTheWay(c nat.Cause) bool {
	return slices.Contains([]nat.CauseKind{nat.CauseNoRoute, nat.CauseNeighbourFailed, nat.CauseLinkDown, nat.CauseNoNetwork}, c.Kind)
}

// lookAtLink finds out whether the link of the network with a box's address is missing or down.
func (r *report) lookAtLink(ctx context.Context, box netip.Addr) (f finding, broken bool, err error) {
	name, ok := r.network(box)
	if !ok {
		return f, false, nil
	}
	l, err := link.Get(ctx, r.NS, name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return finding{fmt.Sprintf("the link %s of the network is gone", name), r.Words.Restore, true}, true, nil
	case err != nil:
		return f, false, err
	case !l.Up:
		// With a link that goes down the kernel takes its IPv6 addresses away.
		todo := fmt.Sprintf("ip link set %s up", name)
		if box.Is6() {
			todo += "; it has lost its IPv6 addresses: " + r.Words.Restore
		}
		return finding{fmt.Sprintf("the link %s of the network is down", name), todo, true}, true, nil
	}
	return f, false, nil
}
