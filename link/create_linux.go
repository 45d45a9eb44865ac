package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// undoTimeout bounds the removal of a link whose creation failed half-way.
const undoTimeout = 5 * time.Second

// Create makes a link as spec says in the namespace ns, or in Spec.NS, and reads
// it back. A veth's peer is made in its own namespace in the same message, then
// brought up and given its addresses there.
//
// What the kernel does not take is an error, also where the kernel says nothing:
// a kernel passes over options that are newer than itself, and Create finds that
// out by reading them back.
//
// It succeeds whole or leaves nothing behind: when a later step fails, or ctx
// is done between two steps, the link is deleted again (both ends of a veth),
// and the error tells what failed first.
//
// The Link describes the outer end as it was made. Its Running and OperState
// are those of the moment before the peer came up; read it again for later
// ones.
//
// Errors: os.ErrInvalid for a spec that cannot work, os.ErrExist when a name or
// index is taken (the error says in which namespace), os.ErrNotExist for a
// master or parent that is not there, errors.ErrUnsupported for a kind or an
// option the kernel does not have, os.ErrPermission without CAP_NET_ADMIN over the
// namespaces, os.ErrClosed for a closed one.
func Create(ctx context.Context, ns *netns.NS, spec Spec) (Link, error) {
	c := creation{op: "link.Create", ctx: ctx, ns: ns, spec: &spec}
	l, err := c.run()
	if err != nil {
		return Link{}, err
	}
	return l, nil
}

// creation is one call of Create, or of OpenTun.
type creation struct {
	op   string
	ctx  context.Context
	ns   *netns.NS // given to the call: where the message is sent
	spec *Spec
	send *nl.Conn

	end  end  // the link itself
	peer *end // the other end of a pair; nil where there is none

	late   bool       // it is brought up after it has its master
	link   Link       // what was made
	queues int        // of a Tun: how many to return
	files  []*os.File // those
}

// end is a link that is being made: the outer or the other end of a pair.
type end struct {
	ns    *netns.NS
	conn  *nl.Conn
	spec  *Spec
	index int

	// What the message that made it has not done.
	common, master, up, mtu bool
}

func isBridge(k Kind) bool {
	_, ok := k.(Bridge)
	return ok
}

func (c *creation) run() (Link, error) {
	if err := c.prepare(); err != nil {
		return Link{}, c.fail(err)
	}
	if err := c.makeLink(); err != nil {
		return Link{}, c.fail(err)
	}
	err := c.settle(&c.end)
	if err == nil && c.peer != nil {
		err = c.settle(c.peer)
	}
	if err == nil {
		if err = c.ctx.Err(); err != nil {
			err = c.fail(err)
		}
	}
	if err != nil {
		return Link{}, c.undo(err, delLink(c.end.index))
	}
	return c.link, nil
}

func (c *creation) fail(err error) error {
	return fail.New(c.op, c.ns, subject(c.spec.Name), err)
}

// prepare refuses bad input and opens the connections, so that a namespace that is
// closed is found out before anything is made.
func (c *creation) prepare() (err error) {
	if c.spec.NS == nil {
		c.spec.NS = c.ns
	}
	if err = c.spec.check(c.ns); err != nil {
		return err
	}
	if c.send, err = route(c.ns); err != nil {
		return err
	}
	s := c.spec
	c.end = end{ns: c.ns, conn: c.send, spec: s}
	if !s.NS.Equal(c.ns) {
		c.end.ns = s.NS
		if c.end.conn, err = route(s.NS); err != nil {
			return fmt.Errorf("the link's namespace %s: %w", s.NS, err)
		}
	}
	p := pairOf(s.Kind)
	if p == nil {
		return nil
	}
	c.peer = &end{ns: p.NS, spec: p, up: p.Up, master: p.Master != 0}
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
	return nil
}

// makeLink makes the link, with everything that one message can do. Handles of
// other namespaces are kept open meanwhile.
func (c *creation) makeLink() error {
	if k, ok := c.spec.Kind.(Tun); ok {
		return c.makeTun(k)
	}
	// The kernel brings a new link up before it looks at the later message.
	c.end.up = c.spec.Up && (c.late || c.spec.needsDown())
	err := c.withFd(&c.end, func(destFD int) error {
		return c.withFd(c.peer, func(peerFD int) error { return c.exchange(peerFD, destFD) })
	})
	if _, e, ok := refused(err); ok && e.Errno == unix.EPERM && c.spec.Up && !c.end.up && strings.Contains(e.Msg, "while up") {
		// A bond takes its ports while they are down, and the kernel brings
		// a new link up before it gives it to its master.
		c.late = true
		return c.makeLink()
	}
	return err
}

// withFd runs fn with the descriptor of an end's namespace, -1 where that is the
// one the message is sent in.
func (c *creation) withFd(e *end, fn func(fd int) error) error {
	if e == nil || e.ns.Equal(c.ns) {
		return fn(-1)
	}
	return e.ns.WithFd(fn)
}

