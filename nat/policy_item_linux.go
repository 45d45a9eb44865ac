package nat

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"unicode/utf8"

	"github.com/boxwire/boxwire/internal/nft"
	"github.com/boxwire/boxwire/internal/refuse"
)

// policies are policies by each of their addresses.
type policies map[netip.Addr]Policy

// policiesOf returns the policies that the records among the items say. A record that is not
// whole, or that another program wrote, is an error.
func policiesOf(items []item) (policies, error) {
	records := make(map[netip.Addr]map[uint32]string)
	for _, it := range items {
		if !isRecord(it.set) {
			continue
		}
		a, i, ok := familyOfSet(it.set).recordKey(it.elem.Key)
		if !ok {
			return nil, fmt.Errorf("set %s: malformed element: a key of %d bytes", it.set, len(it.elem.Key))
		}
		if records[a] == nil {
			records[a] = make(map[uint32]string)
		}
		records[a][i] = it.elem.Comment
	}
	all := make(policies, len(records))
	for a, pieces := range records {
		text := ""
		for i := range len(pieces) {
			text += pieces[uint32(i)]
		}
		p, err := parseRecord(text)
		if err == nil && !slices.Contains(p.Box, a) {
			err = fmt.Errorf("it is of %v", p.Box)
		}
		if err != nil {
			return nil, fmt.Errorf("the policy of %v: %w", a, err)
		}
		all[a] = p
	}
	return all, nil
}

// recordKey returns the address and the number of the piece in a key of a record.
func (f *family46) recordKey(key []byte) (a netip.Addr, i uint32, ok bool) {
	n := int(f.size())
	if len(key) != n+4 {
		return a, 0, false
	}
	a, _ = netip.AddrFromSlice(key[:n])
	return a, binary.NativeEndian.Uint32(key[n:]), true
}

// policyItems returns the elements of a checked policy for one of its addresses. Only this function
// makes elements of a Policy.
func (p Policy) policyItems(a netip.Addr) (items []item, err error) {
	f, box := familyOf(a), a.AsSlice()
	if err := p.checkElements(a); err != nil {
		return nil, err
	}
	add := func(set string, e nft.Element) { items = append(items, item{set, e}) }
	for i, text := range chunks(p.record()) {
		add(f.policy, nft.Element{Key: slices.Concat(box, host32(uint32(i))), Comment: text})
	}
	if p.Refuse {
		add(f.refuse, nft.Element{Key: box})
	}
	for _, d := range f.directions() {
		rs := p.Egress
		if d.in {
			rs = p.Ingress
		}
		if rs == nil {
			continue
		}
		items = slices.Grow(items, len(rs.Allow)+2)
		add(d.limited, nft.Element{Key: box})
		add(d.denied, nft.Element{Key: box})
		for k, decisions := range rs.compile(f.v6) {
			for _, dec := range decisions {
				e := nft.Element{Key: ruleKey(box, k, dec.prefix), Verdict: nft.VerdictContinue}
				if dec.allow {
					e.Verdict = nft.VerdictReturn
				}
				add(d.rules, e)
			}
			if len(items) > maxPolicyElements {
				return nil, errManyElements(a)
			}
		}
		for k := range rs.hostKeys(f.v6) {
			add(f.hostRules, nft.Element{Key: hostKey(box, k)})
		}
	}
	if len(items) > maxPolicyElements {
		return nil, errManyElements(a)
	}
	return items, nil
}

// checkElements refuses rules that take too many elements, before they are made.
func (p Policy) checkElements(a netip.Addr) error {
	sum := 0
	for _, rs := range []*Rules{p.Egress, p.Ingress} {
		if rs == nil {
			continue
		}
		for _, r := range rs.Allow {
			if r.of(a.Is6()) {
				sum += r.elements(a.Is6())
			}
			if sum > maxPolicyElements {
				return errManyElements(a)
			}
		}
	}
	return nil
}

func errManyElements(a netip.Addr) error {
	return refuse.Input("the rules take more than %d elements of the kernel for %v; ranges of ports and odd lengths of prefixes take several each", maxPolicyElements, a)
}

// hostKeys returns the keys of the rules about the host.
func (rs Rules) hostKeys(v6 bool) map[portKey]bool {
	keys := make(map[portKey]bool)
	for _, r := range rs.Allow {
		if r.Host {
			for k := range r.keys(v6) {
				keys[k] = true
			}
		}
	}
	return keys
}

// ruleKey is the key of an element of a rule: box, protocol, port, peer, and class with length.
func ruleKey(box []byte, k portKey, peer netip.Prefix) []byte {
	key := make([]byte, 0, 2*len(box)+12)
	key = appendPortKey(append(key, box...), k)
	if a := peer.Addr(); a.Is4() {
		four := a.As4()
		key = append(key, four[:]...)
	} else {
		six := a.As16()
		key = append(key, six[:]...)
	}
	return binary.NativeEndian.AppendUint32(key, k.form(peer.Bits()))
}

