package nfttext

import (
	"time"

	"golang.org/x/sys/unix"
)

// Ruleset is what nftables has in a namespace.
type Ruleset struct{ Tables []*Table }

// Table is a table with all that is in it.
type Table struct {
	Family     byte // unix.NFPROTO_INET, ...
	Name       string
	Dormant    bool
	Comment    string
	Sets       []*Set // without those that one rule has for itself
	Chains     []*Chain
	Objects    []Object
	FlowTables []FlowTable

	sets   map[string]*Set // all of them
	chains map[string]*Chain
}

// Chain is a chain with its rules.
type Chain struct {
	Family   byte
	Table    string
	Name     string
	Type     string // "filter", "nat" or "route"; "" for a chain without a hook
	Hook     uint32
	Priority int32
	Devices  []string // of the families netdev and inet, at the ingress and egress
	Drop     bool     // the policy is to drop
	Comment  string
	Rules    []Rule
}

// Rule is a rule of a chain, with its expressions in order.
type Rule struct {
	Table, Chain string
	Handle       uint64
	Exprs        []Expr
	Comment      string
}

// Expr is one expression of a rule: its name and its attributes (NFTA_EXPR_DATA).
type Expr struct {
	Name string
	Data []byte
}

// Set is a set or a map.
type Set struct {
	Table, Name   string
	Flags         uint32      // unix.NFT_SET_INTERVAL, ...
	Key, Data     []*datatype // Data is nil unless it is a map with data
	Verdicts      bool        // it is a map to verdicts
	Object        uint32      // it is a map to objects of this type; else 0
	Timeout, GC   time.Duration
	Size          uint32
	Memory        bool // the policy is to save memory
	AutoMerge     bool
	Comment       string
	Exprs         []Expr // that every element has
	Elements      []Element
	keyLen        uint32
	keyOrder      order
	dataOrder     order
	dataRange     bool   // data is a range: the first and the last value
	keyOf, dataOf string // what expressions they are like, where nft says that and no type
}

func (s *Set) isMap() bool { return s.Verdicts || s.Object != 0 || s.Flags&unix.NFT_SET_MAP != 0 }

// Element is an element of a set.
type Element struct {
	Key, KeyEnd []byte
	Data        []byte
	Verdict     []byte // the attributes of the verdict (NFTA_DATA_VERDICT)
	Object      string
	End         bool // the interval that began below ends here
	Any         bool // it holds what no other one does
	Timeout     time.Duration
	Expires     time.Duration
	Comment     string
	Exprs       []Expr
}

// Object is a named counter, quota, ...
type Object struct {
	Table, Name string
	Type        uint32 // NFT_OBJECT_COUNTER, ...
	Data        []byte // the attributes of its expression
	Comment     string
}

// FlowTable is a flow table.
type FlowTable struct {
	Table, Name string
	Hook        uint32
	Priority    int32
	Devices     []string
	Flags       uint32
}

// FamilyName is nft's word for a family: "inet".
func FamilyName(family byte) string {
	switch family {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	case unix.NFPROTO_ARP:
		return "arp"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	}
	return "unknown"
}
