package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
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

// run does one step after the other.
func (c *creation) run() (Link, error) {
	if err := c.prepare(); err != nil {
		return Link{}, c.fail(err)
	}
	var err error
	steps := plan(c.spec, &c.kind, c.now)
	for i := 0; i < len(steps) && err == nil; i++ {
		err = c.do(&steps[i])
		if !c.now.late && steps[i].kind == stepCreate && c.spec.Up && refusedWhileUp(err) {
			// The kernel brings a new link up before it gives it to its master,
			// and a bond takes ports that are down only. Nothing was made.
			c.now.late = true
			steps, i, err = plan(c.spec, &c.kind, c.now), -1, nil
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

func refusedWhileUp(err error) bool {
	_, e, ok := refused(err)
	return ok && e.Errno == unix.EPERM && strings.Contains(e.Msg, "while up")
}

func (c *creation) do(s *step) error {
	switch e := c.at(s.side); s.kind {
	case stepCreate:
		return c.fail(c.create(s))
	case stepTun:
		return c.fail(c.openTun())
	case stepPersist:
		return c.fail(c.persist())
	case stepRead:
		return c.fail(c.readMade(s))
	case stepBond:
		return c.failAt(e.ns, e.spec, c.needBond(e))
	case stepSysctl:
		return c.failAt(e.ns, e.spec, setSysctls(c.ctx, e.ns, e.spec.Name, s.sysctls))
	case stepWait:
		return c.failAt(e.ns, e.spec, awaitLocal(c.ctx, e.ns, e.conn, e.index, s.addrs))
	}
	return c.finish(s)
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

// create sends the message that makes the link, with everything that one message can
// do.
func (c *creation) create(s *step) error {
	err := c.withFds(s, outer, func() error {
		return execChange(c.ctx, c.send, s.reqs, func(i int, m nl.Message) error {
			switch {
			case m.Type != unix.RTM_NEWLINK:
				return nil
			case i == 0:
				return c.show(s, m)
			}
			c.master = kindOfLink(m.Body)
			return nil
		})
	})
	i, e, ok := refused(err)
	switch {
	case ok && i == 0:
		return c.explain(e)
	case err == nil, ok, c.shown: // where a question was refused, the master has gone
		c.made = true
	}
	if ok {
		return nil
	}
	return err
}

// withFds runs fn with the descriptors of other namespaces in the message, from that of
// a side on. Their handles are kept open meanwhile.
func (c *creation) withFds(s *step, from side, fn func() error) error {
	for ; from <= inner; from++ {
		if at := s.fds[from]; at != 0 {
			return c.at(from).ns.WithFd(func(fd int) error {
				binary.NativeEndian.PutUint32(s.reqs[0].Body[at:], uint32(fd))
				return c.withFds(s, from+1, fn)
			})
		}
	}
	return fn()
}

// show takes the link, or the end, as the kernel shows it.
func (c *creation) show(s *step, m nl.Message) error {
	e := c.at(s.side)
	if s.compare {
		c.bad = c.verify(s, m.Body)
	}
	if s.side == inner {
		return nil
	}
	c.shown = true
	err := decodeLink(&c.link, m.Body)
	c.link.ns = e.ns
	return err
}

// readMade reads the link unless the echo is enough. From here on its index finds it.
func (c *creation) readMade(s *step) error {
	if c.shown && (s.echoed == echoAlways || s.echoed == echoOfBridgePort && c.master == "bridge") {
		c.link.Master = c.spec.Master.Index
	} else {
		err := c.end.conn.Call(answerContext(c.ctx), getLink(c.spec.Name, 0), func(m nl.Message) error { return c.show(s, m) })
		if _, e, ok := refused(err); ok && e.Errno == unix.ENODEV {
			c.made = false
			return notExist("the link was made, and renamed or deleted by another program at once", e)
		}
		if err == nil && !c.shown {
			err = errors.New("the kernel made the link and then did not show it")
		}
		if err != nil {
			return err
		}
	}
	c.end.index = c.link.Index
	if c.peer != nil {
		c.peer.index = c.link.PeerIndex
		if c.peer.index == 0 { // kernels before 5.2 leave it out where both have the same
			c.peer.index = c.link.Index
		}
	}
	return c.bad
}

// needBond refuses a master that takes no options of a bond's ports.
func (c *creation) needBond(e *end) error {
	if l, ok := c.look(e, e.spec.Master.Index); ok && l.Kind != "bond" {
		return refuse.Input("master %s (%s) is no bond: BondPort must be zero", e.spec.Master, l.Name)
	}
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