// hostKey is the key of an element of a rule about the host: box, protocol, port and class.
func hostKey(box []byte, k portKey) []byte {
	return append(appendPortKey(slices.Clip(slices.Clone(box)), k), host32(k.form(0))...)
}

// appendPortKey appends protocol and port, each padded to 4 bytes.
func appendPortKey(key []byte, k portKey) []byte {
	key = append(key, k.proto, 0, 0, 0)
	key = binary.BigEndian.AppendUint16(key, k.port)
	return append(key, 0, 0)
}

// items returns the elements of the policies, each for its address.
func (ps policies) items() ([]item, error) {
	var all []item
	for a, p := range ps {
		items, err := p.policyItems(a)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
	}
	return all, nil
}

// list returns each policy once, sorted by its first address.
func (ps policies) list() []Policy {
	var all []Policy
	for a, p := range ps {
		if p.Box[0] == a {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b Policy) int { return a.Box[0].Compare(b.Box[0]) })
	return all
}

// policedItems are the elements that say that a network has addresses with a policy, and how many.
// The rules look in policed, whose element stays while the number changes: before Linux 6.17 a
// lookup may miss an element that is replaced (commit b2f742c846ca of the kernel).
func policedItems(iface string, addrs uint32) []item {
	if addrs == 0 {
		return nil
	}
	return []item{{"policed", nft.Element{Key: ifname(iface)}}, {"policed_addrs", nft.Element{Key: ifname(iface), Data: host32(addrs)}}}
}

// addrsOf returns the number in an element of policed_addrs; 0 for none.
func addrsOf(e *nft.Element) uint32 {
	if e == nil || len(e.Data) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(e.Data)
}

// readPolicies reads the records of addresses: nil for one without a policy. Its cost does not depend
// on the number of other policies.
func (n *NAT) readPolicies(ctx context.Context, c nft.Conn, addrs ...netip.Addr) (policies, error) {
	const atOnce = 4 // pieces
	var items []item
	for first := uint32(0); len(addrs) > 0; first += atOnce {
		var ask []nft.Query
		for _, a := range addrs {
			for i := first; i < first+atOnce; i++ {
				ask = append(ask, nft.Query{Set: familyOf(a).policy, Key: slices.Concat(a.AsSlice(), host32(i))})
			}
		}
		found, err := c.Lookup(ctx, n.table, ask...)
		if err != nil {
			return nil, err
		}
		var more []netip.Addr
		for i, e := range found {
			if e == nil {
				continue
			}
			items = append(items, item{ask[i].Set, *e})
			if i%atOnce == atOnce-1 {
				more = append(more, addrs[i/atOnce])
			}
		}
		addrs = more
	}
	return policiesOf(items)
}

// policyNetworks returns the interface of the network that each address is in, "" for none.
func (n *NAT) policyNetworks(ctx context.Context, c nft.Conn, addrs []netip.Addr) ([]string, error) {
	ask := make([]nft.Query, len(addrs))
	for i, a := range addrs {
		f := familyOf(a)
		ask[i] = nft.Query{Set: f.nets, Key: slices.Concat(a.AsSlice(), f.etherType())}
	}
	found, err := c.Lookup(ctx, n.table, ask...)
	ifaces := make([]string, len(addrs))
	for i, e := range found {
		if e != nil {
			ifaces[i] = e.Comment
		}
	}
	return ifaces, err
}

// readAllPolicies reads the policies of the table with their counters.
func (n *NAT) readAllPolicies(ctx context.Context, c nft.Conn) ([]PolicyState, error) {
	items, err := n.readPart(ctx, c, func(f *family46) []string { return []string{f.policy, f.out.denied, f.policySets.in.denied} })
	if err != nil {
		return nil, err
	}
	ps, err := policiesOf(items)
	if err != nil {
		return nil, err
	}
	denied := make(map[setKey]uint64)
	for _, it := range items {
		denied[it.setKey()] = it.elem.Packets
	}
	var all []PolicyState
	for _, p := range ps.list() {
		s := PolicyState{Policy: p}
		for _, a := range p.Box {
			f := familyOf(a)
			s.DeniedOut += denied[setKey{set: f.out.denied, key: string(a.AsSlice())}]
			s.DeniedIn += denied[setKey{set: f.policySets.in.denied, key: string(a.AsSlice())}]
		}
		all = append(all, s)
	}
	return all, nil
}

// readPart reads sets of the part of the table for policies; none where the table lacks it.
func (n *NAT) readPart(ctx context.Context, c nft.Conn, sets func(*family46) []string) ([]item, error) {
	there, err := c.HasSet(ctx, n.table, families[0].policy)
	if err != nil || !there {
		return nil, err
	}
	var names []string
	for _, f := range families {
		names = append(names, sets(f)...)
	}
	return n.readItems(ctx, c, names...)
}

// chunks splits a text into comments of elements.
func chunks(text string) (all []string) {
	for len(text) > nft.MaxComment {
		n := nft.MaxComment
		for n > nft.MaxComment-utf8.UTFMax && !utf8.RuneStart(text[n]) {
			n--
		}
		all, text = append(all, text[:n]), text[n:]
	}
	return append(all, text)
}
