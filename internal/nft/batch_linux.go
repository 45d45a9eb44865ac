package nft

import (
	"fmt"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	attrTableUserdata = 6  // NFTA_TABLE_USERDATA, >= 5.10
	attrSetExpr       = 17 // NFTA_SET_EXPR, >= 5.7
	attrDescConcat    = 2  // NFTA_SET_DESC_CONCAT, >= 5.6
	attrFieldLen      = 1  // NFTA_SET_FIELD_LEN
	flagConcat        = 0x80
	tableDormant      = 0x1 // NFT_TABLE_F_DORMANT: the chains have no hooks
)

// Userdata types of libnftnl: the kernel keeps them for nft, which prints them.
const (
	udataComment       = 0 // of tables and elements: a NUL-terminated text
	udataKeyByteorder  = 0 // of sets: 32 bits in the machine's order
	udataDataByteorder = 1
)

// MaxComment is the length of the longest comment in bytes: nft takes 128 with
// the NUL.
const MaxComment = 127

// Chain is a chain to add; without a Type it is one that rules jump to.
type Chain struct {
	Name     string
	Type     string // "filter" or "nat"; "" for a chain without a hook
	Hook     uint32 // unix.NF_INET_PRE_ROUTING, ...
	Priority int32
}

// Field is a part of a set's key or data, as nft types it.
type Field struct {
	Type  uint32 // nft's number of the data type, for its listing
	Len   uint32 // bytes in a key: padded to 4 where there are several fields
	Order uint32 // 1 host, 2 network: for nft's listing of single fields
}

// Set is a set, or a map if it has Data or Verdicts.
type Set struct {
	Name     string
	Key      []Field
	Data     []Field
	Verdicts bool // a map to verdicts
	Interval bool
	Counter  bool // elements count packets

	// Timeouts lets elements have a Timeout; Timeout is that of elements that have none.
	Timeouts bool
	Timeout  time.Duration

	// Dynamic lets rules add elements, up to Size, which is 0 for no limit.
	Dynamic bool
	Size    int

	// Typeof is more userdata, for what nft has no name of a type for: which
	// expressions key and data are like.
	Typeof []byte
}

// Batch collects the messages of one transaction on the tables of one name. It begins with the
// table of the inet family. The zero Batch is not usable; see [NewBatch].
type Batch struct {
	family byte // of the table that the next messages are about
	table  string
	reqs   []nl.Request
	what   []string // what each request is about, for errors
	nextID uint32   // of sets
	grows  int      // elements that it adds to the inet table, less those that it deletes
	err    error    // the first expression that could not be encoded
}

// NewBatch returns an empty batch for the table.
func NewBatch(table string) *Batch {
	const usual = 3 // messages: a port, and a count of ports replaced
	return &Batch{family: unix.NFPROTO_INET, table: table, reqs: make([]nl.Request, 0, usual), what: make([]string, 0, usual)}
}

// In makes the following messages about the table of the same name of another family
// (unix.NFPROTO_BRIDGE, ...). The kernel commits the messages of all families together.
func (b *Batch) In(family byte) { b.family = family }

// Of makes the following messages about the table of another name, in the same family.
func (b *Batch) Of(table string) { b.table = table }

// Len returns the number of messages.
func (b *Batch) Len() int { return len(b.reqs) }

func (b *Batch) add(msg, flags uint16, body []byte, what string) {
	b.reqs = append(b.reqs, nl.Request{Type: msgType(msg), Flags: flags, Body: body})
	b.what = append(b.what, what)
}

// msgType is the netlink type of a message of the nftables subsystem.
func msgType(msg uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | msg }

// header is the struct nfgenmsg of a family, with room behind.
func header(family byte) []byte { return append(make([]byte, 0, 256), family, unix.NFNETLINK_V0, 0, 0) }

func (b *Batch) header() []byte { return header(b.family) }

// AddTable adds the table, with a comment. It must not exist.
func (b *Batch) AddTable(comment string) {
	m := nl.AppendString(b.header(), unix.NFTA_TABLE_NAME, b.table)
	m = nl.AppendBE32(m, unix.NFTA_TABLE_FLAGS, 0)
	m = nl.AppendAttr(m, attrTableUserdata, appendComment(nil, comment))
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m, "table "+b.table)
}

