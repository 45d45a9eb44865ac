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
	"golang.org/x/sys/unix"
)

// undoTimeout bounds the removal of a link whose creation failed half-way.
const undoTimeout = 5 * time.Second

// Create makes a link as spec says in the namespace ns, and reads it back. A
// veth's peer is made in its own namespace in the same message, then brought
// up and given its addresses there.
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
// master that is not there, errors.ErrUnsupported for a kind the kernel does
// not have, os.ErrPermission without CAP_NET_ADMIN over both namespaces,
// os.ErrClosed for a closed one.
func Create(ctx context.Context, ns *netns.NS, spec Spec) (Link, error) {
	c := creation{ctx: ctx, ns: ns, spec: &spec}
	l, err := c.run()
	if err != nil {
		return Link{}, err
	}
	return l, nil
}

// creation is one call of Create.
type creation struct {
	ctx  context.Context
	ns   *netns.NS
	spec *Spec
	host *nl.Conn

	// The peer of a veth, where there is one.
	peer     *Spec
	peerNS   *netns.NS // never nil with a peer
	peerConn *nl.Conn

	link Link // what was made
}

func (c *creation) run() (Link, error) {
	if err := c.prepare(); err != nil {
		return Link{}, c.fail(err)
	}
	if err := c.makeLink(); err != nil {
		return Link{}, c.fail(err)
	}
	err := c.finishPeer()
	if err == nil {
		err = c.addAddrs()
	}
	if err == nil {
		if err = c.ctx.Err(); err != nil {
			err = c.fail(err)
		}
	}
	if err != nil {
		return Link{}, c.undo(err, delLink(c.link.Index))
	}
	return c.link, nil
}

func (c *creation) fail(err error) error {
	return fail.New("link.Create", c.ns, subject(c.spec.Name), err)
}

// prepare refuses bad input and opens both connections, so that a namespace
// that is closed is found out before anything is made.
func (c *creation) prepare() (err error) {
	if err = c.spec.check(c.ns); err != nil {
		return err
	}
	if c.host, err = route(c.ns); err != nil {
		return err
	}
	v, ok := c.spec.Kind.(Veth)
	if !ok {
		return nil
	}
	c.peer, c.peerNS, c.peerConn = &v.Peer, c.ns, c.host
	if v.Peer.NS == nil || v.Peer.NS.Equal(c.ns) {
		return nil
	}
	c.peerNS = v.Peer.NS
	if c.peerConn, err = route(c.peerNS); err != nil {
		return fmt.Errorf("the peer's namespace %s: %w", c.peerNS, err)
	}
	return nil
}

// makeLink sends the create message and, in the same send, the question what
// came of it. The handle of the peer's namespace is kept open meanwhile.
func (c *creation) makeLink() error {
	if c.peer == nil || c.peerConn == c.host {
		return c.send(-1)
	}
	return c.peerNS.WithFd(c.send)
}

func (c *creation) send(peerFD int) error {
	reqs := []nl.Request{newLink(c.spec, peerFD), getLink(c.spec.Name, 0)}
	found := false
	err := change(c.ctx, func(ctx context.Context) error {
		return c.host.Exec(ctx, reqs, func(i int, m nl.Message) error {
			if i != 1 || m.Type != unix.RTM_NEWLINK {
				return nil
			}
			found = true
			return decodeLink(&c.link, m.Body)
		})
	})
	if err == nil && found {
		c.link.ns = c.ns
		return nil
	}
	if err == nil {
		err = errors.New("the kernel made the link and then did not show it")
	}
	i, e, ok := refused(err)
	switch {
	case ok && i == 0: // not made; found says whether the name is somebody else's
		return c.explain(e, found)
	case ok && e.Errno == unix.ENODEV:
		return notExist("the link was made, and renamed or deleted by somebody else at once", e)
	case ok || found:
		// It was made and could not be read: it goes by its name.
		b := nl.AppendString(appendIfInfo(nil, 0, 0, 0), unix.IFLA_IFNAME, c.spec.Name)
		return c.undo(err, nl.Request{Type: unix.RTM_DELLINK, Body: b, Names: linkNames})
	}
	return err
}

// finishPeer does what the create message cannot do to the peer: bring it up,
// make it a port of its master, give it addresses. One send in its namespace.
func (c *creation) finishPeer() error {
	p := c.peer
	if p == nil || (!p.Up && p.Master == 0 && len(p.Addrs) == 0) {
		return nil
	}
	index := c.link.PeerIndex
	if index == 0 { // kernels before 5.2 leave it out where both have the same
		index = c.link.Index
	}
	set := 0
	var reqs []nl.Request
	if p.Up || p.Master != 0 {
		req := setFlags(index, p.Up)
		if p.Master != 0 {
			req.Body = nl.AppendU32(req.Body, unix.IFLA_MASTER, uint32(p.Master))
		}
		set, reqs = 1, append(reqs, req)
	}
	reqs = append(reqs, addrRequests(unix.RTM_NEWADDR, index, p.Addrs, p.DAD)...)
	err := change(c.ctx, func(ctx context.Context) error { return c.peerConn.Exec(ctx, reqs, nil) })
	return c.explainStep(err, c.peerNS, c.peerConn, p, set)
}

// addAddrs gives the outer end its addresses, in one send.
func (c *creation) addAddrs() error {
	if len(c.spec.Addrs) == 0 {
		return nil
	}
	reqs := addrRequests(unix.RTM_NEWADDR, c.link.Index, c.spec.Addrs, c.spec.DAD)
	err := change(c.ctx, func(ctx context.Context) error { return c.host.Exec(ctx, reqs, nil) })
	return c.explainStep(err, c.ns, c.host, c.spec, 0)
}

// explainStep names the end and the address that a failed step was about; the
// requests from the one at set on are the end's addresses.
func (c *creation) explainStep(err error, ns *netns.NS, conn *nl.Conn, s *Spec, set int) error {
	const op = "link.Create"
	if err == nil {
		return nil
	}
	i, e, ok := refused(err)
	switch {
	case !ok:
		return fail.New(op, ns, subject(s.Name), err)
	case i < set:
		return fail.New(op, ns, subject(s.Name), c.explainMaster(e, ns, conn, s))
	}
	return fail.New(op, ns, addrSubject(s.Addrs[i-set], s.Name), addrCause(s.Addrs[i-set], true, e))
}

// undo deletes what was made, whatever became of ctx, and returns err; a link
// that could not be deleted is said in the error, too.
func (c *creation) undo(err error, del nl.Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), undoTimeout)
	defer cancel()
	if uerr := c.host.Call(ctx, del, nil); uerr != nil && !errors.Is(uerr, os.ErrNotExist) {
		return errors.Join(err, c.fail(fmt.Errorf("deleting it again: %w", uerr)))
	}
	return err
}
