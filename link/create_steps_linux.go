package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// do does one step.
func (c *creation) do(s *step) error {
	switch e := c.at(s.side); s.kind {
	case stepCreate:
		return c.fail(c.create(s))
	case stepTun:
		return c.fail(c.openTun(*s.device))
	case stepPersist:
		return c.fail(c.persist())
	case stepRead:
		return c.fail(c.readMade(s))
	case stepBond:
		return c.failAt(e.ns, e.name, c.needBond(e))
	case stepMAC:
		return c.fail(c.keepMAC(s.mac))
	case stepSysctl:
		return c.failAt(e.ns, e.name, setSysctls(c.ctx, e.ns, e.name, s.sysctls))
	case stepWait:
		return c.failAt(e.ns, e.name, awaitLocal(c.ctx, e.ns, e.conn, e.index, s.addrs))
	}
	return c.finish(s)
}

// create sends the message that makes the link, with everything that one message can
// do.
func (c *creation) create(s *step) error {
	err := c.withFds(s, outer, func() error {
		return execChange(c.ctx, c.home.conn, s.reqs, func(i int, m nl.Message) error {
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
	if s.expected != nil {
		c.bad = s.expected.unmet(m.Body)
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
		c.link.Master = c.end.master.Index
	} else {
		err := c.end.conn.Call(answerContext(c.ctx), getLink(c.end.name, 0), func(m nl.Message) error { return c.show(s, m) })
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
	if l, ok := e.look(c.ctx, e.master.Index); ok && l.Kind != "bond" {
		return refuse.Input("master %s (%s) is no bond: BondPort must be zero", e.master, l.Name)
	}
	return nil
}

func refusedWhileUp(err error) bool {
	_, e, ok := refused(err)
	return ok && e.Errno == unix.EPERM && strings.Contains(e.Msg, "while up")
}

// finish sends to an end what the message that made it could not do, and reads back
// what a kernel may have ignored.
func (c *creation) finish(s *step) error {
	e := c.at(s.side)
	for i := range s.reqs {
		setIndex(&s.reqs[i], e.index)
	}
	var reply func(int, nl.Message) error
	if s.read {
		reply = func(i int, m nl.Message) error {
			if i != len(s.reqs)-1 || m.Type != unix.RTM_NEWLINK {
				return nil
			}
			return c.show(s, m)
		}
	}
	if err := execChange(c.ctx, e.conn, s.reqs, reply); err != nil {
		return c.explainFinish(s, err)
	}
	if s.up && s.side == outer && !s.read {
		c.link.Up = true
	}
	return c.failAt(e.ns, e.name, c.bad)
}

// setIndex fills in the index of the link, which stands at the same place in struct
// ifinfomsg and struct ifaddrmsg.
func setIndex(r *nl.Request, index int) {
	binary.NativeEndian.PutUint32(r.Body[4:], uint32(index))
}

// explainFinish says which of the requests failed, and why.
func (c *creation) explainFinish(s *step, err error) error {
	e := c.at(s.side)
	i, why, ok := refused(err)
	if !ok {
		return c.failAt(e.ns, e.name, err)
	}
	switch s.reqs[i].Type {
	case unix.RTM_NEWADDR:
		n := 0
		for _, r := range s.reqs[:i] {
			if r.Type == unix.RTM_NEWADDR {
				n++
			}
		}
		a := Addr{Prefix: s.prefixes[n]}
		return fail.New(c.op, e.ns, addrSubject(&a, e.name), addrCause(&a, editAdd, why))
	case unix.RTM_SETLINK:
		return c.failAt(e.ns, e.name, explainPort(why, s.port))
	case unix.RTM_NEWLINKPROP:
		return c.failAt(e.ns, e.name, explainNames(s.altNames, why, e.index, func(name string) (Link, error) {
			return e.find(c.ctx, name, 0)
		}))
	}
	return c.failAt(e.ns, e.name, e.explainMaster(c.ctx, e.master, why))
}

// expectation is what the kernel has to show of the requests of a step: a kernel ignores
// attributes that it does not know.
type expectation struct {
	fields [places][]field
	kind   Kind         // of the fields of placeData: some do not report all of theirs
	port   *PortOptions // nil: none are expected
}

// unmet compares it with a message about the link.
func (x *expectation) unmet(body []byte) error {
	have := states.Get().(*state)
	*have = state{}
	defer states.Put(have)
	if err := have.parse(body); err != nil {
		return err
	}
	if h, ok := x.kind.(unreporter); ok {
		h.addUnreported(&have.at[placeData])
	}
	m := message{have: have}
	for at, list := range x.fields {
		m.put(at, list)
	}
	if x.port != nil {
		var p Port
		if err := errors.Join(decodePort(&p, have.slaveData), x.port.missing(&p.PortOptions)); err != nil {
			return err
		}
	}
	return notTaken(m.names)
}

// notTaken names the options that the kernel has ignored.
func notTaken(names []string) error {
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return &causeError{
		text: fmt.Sprintf("the kernel did not take %s: this option or value is unknown to it", strings.Join(slices.Compact(names), ", ")),
		is:   errors.ErrUnsupported, err: unix.EOPNOTSUPP,
	}
}
