package link

import (
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// step is one thing that a creation does. Its requests go in one send, in the
// namespace of its side, where they are given the index of the link.
type step struct {
	kind stepKind
	side side

	spec     *Spec          // create, read, send: what is compared
	common   *fields        // which of its common attributes the requests have
	compare  bool           // a kernel may have ignored some of it
	reqs     []nl.Request   // create: the message, and a question in the same send; send: all of them
	fds      [2]int         // create: where the descriptor of a side's namespace stands in the message; 0: nowhere
	echoed   echoed         // read: when the echo makes a request superfluous
	prefixes []netip.Prefix // send: the addresses among reqs, in order
	up       bool           // send: it brings the link up
	read     bool           // send: the last request reads the link
	sysctls  []sysctl       // sysctl
	addrs    []netip.Addr   // wait
}

type stepKind uint8

const (
	stepCreate  stepKind = iota // sends the message that makes the link
	stepTun                     // makes a TUN or TAP device by ioctls
	stepPersist                 // makes the device stay without a descriptor
	stepRead                    // reads the link that was made, for its index
	stepBond                    // refuses a master that is no bond
	stepSend                    // sends what the message that made the link cannot do
	stepSysctl                  // writes settings that have no attribute
	stepWait                    // waits until the addresses are usable
)

// side is an end of what is made.
type side uint8

const (
	outer side = iota // the link itself
	inner             // the other end of a pair
)

// echoed says when an echo shows the final link. The echo of a port shows the link
// before its master took it; a bridge changes nothing else of its ports.
type echoed uint8

const (
	echoNever echoed = iota
	echoAlways
	echoOfBridgePort
)

// The common attributes that a message has.
var (
	commonAll  = (*fields)(nil)
	commonNone = &fields{}
	commonMTU  = &fields{placeLink: {1 << unix.IFLA_MTU}}
)

// conditions are what a plan depends on besides the spec.
type conditions struct {
	moved     bool // the link is made in another namespace than that of the message
	peerMoved bool // so is the other end of a pair
	late      bool // the kernel refuses to make a link that is up a port of this master
}

// plan returns the steps that make a link. It is a pure function: all that a kernel may
// answer is in the steps' conditions.
//
// o are the options of the kind.
func plan(s *Spec, o *options, c conditions) []step {
	steps := make([]step, 0, 4)
	ends := make([]endPlan, 1, 2)
	e, p := &ends[0], o.peer()
	*e = planEnd(outer, s)
	if k, ok := s.Kind.(Tun); ok {
		steps = append(steps, step{kind: stepTun}, step{kind: stepRead})
		if k.Persist { // once nothing else of it can fail
			steps = append(steps, step{kind: stepPersist})
		}
		e.common, e.master, e.up = commonAll, s.Master.Index != 0, s.Up
	} else {
		// The kernel brings a new link up before it looks at a later message.
		e.up = s.Up && (c.late || e.late.any() || len(e.linkLocal) > 0)
		if isBridge(s.Kind) && s.MTU != 0 {
			e.common = commonMTU
		}
		steps = planCreate(steps, e, o, c)
	}
	// A link without another end may have its carrier by now.
	e.read = e.common == commonAll || e.up && p == nil
	if p != nil {
		ends = append(ends, planEnd(inner, p))
		ends[1].master, ends[1].up = p.Master.Index != 0, p.Up
	}
	for i := range ends {
		steps = ends[i].append(steps)
	}
	for i := range ends {
		e := &ends[i]
		if addrs := nodad(e.linkLocal, e.addrs); e.spec.Up && len(addrs) > 0 {
			steps = append(steps, step{kind: stepWait, side: e.side, addrs: addrs})
		}
	}
	return steps
}

// planCreate plans the message that makes the link and the reading of it.
//
// The kernel shows a new link in an echo (>= 6.2). That saves more than a request:
// since 6.14 a request for a link makes the kernel work off that link's changes of
// carrier first, and an end of a pair whose other end is down has just lost its.
func planCreate(steps []step, e *endPlan, o *options, c conditions) []step {
	s := e.spec
	in := s
	if e.common == commonMTU || e.up {
		in = new(*s)
		in.Up = s.Up && !e.up
	}
	if e.common == commonMTU {
		// A bridge's MTU follows its ports unless it was ever changed: it is made
		// with another MTU, and then changed.
		if in.MTU--; in.MTU < minMTU {
			in.MTU = minMTU + 1
		}
	}
	create := newLink(in, o, c)
	read := step{kind: stepRead, spec: in, compare: create.compare, echoed: echoAlways}
	switch p := o.peer(); {
	case c.moved, s.Master.Index != 0 && p != nil && p.sendsMLD():
		// The echo would show the link before it moved.
		read.echoed = echoNever
	case s.Master.Index != 0:
		create.reqs, read.echoed = append(create.reqs, getLink("", s.Master.Index)), echoOfBridgePort
	}
	if read.echoed != echoNever {
		create.reqs[0].Flags |= unix.NLM_F_ECHO
	}
	return append(steps, create, read)
}

// newLink builds the message that makes the link. The descriptors of the namespaces are
// filled in when it is sent.
func newLink(s *Spec, o *options, c conditions) step {
	var flags uint32
	if s.Up {
		flags = unix.IFF_UP
	}
	m := message{b: appendIfInfo(make([]byte, 0, 512), s.Index, flags, flags)}
	m.common(s)
	if _, ok := s.Kind.(Veth); ok {
		m.b = s.oneQueue(m.b)
	}
	if s.Parent.Index != 0 {
		m.b = nl.AppendU32(m.b, unix.IFLA_LINK, uint32(s.Parent.Index))
	}
	if o.other != nil {
		o.other.moved = c.peerMoved
	}
	m.kind(o)
	if s.Master.Index != 0 {
		m.b = nl.AppendU32(m.b, unix.IFLA_MASTER, uint32(s.Master.Index))
	}
	create := step{kind: stepCreate, spec: s, compare: m.unsure}
	if c.peerMoved {
		create.fds[inner] = o.other.fd
	}
	if c.moved {
		m.b = nl.AppendU32(m.b, unix.IFLA_NET_NS_FD, 0)
		create.fds[outer] = len(m.b) - 4
	}
	create.reqs = append(make([]nl.Request, 0, 2), nl.Request{
		Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: m.b, Names: namesOf(s.Kind),
	})
	return create
}

func isBridge(k Kind) bool {
	_, ok := k.(Bridge)
	return ok
}

// sendsMLD reports whether the other end of a pair sends MLD reports for its IPv6 addresses as
// it comes up, which a bridge floods to all its ports. The bridge drops them where the
// kernel has noticed before that the port has no carrier, and a request for the link
// makes it notice. On a bridge with many ports the floods cost more than the rest of
// an attachment.
func (s *Spec) sendsMLD() bool { return slices.ContainsFunc(s.Addrs, isIPv6) }

// endPlan is what an end needs after it was made.
type endPlan struct {
	side             side
	spec             *Spec
	common           *fields // what the message that made it leaves undone of the common attributes
	master, up       bool    // whether it leaves that undone
	late             lateAttrs
	addrs, linkLocal []Addr
	read             bool // the link is read at the end in any case
}

func planEnd(at side, s *Spec) endPlan {
	e := endPlan{side: at, spec: s, common: commonNone, late: s.lateAttrs()}
	e.addrs, e.linkLocal = s.newAddrs()
	return e
}

// lateAttrs are the settings that the kernel ignores or refuses in the message that
// makes a link, and that have to be there before the link comes up.
type lateAttrs struct {
	link, slave []byte // attributes
	unsure      bool   // there may be kernels that ignore one of link
	sysctls     []sysctl
	port        bool
}

func (s *Spec) lateAttrs() lateAttrs {
	l := lateAttrs{port: s.Port != (PortOptions{})}
	if s.Alias == "" && s.IPv4 == (IPv4Conf{}) && s.IPv6 == (IPv6Conf{}) && s.BondPort == (BondPort{}) {
		return l
	}
	var link, slave message
	link.late(s)
	slave.slave(s)
	l.link, l.slave, l.unsure, l.sysctls = link.b, slave.b, link.unsure, link.sysctls(s)
	return l
}

func (l *lateAttrs) any() bool {
	return l.port || len(l.link) > 0 || len(l.slave) > 0 || len(l.sysctls) > 0
}

// append appends the steps: what has to be there when the link comes up, then the
// link comes up, then its addresses.
func (e *endPlan) append(steps []step) []step {
	s := e.spec
	if len(e.late.slave) > 0 {
		steps = append(steps, step{kind: stepBond, side: e.side})
	}
	send := step{kind: stepSend, side: e.side, spec: s, common: e.common, reqs: e.settings()}
	if len(e.late.sysctls) > 0 {
		if len(send.reqs) > 0 {
			steps = append(steps, send)
		}
		steps = append(steps, step{kind: stepSysctl, side: e.side, sysctls: e.late.sysctls})
		send.reqs = nil
	}
	send.up, send.prefixes = e.up, s.Addrs
	for i := range e.linkLocal {
		// Before the link comes up: then the kernel would make the same address
		// with detection. One that is there all the same stays.
		send.reqs = append(send.reqs, encodeAddr(0, &e.linkLocal[i], editReplace))
		first := s.Addrs[slices.IndexFunc(s.Addrs, isIPv6)] // it comes with that one
		send.prefixes = slices.Concat([]netip.Prefix{first}, send.prefixes)
	}
	if send.up {
		// Not with the master in one message: before Linux 6.0 the kernel brings
		// the link up first then, and a bond takes only ports that are down.
		send.reqs = append(slices.Grow(send.reqs, 1+len(e.addrs)), setFlags(0, true))
	}
	for i := range e.addrs {
		send.reqs = append(send.reqs, encodeAddr(0, &e.addrs[i], editAdd))
	}
	send.compare = e.late.port || len(e.late.slave) > 0 || e.common != commonNone || e.late.unsure
	if send.read = e.read || send.compare; send.read {
		get := getLink("", 0)
		if s.IPv6.AddrGenMode != nil || s.IPv6.Token.IsValid() {
			get = withStats(get) // without them, Linux 5.10 leaves these two out
		}
		send.reqs = append(send.reqs, get)
	}
	if len(send.reqs) > 0 {
		steps = append(steps, send)
	}
	return steps
}

// settings returns the requests for what has to be there when the link comes up.
func (e *endPlan) settings() (reqs []nl.Request) {
	s := e.spec
	if e.common != commonNone || e.master || len(e.late.link) > 0 {
		m := message{b: appendIfInfo(make([]byte, 0, 128), 0, 0, 0), only: e.common}
		m.common(s)
		if e.master {
			m.b = nl.AppendU32(m.b, unix.IFLA_MASTER, uint32(s.Master.Index))
		}
		reqs = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: append(m.b, e.late.link...), Names: linkNames})
	}
	if len(e.late.slave) > 0 {
		reqs = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: append(appendIfInfo(nil, 0, 0, 0), e.late.slave...), Names: linkNames})
	}
	if e.late.port {
		reqs = append(reqs, setPort(0, &s.Port))
	}
	if len(s.AltNames) > 0 {
		reqs = append(reqs, linkProps(unix.RTM_NEWLINKPROP, 0, s.AltNames))
	}
	return reqs
}
