package nat

import (
	"strings"
	"sync"
	"time"

	"github.com/boxwire/boxwire/internal/nft"
)

// policySets are the names of the sets of one family that policies have elements in.
type policySets struct {
	policy    string // the records: what the caller has given, in pieces
	refuse    string // boxes whose policy has Refuse
	hostRules string
	grant     string

	out, in policyDirection
}

// policyDirection are the names of the sets of one direction.
type policyDirection struct {
	in      bool
	limited string // the boxes whose direction is limited
	denied  string // the same boxes, with a counter of what was denied
	rules   string
	tried   string // which packets were denied
	chain   string // the chain that looks new connections up
	deny    string // the chain that denies
}

// directions are Egress and Ingress.
func (s *policySets) directions() [2]*policyDirection { return [2]*policyDirection{&s.out, &s.in} }

func newPolicySets(digit string) policySets {
	direction := func(name, short string, in bool) policyDirection {
		return policyDirection{
			in: in, limited: name + digit, denied: "denied_" + short + digit, rules: short + digit,
			tried: "tried_" + short + digit, chain: name + digit, deny: "deny_" + short,
		}
	}
	return policySets{
		policy: "policy" + digit, refuse: "refuse" + digit, hostRules: "host" + digit, grant: "grant" + digit,
		out: direction("egress", "out", false), in: direction("ingress", "in", true),
	}
}

// Limits of the record of denied packets.
const (
	maxTried = 8192 // elements a set
	triedFor = time.Hour
)

// sets returns the sets of a family.
func (f *family46) sets() []nft.Set {
	addr := typeAddr4
	if f.v6 {
		addr = typeAddr6
	}
	fields := func(fields ...nft.Field) []nft.Field { return fields }
	flow := fields(addr, addr, typeProto, typePort)
	rule := fields(addr, typeProto, typePort, addr, typeMark)
	sets := []nft.Set{
		{Name: f.policy, Key: fields(addr, typeMark)},
		{Name: f.refuse, Key: fields(addr)},
		{Name: f.hostRules, Key: fields(addr, typeProto, typePort, typeMark)},
		{Name: f.grant, Key: rule, Timeouts: true},
	}
	for _, d := range f.directions() {
		sets = append(sets,
			nft.Set{Name: d.limited, Key: fields(addr)},
			nft.Set{Name: d.denied, Key: fields(addr), Counter: true},
			nft.Set{Name: d.rules, Key: rule, Verdicts: true},
			nft.Set{Name: d.tried, Key: flow, Dynamic: true, Size: maxTried, Timeouts: true, Timeout: triedFor})
	}
	return sets
}

// policySetNames are the names of the sets that the policies' part of the table has.
var policySetNames = sync.OnceValue(func() (names []string) {
	for _, f := range families {
		for _, s := range f.sets() {
			names = append(names, s.Name)
		}
	}
	return names
})

// isGrant reports whether a set has grants.
func isGrant(set string) bool { return set == families[0].grant || set == families[1].grant }

// isRecord reports whether a set has records of policies.
func isRecord(set string) bool { return strings.HasPrefix(set, "policy") }
