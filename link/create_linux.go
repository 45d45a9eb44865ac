package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
)

// undoTimeout bounds the removal of a link whose creation failed half-way.
const undoTimeout = 5 * time.Second

// Create makes a link as spec says and reads it back. The link is made in ns, or in
// Spec.NS. The peer of a pair is made in its own namespace by the same message;
// then it is brought up and gets its addresses.
//
// Create does everything or leaves nothing behind. If a later step fails, or ctx is
// done between two steps, it deletes the link again, both ends of a pair, and
// returns the error of that step.
//
// An option that the kernel ignores is an error, too: a kernel ignores options that
// are newer than itself, and Create finds them by reading the link back.
//
// The Link that is returned describes the outer end as it was made. Running and
// OperState are from before the peer came up; [Get] reads later ones.
//
// Errors: os.ErrInvalid for a spec that cannot work; os.ErrExist if a name or index
// is taken, and the error says in which namespace; os.ErrNotExist for a master or
// parent that is missing; errors.ErrUnsupported for a kind or an option that the
// kernel lacks; os.ErrPermission without CAP_NET_ADMIN over the namespaces;
// os.ErrClosed for a closed one.
func Create(ctx context.Context, ns *netns.NS, spec Spec) (Link, error) {
	c := creation{op: "link.Create", ctx: ctx, home: nsConn{ns: ns}, end: end{name: spec.Name}}
	return c.run(&spec)
}

// creation is one call of Create, or of OpenTun: it carries out a plan.
type creation struct {
	op     string
	ctx    context.Context
	home   nsConn  // given to the call: where the message is sent
	kind   options // of the link
	parent Ref     // of the link, in that namespace

	end  end  // the link itself
	peer *end // the other end of a pair, or nil

	link   Link       // what was made
	made   bool       // it is there to be deleted if a step fails
	shown  bool       // the kernel has shown it
	master string     // the kind of its master, as far as that was shown
	bad    error      // what it has ignored of a message
	queues int        // of a Tun: how many to return
	files  []*os.File // those
}

// end is a link that is being made: the outer or the other end of a pair.
type end struct {
	nsConn
	name   string
	index  int // 0 until it was made
	wanted int // the index that it is to have; 0: any
	master Ref
}

// nsConn is a namespace with a connection to it.
type nsConn struct {
	ns   *netns.NS
	conn *nl.Conn
}

func (c *creation) at(s side) *end {
	if s == inner {
		return c.peer
	}
	return &c.end
}

// fail names the link as what an error is about.
func (c *creation) fail(err error) error { return c.failAt(c.home.ns, c.end.name, err) }

func (c *creation) failAt(ns *netns.NS, name string, err error) error {
	if err == nil {
		return nil
	}
	return fail.New(c.op, ns, subject(name), err)
}

// run makes the link as s says.
func (c *creation) run(s *Spec) (Link, error) {
	now, err := c.prepare(s)
	if err != nil {
		return Link{}, c.fail(err)
	}
	for {
		err = c.carryOut(plan(s, &c.kind, now))
		if !s.Up || now.joinsDown || c.made || !refusedWhileUp(err) {
			break
		}
		// The kernel brings a new link up before it gives it to its master, and a
		// bond takes ports that are down only. Nothing was made: the plan changes.
		now.joinsDown = true
	}
	if err == nil {
		return c.link, nil
	}
	if rerr := c.rollback(); rerr != nil {
		err = errors.Join(err, rerr)
	}
	return Link{}, err
}

// carryOut does one step of the plan after the other. A context that is done fails it.
func (c *creation) carryOut(steps []step) error {
	for i := range steps {
		if err := c.do(&steps[i]); err != nil {
			return err
		}
	}
	return c.fail(c.ctx.Err())
}

// prepare refuses bad input, puts in what the spec leaves open, and opens the
// connections, so that a namespace that is closed is found out before anything is made.
func (c *creation) prepare(s *Spec) (now conditions, err error) {
	if s.NS == nil {
		s.NS = c.home.ns
	}
	if c.kind, err = s.check(c.home.ns); err != nil {
		return now, err
	}
	if k, ok := s.Kind.(Tun); ok {
		if err = k.checkNew(c.queues, s.TxQueues, s.RxQueues); err != nil {
			return now, err
		}
	}
	if c.home.conn, err = route(c.home.ns); err != nil {
		return now, err
	}
	if err = s.resolve(c.ctx, c.home.ns, &c.kind); err != nil {
		return now, err
	}
	s.complete(&c.kind)
	c.end.nsConn, c.end.wanted, c.end.master, c.parent = c.home, s.Index, s.Master, s.Parent
	if now.moved = !s.NS.Equal(c.home.ns); now.moved {
		c.end.ns = s.NS
		if c.end.conn, err = route(s.NS); err != nil {
			return now, fmt.Errorf("the link's namespace %s: %w", s.NS, err)
		}
	}
	p := c.kind.peer()
	if p == nil {
		return now, nil
	}
	c.peer = &end{nsConn: c.end.nsConn, name: p.Name, wanted: p.Index, master: p.Master}
	switch {
	case p.NS == nil || p.NS.Equal(c.end.ns):
	case p.NS.Equal(c.home.ns):
		c.peer.nsConn = c.home
	default:
		c.peer.ns = p.NS
		if c.peer.conn, err = route(p.NS); err != nil {
			return now, fmt.Errorf("the peer's namespace %s: %w", p.NS, err)
		}
	}
	now.peerMoved = !c.peer.ns.Equal(c.home.ns)
	return now, nil
}

// complete puts in what the kernel would choose for a new link, or get wrong.
func (s *Spec) complete(o *options) {
	if hasOwnMAC(s.Kind) {
		for _, end := range []*Spec{s, o.peer()} {
			if end != nil && end.MAC == nil {
				end.MAC = randomMAC()
			}
		}
	}
	o.pairMTU(&s.MTU)
	o.forNew()
}

// rollback removes what was made, even when ctx is done.
func (c *creation) rollback() error {
	for _, f := range c.files {
		f.Close()
	}
	c.files = nil
	if !c.made {
		return nil
	}
	req := delLink(c.end.index)
	if c.end.index == 0 {
		req = delName(c.end.name)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), undoTimeout)
	defer cancel()
	if err := c.end.conn.Call(ctx, req, nil); err != nil && !errors.Is(err, os.ErrNotExist) {
		return c.fail(fmt.Errorf("deleting it again: %w", err))
	}
	return nil
}
