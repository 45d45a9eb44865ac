package link

import (
	"net"
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

	reqs     []nl.Request     // create: the message, and a question in the same send; send: all of them
	fds      [2]int           // create: where the descriptor of a side's namespace stands in the message; 0: nowhere
	device   *device          // tun
	echoed   echoed           // read: when the echo makes a request superfluous
	expected *expectation     // create, read, send: nil if no kernel ignores any of it
	read     bool             // send: the last request reads the link
	up       bool             // send: it brings the link up
	prefixes []netip.Prefix   // send: the addresses among reqs, in order
	altNames []string         // send: those among reqs
	port     *PortOptions     // send: those among reqs
	sysctls  []sysctl         // sysctl
	addrs    []netip.Addr     // wait
	mac      net.HardwareAddr // MAC
}

type stepKind uint8

const (
	stepCreate  stepKind = iota // sends the message that makes the link
	stepTun                     // makes a TUN or TAP device by ioctls
	stepPersist                 // makes the device stay without a descriptor
	stepRead                    // reads the link that was made, for its index
	stepBond                    // refuses a master that is no bond
	stepSend                    // sends what the message that made the link cannot do
	stepMAC                     // gives a TAP device its address again
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

// conditions are what a plan depends on besides the spec.
type conditions struct {
	moved     bool // the link is made in another namespace than that of the message
	peerMoved bool // so is the other end of a pair
	joinsDown bool // the kernel refuses to make a link that is up a port of this master
}

// plan returns the steps that make a link. It is a pure function: all that a kernel may
// answer is in the steps' conditions.
//
// o are the options of the kind.
func plan(s *Spec, o *options, c conditions) []step {
	steps := make([]step, 0, 4)
	ends := make([]endPlan, 1, 2)
	ends[0] = planEnd(outer, s)
	if p := o.peer(); p != nil {
		ends = append(ends, planEnd(inner, p))
		ends[1].join, ends[1].raise = p.Master.Index != 0, p.Up
	}
	switch k := s.Kind.(type) {
	case Tun:
		steps = planTun(steps, &ends[0], &device{name: s.Name, kind: k, create: true, index: s.Index, mac: s.MAC})
	case Bridge:
		if s.MTU != 0 {
			ends[0].changeMTU(s.MTU)
		}
		steps = planCreate(steps, &ends[0], o, c)
	default:
		steps = planCreate(steps, &ends[0], o, c)
	}
	for i := range ends {
		steps = ends[i].append(steps)
	}
	for i := range ends {
		e := &ends[i]
		if addrs := nodad(e.linkLocal, e.addrs); e.up && len(addrs) > 0 {
			steps = append(steps, step{kind: stepWait, side: e.side, addrs: addrs})
		}
	}
	return steps
}

// endPlan is what a spec asks for one end.
type endPlan struct {
	side          side
	index, parent int // of the link itself
	master        int
	up            bool
	set           settings
	port          *PortOptions // nil: none are set
	late          bool         // set or port has something that must be there before the link comes up

	altNames         []string
	prefixes         []netip.Prefix
	addrs, linkLocal []Addr // of prefixes, and that which goes with them

	// What the message that makes the link leaves undone: common settings, those of
	// them that the kernel has to show afterwards, joining the master, coming up.
	rest, shown []field
	join, raise bool

	mac  net.HardwareAddr // of a TAP device, which another program may replace
	read bool             // the link is read at the end in any case
}

// planEnd takes from the spec of an end what the steps need.
func planEnd(at side, s *Spec) endPlan {
	e := endPlan{
		side: at, index: s.Index, parent: s.Parent.Index, master: s.Master.Index, up: s.Up,
		set: s.settings(), altNames: s.AltNames, prefixes: s.Addrs,
	}
	if s.Port != (PortOptions{}) {
		e.port = &s.Port
	}
	e.late = e.port != nil || e.set.haveLate()
	for _, p := range s.Addrs {
		e.addrs = append(e.addrs, newAddr(p, s.DAD))
	}
	if s.DAD || s.IPv6.AddrGenMode != nil && *s.IPv6.AddrGenMode != AddrGenEUI64 {
		return e
	}
	if p, ok := linkLocal(s.MAC, s.Addrs); ok {
		e.linkLocal = []Addr{newAddr(p, false)}
	}
	return e
}

// changeMTU has a bridge made with another MTU than its own, and then changed: its MTU
// follows its ports unless it was ever changed.
func (e *endPlan) changeMTU(mtu int) {
	other := mtu - 1
	if other < minMTU {
		other = minMTU + 1
	}
	list := e.set.common()
	i := slices.IndexFunc(list, func(f field) bool { return f.typ == unix.IFLA_MTU })
	e.rest = []field{list[i]}
	e.shown = e.rest
	list[i].value = &other
}

// planTun plans the ioctls that make a TUN or TAP device, and the reading of it. They set
// its name alone.
func planTun(steps []step, e *endPlan, d *device) []step {
	steps = append(steps, step{kind: stepTun, device: d}, step{kind: stepRead})
	if d.kind.Persist { // once nothing else of it can fail
		steps = append(steps, step{kind: stepPersist})
	}
	e.join, e.raise, e.read = e.master != 0, e.up, true
	e.mac = d.mac
	e.rest = slices.Clone(e.set.common())    // a slice of e itself would move it to the heap
	e.shown = e.ownToShow(unix.IFLA_ADDRESS) // see keepMAC
	return steps
}

// ownToShow returns the common settings, without some and without those that a port's
// master may change.
func (e *endPlan) ownToShow(but ...uint16) []field {
	if e.master != 0 {
		but = append(but, unix.IFLA_ADDRESS, unix.IFLA_MTU)
	}
	return without(e.set.common(), but...)
}

// planCreate plans the message that makes the link and the reading of it.
//
// The kernel shows a new link in an echo (>= 6.2). That saves more than a request:
// since 6.14 a request for a link makes the kernel work off that link's changes of
// carrier first, and an end of a pair whose other end is down has just lost its.
func planCreate(steps []step, e *endPlan, o *options, c conditions) []step {
	// The kernel brings a new link up before it looks at a later message.
	e.raise = e.up && (c.joinsDown || e.late || len(e.linkLocal) > 0)
	e.read = e.raise && o.peer() == nil // without another end, it may have its carrier by now
	create := newLink(e, o, c)
	read := step{kind: stepRead, expected: create.expected, echoed: echoAlways}
	switch p := o.peer(); {
	case c.moved, e.master != 0 && p != nil && sendsMLD(p.Addrs):
		// The echo would show the link before it moved.
		read.echoed = echoNever
	case e.master != 0:
		create.reqs, read.echoed = append(create.reqs, getLink("", e.master)), echoOfBridgePort
	}
	if read.echoed != echoNever {
		create.reqs[0].Flags |= unix.NLM_F_ECHO
	}
	return append(steps, create, read)
}

// newLink builds the message that makes the link. The descriptors of the namespaces are
// filled in when it is sent.
func newLink(e *endPlan, o *options, c conditions) step {
	var flags uint32
	if e.up && !e.raise {
		flags = unix.IFF_UP
	}
	m := message{b: appendIfInfo(make([]byte, 0, 512), e.index, flags, flags)}
	m.put(placeLink, e.set.common())
	if _, ok := o.kind.(*Veth); ok {
		m.oneQueue()
	}
	if e.parent != 0 {
		m.b = nl.AppendU32(m.b, unix.IFLA_LINK, uint32(e.parent))
	}
	if o.other != nil {
		o.other.moved = c.peerMoved
	}
	m.kind(o)
	if e.master != 0 {
		m.b = nl.AppendU32(m.b, unix.IFLA_MASTER, uint32(e.master))
	}
	create := step{kind: stepCreate}
	if m.unsure {
		create.expected = &expectation{kind: o.kind}
		create.expected.fields[placeLink], create.expected.fields[placeData] = e.ownToShow(), o.fields
	}
	if c.peerMoved {
		create.fds[inner] = o.other.fd
	}
	if c.moved {
		m.b = nl.AppendU32(m.b, unix.IFLA_NET_NS_FD, 0)
		create.fds[outer] = len(m.b) - 4
	}
	create.reqs = append(make([]nl.Request, 0, 2), nl.Request{
		Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: m.b, Names: namesOf(o.kind),
	})
	return create
}

// sendsMLD reports whether an end of a pair sends MLD reports for its addresses as it comes
// up, which a bridge floods to all its ports. The bridge drops them where the kernel has
// noticed before that the port has no carrier, and a request for the link makes it notice.
// On a bridge with many ports the floods cost more than the rest of an attachment.
func sendsMLD(addrs []netip.Prefix) bool { return slices.ContainsFunc(addrs, isIPv6) }

// append appends the steps: what has to be there when the link comes up, then the
// link comes up, then its addresses.
func (e *endPlan) append(steps []step) []step {
	if anySet(e.set.bondPort) {
		steps = append(steps, step{kind: stepBond, side: e.side})
	}
	send := step{kind: stepSend, side: e.side, altNames: e.altNames, port: e.port}
	reqs, unsure := e.requests()
	send.reqs = reqs
	if sysctls := new(message).sysctls(&e.set); len(sysctls) > 0 {
		if len(send.reqs) > 0 {
			steps = append(steps, send)
		}
		steps = append(steps, step{kind: stepSysctl, side: e.side, sysctls: sysctls})
		send.reqs = nil
	}
	send.up, send.prefixes = e.raise, e.prefixes
	for i := range e.linkLocal {
		// Before the link comes up: then the kernel would make the same address
		// with detection. One that is there all the same stays.
		send.reqs = append(send.reqs, encodeAddr(0, &e.linkLocal[i], editReplace))
		first := e.prefixes[slices.IndexFunc(e.prefixes, isIPv6)] // it comes with that one
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
	if unsure {
		send.expected = e.expected()
	}
	if send.read = e.read || unsure; send.read {
		get := getLink("", 0)
		if anySet(e.set.ipv6) {
			get = withStats(get) // without them, Linux 5.10 leaves these two out
		}
		send.reqs = append(send.reqs, get)
	}
	if len(send.reqs) > 0 {
		steps = append(steps, send)
	}
	if len(e.mac) > 0 {
		steps = append(steps, step{kind: stepMAC, side: e.side, mac: e.mac})
	}
	return steps
}

// requests returns those for what has to be there when the link comes up. unsure says
// that there may be kernels that ignore some of it.
func (e *endPlan) requests() (reqs []nl.Request, unsure bool) {
	if e.rest != nil || e.join || e.late {
		m := message{b: appendIfInfo(make([]byte, 0, 128), 0, 0, 0)}
		m.put(placeLink, e.rest)
		if e.join {
			m.b = nl.AppendU32(m.b, unix.IFLA_MASTER, uint32(e.master))
		}
		m.late(&e.set)
		if len(m.b) > unix.SizeofIfInfomsg {
			reqs = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames})
		}
		unsure = e.rest != nil || m.unsure
	}
	if anySet(e.set.bondPort) {
		m := message{b: appendIfInfo(nil, 0, 0, 0)}
		m.slave(&e.set)
		reqs, unsure = append(reqs, nl.Request{Type: unix.RTM_NEWLINK, Body: m.b, Names: linkNames}), true
	}
	if e.port != nil {
		reqs, unsure = append(reqs, setPort(0, e.port)), true
	}
	if len(e.altNames) > 0 {
		reqs = append(reqs, linkProps(unix.RTM_NEWLINKPROP, 0, e.altNames))
	}
	return reqs, unsure
}

// expected returns what the kernel has to show of these requests.
func (e *endPlan) expected() *expectation {
	x := expectation{port: e.port}
	x.fields[placeLink] = slices.Concat(e.shown, e.set.alias())
	x.fields[placeIPv4], x.fields[placeIPv6], x.fields[placeSlave] = e.set.ipv4, e.set.ipv6, e.set.bondPort
	return &x
}
