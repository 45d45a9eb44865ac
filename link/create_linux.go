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
	c := creation{op: "link.Create", ctx: ctx, ns: ns, spec: &spec}
	return c.run()
}

// creation is one call of Create, or of OpenTun: it carries out a plan.
type creation struct {
	op   string
	ctx  context.Context
	ns   *netns.NS // given to the call: where the message is sent
	spec *Spec
	kind options // of the spec
	send *nl.Conn
	now  conditions

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
	ns    *netns.NS
	conn  *nl.Conn
	spec  *Spec
	index int
}

func (c *creation) at(s side) *end {
	if s == inner {
		return c.peer
	}
	return &c.end
}

// fail names the link as what an error is about.
func (c *creation) fail(err error) error { return c.failAt(c.ns, c.spec, err) }

func (c *creation) failAt(ns *netns.NS, s *Spec, err error) error {
	if err == nil {
		return nil
	}
	return fail.New(c.op, ns, subject(s.Name), err)
}

// run does one step of the plan after the other.
func (c *creation) run() (Link, error) {
	if err := c.prepare(); err != nil {
		return Link{}, c.fail(err)
	}
	var steps []step
	var err error
	for i := 0; err == nil && (i == 0 || i < len(steps)); i++ {
		if i == 0 {
			steps = plan(c.spec, &c.kind, c.now)
		}
		err = c.do(&steps[i])
		if i == 0 && c.spec.Up && !c.now.late && refusedWhileUp(err) {
			// The kernel brings a new link up before it gives it to its master,
			// and a bond takes ports that are down only. Nothing was made: the
			// plan changes.
			c.now.late, i, err = true, -1, nil
		}
	}
	if err == nil {
		err = c.fail(c.ctx.Err())
	}
	if err == nil {
		return c.link, nil
	}
	if rerr := c.rollback(); rerr != nil {
		err = errors.Join(err, rerr)
	}
	return Link{}, err
}

// prepare refuses bad input and opens the connections, so that a namespace that is
// closed is found out before anything is made.
func (c *creation) prepare() (err error) {
	if c.spec.NS == nil {
		c.spec.NS = c.ns
	}
	if c.kind, err = c.spec.check(c.ns); err != nil {
		return err
	}
	if err = c.checkTun(); err != nil {
		return err
	}
	if c.send, err = route(c.ns); err != nil {
		return err
	}
	s := c.spec
	if err = s.resolve(c.ctx, c.ns, &c.kind); err != nil {
		return err
	}
	p := c.kind.peer()
	s.drawMACs(p)
	s.pairUp(p)
	c.kind.forNew()
	c.end = end{ns: c.ns, conn: c.send, spec: s}
	if !s.NS.Equal(c.ns) {
		c.end.ns = s.NS
		if c.end.conn, err = route(s.NS); err != nil {
			return fmt.Errorf("the link's namespace %s: %w", s.NS, err)
		}
	}
	c.now.moved = !c.end.ns.Equal(c.ns)
	if p == nil {
		return nil
	}
	c.peer = &end{ns: p.NS, spec: p}
	switch {
	case p.NS == nil || p.NS.Equal(c.end.ns):
		c.peer.ns, c.peer.conn = c.end.ns, c.end.conn
	case p.NS.Equal(c.ns):
		c.peer.ns, c.peer.conn = c.ns, c.send
	default:
		if c.peer.conn, err = route(p.NS); err != nil {
			return fmt.Errorf("the peer's namespace %s: %w", p.NS, err)
		}
	}
	c.now.peerMoved = !c.peer.ns.Equal(c.ns)
	return nil
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
		req = delName(c.spec.Name)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), undoTimeout)
	defer cancel()
	if err := c.end.conn.Call(ctx, req, nil); err != nil && !errors.Is(err, os.ErrNotExist) {
		return c.fail(fmt.Errorf("deleting it again: %w", err))
	}
	return nil
}
