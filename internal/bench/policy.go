package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/boxwire/boxwire/internal/bench/floor"
	"github.com/boxwire/boxwire/nat"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// rulesOfBox is how many rules each box has, in the rows about many boxes.
const rulesOfBox = 10

// openPeers are the addresses that the last rule of a box is about, openPort the port.
var openPeers = netip.MustParsePrefix("198.18.0.0/16")

const openPort = 9

// policyOf is the policy of the box with an address: ten rules, each of them one element of the
// kernel and one rule of a chain.
func policyOf(box netip.Addr) nat.Policy {
	var allow []nat.Rule
	for i := range rulesOfBox - 1 {
		peer := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})
		allow = append(allow, nat.Rule{Proto: nat.TCP, Peer: netip.PrefixFrom(peer, 32), Port: uint16(8000 + i)})
	}
	allow = append(allow, nat.Rule{Proto: nat.UDP, Peer: openPeers, Port: openPort})
	return nat.Policy{Box: []netip.Addr{box}, Owner: "bench", Egress: &nat.Rules{Allow: allow}}
}

// policiesOf are the policies of so many boxes.
func policiesOf(boxes int) []nat.Policy {
	all := make([]nat.Policy, boxes)
	for i := range all {
		all[i] = policyOf(boxAddr(i).Addr())
	}
	return all
}

// policyNetwork is the network of the boxes.
var policyNetwork = nat.Network{Interface: bridgeName, Subnets: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/16")}}

// police gives a namespace the library's table, with a network and policies.
func police(ctx context.Context, ns *netns.NS, policies []nat.Policy) (*nat.NAT, error) {
	gw, err := nat.Open(ctx, ns, nat.Options{NoReserve: true})
	if err != nil {
		return nil, err
	}
	if err := gw.Sync(ctx, nat.State{Networks: []nat.Network{policyNetwork}, Policies: policies}); err != nil {
		gw.Close()
		return nil, err
	}
	return gw, nil
}

// A policyTable is a namespace whose tables a contender changes.
type policyTable struct {
	ns   *netns.NS
	sock *floor.Socket
	gw   *nat.NAT // nil without the library's table
}

func newPolicyTable(ctx context.Context) (t *policyTable, err error) {
	t = &policyTable{}
	if t.ns, err = netns.New(ctx); err == nil {
		t.sock, err = openFloor(t.ns, unix.NETLINK_NETFILTER)
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func (t *policyTable) close() (err error) {
	if t.gw != nil {
		err = t.gw.Close()
	}
	if t.sock != nil {
		err = errors.Join(err, t.sock.Close())
	}
	return errors.Join(err, t.ns.Close())
}

// policySets are the sets of the library's table that IPv4 policies have elements in.
var policySets = []string{"policy4", "refuse4", "egress4", "denied_out4", "out4", "host4"}

// elements counts the elements of all policies in the library's table.
func (t *policyTable) elements() (sum int, err error) {
	for _, set := range policySets {
		n, err := t.sock.CountElements(nftTable, set)
		if err != nil {
			return 0, fmt.Errorf("set %s: %w", set, err)
		}
		sum += n
	}
	return sum, nil
}

// ruleKey is the key of the element that the library makes of the last rule of policyOf: box,
// protocol, port, prefix, and its length with the class of a single port, 0.
func ruleKey(box netip.Addr) []byte {
	a, peer := box.As4(), openPeers.Addr().As4()
	key := append(a[:], byte(nat.UDP), 0, 0, 0, 0, openPort, 0, 0)
	return append(append(key, peer[:]...), binary.NativeEndian.AppendUint32(nil, uint32(openPeers.Bits()))...)
}

// The floor adds elements to a set of a table that has nothing else. The keys are as long as those
// of a rule.
const (
	floorTable = "floor"
	floorSet   = "elements"
	ruleKeyLen = 20
)

// floorElements are the elements of some boxes in the floor's set.
func floorElements(first, boxes, each int) floor.Elements {
	e := floor.Elements{Set: floorSet}
	for i := range boxes {
		box := boxAddr(first + i).Addr().As4()
		for j := range each {
			key := make([]byte, ruleKeyLen)
			copy(key, box[:])
			binary.BigEndian.PutUint32(key[12:], uint32(j))
			e.Keys = append(e.Keys, key)
		}
	}
	return e
}

// fill makes the floor's table, with the elements of some boxes.
func (t *policyTable) fill(boxes, each int) error {
	if err := t.sock.Batch(floor.NewSet(floorTable, floorSet, ruleKeyLen)); err != nil {
		return err
	}
	const atOnce = 500 // boxes
	for first := 0; first < boxes; first += atOnce {
		some := floorElements(first, min(atOnce, boxes-first), each)
		if err := t.sock.Batch(floor.Batch(floorTable, true, some)); err != nil {
			return err
		}
	}
	return nil
}

// timed is a contender's round of a change that another one undoes, with a look in between.
func timed(change func(context.Context) error, after ...func(context.Context) error) func(context.Context, int) (time.Duration, error) {
	return func(ctx context.Context, _ int) (time.Duration, error) {
		d, err := took(func() error { return change(ctx) })
		for _, fn := range after {
			if err == nil {
				err = fn(ctx)
			}
		}
		return d, err
	}
}