// exchange sends the create message and finds out what came of it.
func (c *creation) exchange(peerFD, destFD int) error {
	s := c.spec
	c.end.mtu = isBridge(s.Kind) && s.MTU != 0
	if c.end.mtu || c.end.up && s.Up {
		s = new(*s)
		s.Up = s.Up && !c.end.up
	}
	if c.end.mtu {
		// A bridge's MTU follows its ports unless it was ever changed: it is
		// made with another one for settle to change.
		if s.MTU--; s.MTU < minMTU {
			s.MTU = minMTU + 1
		}
	}
	req, compare := newLink(s, peerFD, destFD)
	var bad error
	shown := false
	read := func(m nl.Message) error {
		shown = true
		if compare {
			bad = c.verify(&c.end, m.Body, true)
		}
		return decodeLink(&c.link, m.Body)
	}
	err := change(c.ctx, func(ctx context.Context) error {
		master, err := c.sendNew(ctx, req, destFD, read)
		if err != nil {
			return err
		}
		// What was shown is older than the link's place at its master. A bridge
		// changes nothing else of its ports.
		if c.link.Master = s.Master; shown && (s.Master == 0 || master == "bridge") {
			return nil
		}
		err = c.end.conn.Call(ctx, getLink(s.Name, 0), read)
		if _, e, ok := refused(err); ok {
			err = &nl.ExecError{Failed: []nl.Item{{Index: 1, Err: e}}, Sent: 2}
		}
		return err
	})
	if err == nil && shown {
		c.link.ns = c.end.ns
		c.end.index = c.link.Index
		if c.peer != nil {
			c.peer.index = c.link.PeerIndex
			if c.peer.index == 0 { // kernels before 5.2 leave it out where both have the same
				c.peer.index = c.link.Index
			}
		}
		if bad != nil {
			return c.undo(bad, delLink(c.end.index))
		}
		return nil
	}
	if err == nil {
		err = errors.New("the kernel made the link and then did not show it")
	}
	i, e, ok := refused(err)
	switch {
	case ok && i == 0:
		return c.explain(e, c.named(c.end.spec.Name))
	case ok && e.Errno == unix.ENODEV:
		return notExist("the link was made, and renamed or deleted by somebody else at once", e)
	case ok || shown:
		// It was made and could not be read: it goes by its name.
		b := nl.AppendString(appendIfInfo(nil, 0, 0, 0), unix.IFLA_IFNAME, c.spec.Name)
		return c.undo(err, nl.Request{Type: unix.RTM_DELLINK, Body: b, Names: linkNames})
	}
	return err
}

// speaksUp reports whether the other end sends something as it comes up: what it
// listens to for its IPv6 addresses (MLD), which a bridge floods to all its ports.
// The bridge keeps it to itself where the kernel has seen before that the port has
// no carrier, and to be asked for the link makes it look; with 1,000 ports that is
// three quarters of an attachment.
func (c *creation) speaksUp() bool {
	return c.peer != nil && slices.ContainsFunc(c.peer.spec.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// sendNew sends the create message and returns the kind of the master, where
// the link was shown to read.
//
// The kernel shows a new link to whoever asks for an echo (>= 6.2). That is not
// only one question less: since 6.14, to be asked for a link makes the kernel work
// off that link's changes of carrier first, and a pair of which one end is down has
// just lost its. It takes a tenth of an attachment, for nothing, as the other end
// comes up next.
func (c *creation) sendNew(ctx context.Context, req nl.Request, destFD int, read func(nl.Message) error) (master string, err error) {
	// An echo would be of the link before it moved; a box that speaks up wants the
	// question.
	if destFD >= 0 || c.spec.Master != 0 && c.speaksUp() {
		return "", c.send.Call(ctx, req, nil)
	}
	req.Flags |= unix.NLM_F_ECHO
	reqs := []nl.Request{req}
	if c.spec.Master != 0 {
		reqs = append(reqs, getLink("", c.spec.Master))
	}
	var l Link
	err = c.send.Exec(ctx, reqs, func(i int, m nl.Message) error {
		switch {
		case m.Type != unix.RTM_NEWLINK:
			return nil
		case i == 0:
			return read(m)
		}
		return decodeLink(&l, m.Body)
	})
	if i, _, ok := refused(err); ok && i > 0 {
		err = nil // the master is gone already, and the link in nobody's hands
	}
	return l.Kind, err
}

// undo deletes what was made, whatever became of ctx, and returns err; a link
// that could not be deleted is said in the error, too.
func (c *creation) undo(err error, del nl.Request) error {
	for _, f := range c.files {
		f.Close()
	}
	c.files = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), undoTimeout)
	defer cancel()
	if uerr := c.end.conn.Call(ctx, del, nil); uerr != nil && !errors.Is(uerr, os.ErrNotExist) {
		return errors.Join(err, c.fail(fmt.Errorf("deleting it again: %w", uerr)))
	}
	return err
}