// DeleteTable deletes the table with all that is in it. It must exist.
func (b *Batch) DeleteTable() {
	m := nl.AppendString(b.header(), unix.NFTA_TABLE_NAME, b.table)
	b.add(unix.NFT_MSG_DELTABLE, 0, m, "table "+b.table)
}

// AddChain adds a chain. Those with a hook accept what reaches their end.
func (b *Batch) AddChain(c Chain) {
	m := nl.AppendString(b.header(), unix.NFTA_CHAIN_TABLE, b.table)
	m = nl.AppendString(m, unix.NFTA_CHAIN_NAME, c.Name)
	if c.Type != "" {
		m = nl.AppendString(m, unix.NFTA_CHAIN_TYPE, c.Type)
		m = nl.AppendBE32(m, unix.NFTA_CHAIN_POLICY, uint32(expr.VerdictAccept))
		var at int
		m, at = nl.Begin(m, unix.NFTA_CHAIN_HOOK)
		m = nl.AppendBE32(m, unix.NFTA_HOOK_HOOKNUM, c.Hook)
		m = nl.AppendBE32(m, unix.NFTA_HOOK_PRIORITY, uint32(c.Priority))
		nl.End(m, at)
	}
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m, "chain "+c.Name)
}

// AddSet adds a set or map.
func (b *Batch) AddSet(s Set) { b.addSet(s, 0, 0) }

// AddAnonymous adds a constant set that one rule of this batch uses, and
// returns what the rule's lookup names it by.
func (b *Batch) AddAnonymous(s Set, elems ...Element) (name string, id uint32) {
	s.Name = "__set%d"
	if s.Verdicts || s.Data != nil {
		s.Name = "__map%d"
	}
	id = b.addSet(s, unix.NFT_SET_ANONYMOUS|unix.NFT_SET_CONSTANT, len(elems))
	b.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, s.Name, id, pointers(elems))
	return s.Name, id
}

func (b *Batch) addSet(s Set, flags uint32, size int) uint32 {
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
		if len(s.Key) > 1 {
			flags |= flagConcat
		}
	}
	if s.Verdicts || s.Data != nil {
		flags |= unix.NFT_SET_MAP
	}
	if s.Timeouts {
		flags |= unix.NFT_SET_TIMEOUT
	}
	if s.Dynamic {
		flags |= unix.NFT_SET_EVAL
	}
	b.nextID++
	typ, length, order := concat(s.Key)
	udata := appendTLV32(nil, udataKeyByteorder, order)
	m := nl.AppendString(b.header(), unix.NFTA_SET_TABLE, b.table)
	m = nl.AppendString(m, unix.NFTA_SET_NAME, s.Name)
	m = nl.AppendBE32(m, unix.NFTA_SET_FLAGS, flags)
	m = nl.AppendBE32(m, unix.NFTA_SET_KEY_TYPE, typ)
	m = nl.AppendBE32(m, unix.NFTA_SET_KEY_LEN, length)
	switch {
	case s.Verdicts:
		m = nl.AppendBE32(m, unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
		m = nl.AppendBE32(m, unix.NFTA_SET_DATA_LEN, 0)
		udata = appendTLV32(udata, udataDataByteorder, 0)
	case s.Data != nil:
		typ, length, order := concat(s.Data)
		m = nl.AppendBE32(m, unix.NFTA_SET_DATA_TYPE, typ)
		m = nl.AppendBE32(m, unix.NFTA_SET_DATA_LEN, length)
		udata = appendTLV32(udata, udataDataByteorder, order)
	}
	m = nl.AppendBE32(m, unix.NFTA_SET_ID, b.nextID)
	m = appendDesc(m, s, max(size, s.Size))
	if s.Timeout != 0 {
		m = nl.AppendBE64(m, unix.NFTA_SET_TIMEOUT, uint64(s.Timeout.Milliseconds()))
	}
	m = nl.AppendAttr(m, unix.NFTA_SET_USERDATA, append(udata, s.Typeof...))
	if s.Counter {
		// NFTA_SET_EXPR and not the list NFTA_SET_EXPRESSIONS, which is of 5.11.
		e, err := expr.Marshal(unix.NFPROTO_INET, &expr.Counter{})
		b.note(err, s.Name)
		var at int
		m, at = nl.Begin(m, attrSetExpr)
		m = append(m, e...)
		nl.End(m, at)
	}
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m, "set "+s.Name)
	return b.nextID
}

