//go:build linux

package main

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/boxwire/boxwire/netns"
	"github.com/miekg/dns"
)

const (
	// maxQueries bounds how many queries are answered at the same time. Others fail.
	maxQueries = 256

	// maxRefused bounds how many refused names are remembered.
	maxRefused = 1000

	// patience is how long a query may take.
	patience = 8 * time.Second
)

// forwarder answers the box's DNS queries: those for allowed names as the host's resolvers do, and
// the others with REFUSED.
type forwarder struct {
	allow   *allowed
	minTTL  time.Duration
	grants  *grants
	resolve func(ctx context.Context, q dns.Question) (*dns.Msg, error)
	turns   chan struct{}

	mu      sync.Mutex
	refused map[string]int // how often, by name
	others  int            // refused queries of further names
}

func newForwarder(o *options, b *box, host *netns.NS) *forwarder {
	up := upstream{host: host, servers: o.resolvers}
	return &forwarder{
		allow: &o.allow, minTTL: o.minTTL, grants: &grants{gw: b.gw, box: b.addrs, until: map[grant]time.Time{}},
		resolve: up.resolve, turns: make(chan struct{}, maxQueries), refused: map[string]int{},
	}
}

// serve answers queries from within the box's namespace, until stop is called. The box thus needs
// no way to the host, and the host's own resolvers keep their port.
func (f *forwarder) serve(ctx context.Context, box *netns.NS) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	packets, err := box.ListenPacket(ctx, "udp", resolverAddr)
	if err != nil {
		cancel()
		return nil, err
	}
	stream, err := box.Listen(ctx, "tcp", resolverAddr)
	if err != nil {
		packets.Close()
		cancel()
		return nil, err
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := f.inTurn(ctx, q)
		if q.IsEdns0() != nil {
			a.SetEdns0(maxPacket, false)
		}
		a.Truncate(room(q, w.RemoteAddr()))
		w.WriteMsg(a) // a box that does not wait for it gets none
	})
	var wg sync.WaitGroup
	servers := []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: stream, Handler: handler, MaxTCPQueries: -1}}
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() { s.ActivateAndServe() })
		<-started
	}
	return func() {
		cancel()
		for _, s := range servers {
			s.Shutdown()
		}
		wg.Wait()
	}, nil
}

// inTurn answers a query, unless too many are being answered.
func (f *forwarder) inTurn(ctx context.Context, q *dns.Msg) *dns.Msg {
	select {
	case f.turns <- struct{}{}:
		defer func() { <-f.turns }()
	default:
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f.answer(ctx, q)
}

// room is how many bytes an answer may have.
func room(q *dns.Msg, asker net.Addr) int {
	if _, tcp := asker.(*net.TCPAddr); tcp {
		return dns.MaxMsgSize
	}
	if o := q.IsEdns0(); o != nil {
		return int(o.UDPSize())
	}
	return dns.MinMsgSize
}

// answer answers a query. What the answer names is open when it returns.
func (f *forwarder) answer(ctx context.Context, q *dns.Msg) *dns.Msg {
	a := new(dns.Msg)
	if q.Opcode != dns.OpcodeQuery {
		return a.SetRcode(q, dns.RcodeNotImplemented)
	}
	if len(q.Question) != 1 {
		return a.SetRcode(q, dns.RcodeFormatError)
	}
	name := normalName(q.Question[0].Name)
	ports := f.allow.ports(name)
	if len(ports) == 0 || q.Question[0].Qclass != dns.ClassINET {
		f.refuse(name)
		return a.SetRcode(q, dns.RcodeRefused)
	}
	up, err := f.resolve(ctx, q.Question[0])
	if err != nil {
		return a.SetRcode(q, dns.RcodeServerFailure)
	}
	a.SetRcode(q, up.Rcode)
	a.RecursionAvailable = true
	records, addrs, ttl := chain(name, up.Answer)
	a.Answer = records
	for _, rr := range up.Ns {
		if _, ok := rr.(*dns.SOA); ok { // says how long the box may remember that there is nothing
			a.Ns = append(a.Ns, rr)
		}
	}
	if err := f.grants.add(ctx, addrs, ports, max(ttl, f.minTTL)); err != nil {
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	return a
}

// refuse notes a query that was refused.
func (f *forwarder) refuse(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.refused[name]; !ok && len(f.refused) == maxRefused {
		f.others++
		return
	}
	f.refused[name]++
}
