package nl

// A Guard watches the changes of a table while a dump reads it, and says when the
// dump has to be read again. [SplitGuard] is one.
type Guard interface {
	begin()                               // a try begins
	watches() []uint32                    // the multicast groups of the changes
	barrier() *Request                    // may be nil
	boundary(last Message) (invalid bool) // a datagram ended with this entry, and more follow
	resume(first Message)                 // the next datagram begins with this one
	change(notice Message) (invalid bool) // an event arrived
}

// A SplitGuard is for tables that the kernel dumps without NLM_F_DUMP_INTR. One
// reply datagram holds as many entries as fit. The kernel holds the lock of the
// table while it fills a datagram, and releases it between two. It remembers no
// entry, but a position: how many entries of a part of the table it has dumped.
//
//	first datagram         boundary         second datagram
//	[ a | b | c | d ]                       [ e | f | g | DONE ]
//	                "4 of this part are done"
//	                delete b   ->           [ f | g | DONE ]          e is missing
//	                insert x before a ->    [ d | e | f | g | DONE ]  d comes twice
//
// So a dump is invalid if a part of the table has both a boundary and a change. A
// change in a part that came in one datagram does no harm. The order of the two
// does not count: the socket queues the event of a change between the datagrams, and
// the kernel may notify it late.
//
// K names the part: that within which the kernel counts.
type SplitGuard[K comparable] struct {
	Groups []uint32 // the multicast groups that notify the changes

	// Boundary returns the part in which the last entry of a datagram is, and Change
	// that of a change. ok is false for what makes no dump invalid.
	Boundary, Change func(m Message) (k K, ok bool)

	// Continue is called when the datagram behind a boundary goes on in the same part.
	// It may be nil.
	Continue func(k K)

	// Barrier is sent at the end of a dump that had a boundary. It must be a request
	// that the kernel answers only after the changes under way, and after their
	// events. It may be nil.
	Barrier *Request

	boundaries, changes map[K]bool
	at                  K    // where the last boundary is,
	atPart              bool // if that is in a part
}

func (g *SplitGuard[K]) begin()            { g.boundaries, g.changes, g.atPart = nil, nil, false }
func (g *SplitGuard[K]) watches() []uint32 { return g.Groups }
func (g *SplitGuard[K]) barrier() *Request { return g.Barrier }

func (g *SplitGuard[K]) boundary(last Message) (invalid bool) {
	if g.at, g.atPart = g.Boundary(last); !g.atPart {
		return false
	}
	mark(&g.boundaries, g.at)
	return g.changes[g.at]
}

func (g *SplitGuard[K]) resume(first Message) {
	if g.Continue == nil || !g.atPart {
		return
	}
	if k, ok := g.Boundary(first); ok && k == g.at {
		g.Continue(k)
	}
}

func (g *SplitGuard[K]) change(notice Message) (invalid bool) {
	k, ok := g.Change(notice)
	if !ok {
		return false
	}
	mark(&g.changes, k)
	return g.boundaries[k]
}

func mark[K comparable](set *map[K]bool, k K) {
	if *set == nil {
		*set = map[K]bool{}
	}
	(*set)[k] = true
}