// appendDesc appends the number of elements that a set can have, and the fields of a key that
// is looked up by ranges.
func appendDesc(m []byte, s Set, size int) []byte {
	if size == 0 && (!s.Interval || len(s.Key) < 2) {
		return m
	}
	m, desc := nl.Begin(m, unix.NFTA_SET_DESC)
	if size > 0 {
		m = nl.AppendBE32(m, unix.NFTA_SET_DESC_SIZE, uint32(size))
	}
	if s.Interval && len(s.Key) > 1 {
		var list, field int
		m, list = nl.Begin(m, attrDescConcat)
		for _, f := range s.Key {
			m, field = nl.Begin(m, unix.NFTA_LIST_ELEM)
			m = nl.AppendBE32(m, attrFieldLen, f.Len)
			nl.End(m, field)
		}
		nl.End(m, list)
	}
	nl.End(m, desc)
	return m
}

// concat returns the type, length and byte order of fields as nft writes them:
// 6 bits of type a field, lengths padded, no order where there are several.
func concat(fields []Field) (typ, length, order uint32) {
	if len(fields) == 1 {
		return fields[0].Type, fields[0].Len, fields[0].Order
	}
	for _, f := range fields {
		typ = typ<<6 | f.Type
		length += (f.Len + 3) &^ 3
	}
	return typ, length, 0
}

// AddRule appends a rule to a chain.
func (b *Batch) AddRule(chain string, exprs ...expr.Any) {
	m := b.rule(Place{b.family, b.table, chain}, exprs)
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, m, fmt.Sprintf("rule %d in chain %s", len(b.reqs), chain))
}

// InsertRule puts a rule with a comment at the head of a chain of any table.
func (b *Batch) InsertRule(at Place, comment string, exprs ...expr.Any) {
	m := nl.AppendAttr(b.rule(at, exprs), unix.NFTA_RULE_USERDATA, appendComment(nil, comment))
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE, m, "a rule in chain "+at.Chain+" of table "+at.Table)
}

// AppendRule is InsertRule at the end of the chain.
func (b *Batch) AppendRule(at Place, comment string, exprs ...expr.Any) {
	b.InsertRule(at, comment, exprs...)
	b.reqs[len(b.reqs)-1].Flags |= unix.NLM_F_APPEND
}

// DeleteRule deletes a rule that was read.
func (b *Batch) DeleteRule(r Rule) {
	m := nl.AppendString([]byte{r.Family, unix.NFNETLINK_V0, 0, 0}, unix.NFTA_RULE_TABLE, r.Table)
	m = nl.AppendString(m, unix.NFTA_RULE_CHAIN, r.Chain)
	m = nl.AppendBE64(m, unix.NFTA_RULE_HANDLE, r.Handle)
	b.add(unix.NFT_MSG_DELRULE, 0, m, "a rule in chain "+r.Chain+" of table "+r.Table)
}

// Raw is an expression by its attributes, for what the expr package cannot say.
type Raw struct {
	expr.Any
	Name string
	Data []byte // attributes
}

func marshal(family byte, e expr.Any) ([]byte, error) {
	r, ok := e.(Raw)
	if !ok {
		return expr.Marshal(family, e)
	}
	m := nl.AppendString(nil, unix.NFTA_EXPR_NAME, r.Name)
	return nl.AppendAttr(m, unix.NLA_F_NESTED|unix.NFTA_EXPR_DATA, r.Data), nil
}

func (b *Batch) rule(at Place, exprs []expr.Any) []byte {
	m := header(at.Family)
	m = nl.AppendString(m, unix.NFTA_RULE_TABLE, at.Table)
	m = nl.AppendString(m, unix.NFTA_RULE_CHAIN, at.Chain)
	m, list := nl.Begin(m, unix.NFTA_RULE_EXPRESSIONS)
	for _, e := range exprs {
		data, err := marshal(at.Family, e)
		b.note(err, at.Chain)
		var elem int
		m, elem = nl.Begin(m, unix.NFTA_LIST_ELEM)
		m = append(m, data...)
		nl.End(m, elem)
	}
	nl.End(m, list)
	return m
}

func (b *Batch) note(err error, where string) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("encoding an expression for %s: %w", where, err)
	}
}
