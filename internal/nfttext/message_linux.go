package nfttext

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h).
const (
	attrTableUserdata   = 6  // NFTA_TABLE_USERDATA
	attrChainUserdata   = 12 // NFTA_CHAIN_USERDATA
	attrHookDevs        = 4  // NFTA_HOOK_DEVS
	attrDeviceName      = 1  // NFTA_DEVICE_NAME
	attrSetExpr         = 17 // NFTA_SET_EXPR
	attrSetExpressions  = 18 // NFTA_SET_EXPRESSIONS
	attrElemKeyEnd      = 10 // NFTA_SET_ELEM_KEY_END
	attrElemExpressions = 11 // NFTA_SET_ELEM_EXPRESSIONS
	attrObjUserdata     = 8  // NFTA_OBJ_USERDATA

	elemCatchAll = 2 // NFT_SET_ELEM_CATCHALL
	tableDormant = 1 // NFT_TABLE_F_DORMANT
)

// Userdata types of nft, which keeps what it lists there.
const (
	udataComment    = 0 // of all but sets
	udataKeyOrder   = 0 // of sets, like those below
	udataDataOrder  = 1
	udataMerge      = 2
	udataKeyTypeof  = 3
	udataDataTypeof = 4
	udataDataRange  = 6
	udataSetComment = 7
)

const genHeader = 4 // struct nfgenmsg

var errShort = errors.New("malformed reply: shorter than its header")

// DecodeRule reads the body of a NEWRULE message. What it returns is a copy.
func DecodeRule(body []byte) (family byte, r Rule, err error) {
	if len(body) < genHeader {
		return 0, r, errShort
	}
	w := nl.Walk(bytes.Clone(body[genHeader:]))
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_RULE_TABLE:
			r.Table = w.String()
		case unix.NFTA_RULE_CHAIN:
			r.Chain = w.String()
		case unix.NFTA_RULE_HANDLE:
			r.Handle = w.BE64()
		case unix.NFTA_RULE_USERDATA:
			r.Comment = comment(w.Data(), udataComment)
		case unix.NFTA_RULE_EXPRESSIONS:
			if r.Exprs, err = decodeExprs(w.Nested()); err != nil {
				return body[0], r, err
			}
		}
	}
	return body[0], r, w.Err()
}

func decodeExprs(list nl.Walker) (all []Expr, err error) {
	for list.Next() {
		e, err := decodeExpr(list.Nested())
		if err != nil {
			return all, err
		}
		all = append(all, e)
	}
	return all, list.Err()
}

func decodeExpr(w nl.Walker) (e Expr, err error) {
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_EXPR_NAME:
			e.Name = w.String()
		case unix.NFTA_EXPR_DATA:
			e.Data = w.Data()
		}
	}
	return e, w.Err()
}

func decodeTable(body []byte) (*Table, error) {
	t := &Table{sets: make(map[string]*Set), chains: make(map[string]*Chain)}
	if len(body) < genHeader {
		return t, errShort
	}
	t.Family = body[0]
	w := nl.Walk(body[genHeader:])
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_TABLE_NAME:
			t.Name = w.String()
		case unix.NFTA_TABLE_FLAGS:
			t.Dormant = w.BE32()&tableDormant != 0
		case attrTableUserdata:
			t.Comment = comment(w.Data(), udataComment)
		}
	}
	return t, w.Err()
}

// DecodeChain reads the body of a NEWCHAIN message, which has no rules.
func DecodeChain(body []byte) (*Chain, error) {
	c := &Chain{}
	if len(body) < genHeader {
		return c, errShort
	}
	c.Family = body[0]
	w := nl.Walk(body[genHeader:])
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = w.String()
		case unix.NFTA_CHAIN_NAME:
			c.Name = w.String()
		case unix.NFTA_CHAIN_TYPE:
			c.Type = w.String()
		case unix.NFTA_CHAIN_POLICY:
			c.Drop = w.BE32() == 0 // NF_DROP
		case attrChainUserdata:
			c.Comment = comment(w.Data(), udataComment)
		case unix.NFTA_CHAIN_HOOK:
			h, err := decodeHook(w.Nested())
			if err != nil {
				return c, err
			}
			c.Hook, c.Priority, c.Devices = h.num, h.priority, h.devices
		}
	}
	return c, w.Err()
}

type hook struct {
	num      uint32
	priority int32
	devices  []string
}

// decodeHook reads the hook of a chain or of a flow table: their attributes differ but
// for the numbers of hook and priority.
func decodeHook(w nl.Walker) (h hook, err error) {
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			h.num = w.BE32()
		case unix.NFTA_HOOK_PRIORITY:
			h.priority = int32(w.BE32())
		case unix.NFTA_HOOK_DEV: // of flow tables a list (NFTA_FLOWTABLE_HOOK_DEVS)
			if w.IsNested() {
				h.devices = devices(w.Nested())
			} else {
				h.devices = []string{w.String()}
			}
		case attrHookDevs:
			h.devices = devices(w.Nested())
		}
	}
	return h, w.Err()
}

func devices(w nl.Walker) (all []string) {
	for w.Next() {
		if w.Type() == attrDeviceName {
			all = append(all, w.String())
		}
	}
	return all
}

func decodeSet(body []byte) (*Set, error) {
	s := &Set{}
	if len(body) < genHeader {
		return s, errShort
	}
	var keyType, dataType uint32
	w := nl.Walk(bytes.Clone(body[genHeader:]))
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_SET_TABLE:
			s.Table = w.String()
		case unix.NFTA_SET_NAME:
			s.Name = w.String()
		case unix.NFTA_SET_FLAGS:
			s.Flags = w.BE32()
		case unix.NFTA_SET_KEY_TYPE:
			keyType = w.BE32()
		case unix.NFTA_SET_KEY_LEN:
			s.keyLen = w.BE32()
		case unix.NFTA_SET_DATA_TYPE:
			dataType = w.BE32()
		case unix.NFTA_SET_OBJ_TYPE:
			s.Object = w.BE32()
		case unix.NFTA_SET_POLICY:
			s.Memory = w.BE32() == unix.NFT_SET_POL_MEMORY
		case unix.NFTA_SET_TIMEOUT:
			s.Timeout = time.Duration(w.BE64()) * time.Millisecond
		case unix.NFTA_SET_GC_INTERVAL:
			s.GC = time.Duration(w.BE32()) * time.Millisecond
		case unix.NFTA_SET_DESC:
			for d := w.Nested(); d.Next(); {
				if d.Type() == unix.NFTA_SET_DESC_SIZE {
					s.Size = d.BE32()
				}
			}
		case unix.NFTA_SET_USERDATA:
			s.userdata(w.Data())
		case attrSetExpr:
			e, err := decodeExpr(w.Nested())
			if err != nil {
				return s, err
			}
			s.Exprs = append(s.Exprs, e)
		case attrSetExpressions:
			var err error
			if s.Exprs, err = decodeExprs(w.Nested()); err != nil {
				return s, err
			}
		}
	}
	s.Key = typesOf(keyType)
	s.Verdicts = s.Flags&unix.NFT_SET_MAP != 0 && dataType == unix.NFT_DATA_VERDICT
	if s.Flags&unix.NFT_SET_MAP != 0 && !s.Verdicts {
		s.Data = typesOf(dataType)
	}
	return s, w.Err()
}

// userdata reads what nft keeps with a set.
func (s *Set) userdata(b []byte) {
	eachUserdata(b, func(typ byte, v []byte) {
		switch {
		case typ == udataKeyOrder && len(v) == 4:
			s.keyOrder = order(binary.NativeEndian.Uint32(v))
		case typ == udataDataOrder && len(v) == 4:
			s.dataOrder = order(binary.NativeEndian.Uint32(v))
		case typ == udataMerge && len(v) == 4:
			s.AutoMerge = binary.NativeEndian.Uint32(v) != 0
		case typ == udataDataRange && len(v) == 4:
			s.dataRange = binary.NativeEndian.Uint32(v) != 0
		case typ == udataKeyTypeof:
			s.keyOf = typeofText(v)
		case typ == udataDataTypeof:
			s.dataOf = typeofText(v)
		case typ == udataSetComment:
			s.Comment = cString(v)
		}
	})
}

// decodeElements hands each element of a NEWSETELEM message's body to each. Their bytes
// are copies.
func decodeElements(body []byte, each func(Element)) error {
	if len(body) < genHeader {
		return errShort
	}
	w := nl.Walk(bytes.Clone(body[genHeader:]))
	for w.Next() {
		if w.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list := w.Nested()
		for list.Next() {
			e, err := decodeElement(list.Nested())
			if err != nil {
				return err
			}
			each(e)
		}
		if err := list.Err(); err != nil {
			return err
		}
	}
	return w.Err()
}

func decodeElement(w nl.Walker) (e Element, err error) {
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = valueOf(w.Data())
		case attrElemKeyEnd:
			e.KeyEnd = valueOf(w.Data())
		case unix.NFTA_SET_ELEM_DATA:
			d := parse(w.Data())
			e.Data, e.Verdict = d[unix.NFTA_DATA_VALUE], d[unix.NFTA_DATA_VERDICT]
		case unix.NFTA_SET_ELEM_FLAGS:
			e.End = w.BE32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
			e.Any = w.BE32()&elemCatchAll != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.Timeout = time.Duration(w.BE64()) * time.Millisecond
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Expires = time.Duration(w.BE64()) * time.Millisecond
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = comment(w.Data(), udataComment)
		case unix.NFTA_SET_ELEM_OBJREF:
			e.Object = w.String()
		case unix.NFTA_SET_ELEM_EXPR:
			var x Expr
			x, err = decodeExpr(w.Nested())
			e.Exprs = append(e.Exprs, x)
		case attrElemExpressions:
			e.Exprs, err = decodeExprs(w.Nested())
		}
		if err != nil {
			return e, err
		}
	}
	return e, w.Err()
}

func decodeObject(body []byte) (o Object, err error) {
	if len(body) < genHeader {
		return o, errShort
	}
	w := nl.Walk(bytes.Clone(body[genHeader:]))
	for w.Next() {
		switch w.Type() {
		case unix.NFTA_OBJ_TABLE:
			o.Table = w.String()
		case unix.NFTA_OBJ_NAME:
			o.Name = w.String()
		case unix.NFTA_OBJ_TYPE:
			o.Type = w.BE32()
		case unix.NFTA_OBJ_DATA:
			o.Data = w.Data()
		case attrObjUserdata:
			o.Comment = comment(w.Data(), udataComment)
		}
	}
	return o, w.Err()
}

// decodeFlowTable reads NFTA_FLOWTABLE_*.
func decodeFlowTable(body []byte) (f FlowTable, err error) {
	const (
		attrTable = 1
		attrName  = 2
		attrHook  = 3
		attrFlags = 7
	)
	if len(body) < genHeader {
		return f, errShort
	}
	w := nl.Walk(body[genHeader:])
	for w.Next() {
		switch w.Type() {
		case attrTable:
			f.Table = w.String()
		case attrName:
			f.Name = w.String()
		case attrHook:
			h, err := decodeHook(w.Nested())
			if err != nil {
				return f, err
			}
			f.Hook, f.Priority, f.Devices = h.num, h.priority, h.devices
		case attrFlags:
			f.Flags = w.BE32()
		}
	}
	return f, w.Err()
}

// eachUserdata hands each piece of userdata to each: 8 bits of type and 8 of length precede
// it. Any program may have written it: what is malformed is left out.
func eachUserdata(b []byte, each func(typ byte, v []byte)) {
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if n > len(b) {
			return
		}
		each(b[0], b[2:n])
		b = b[n:]
	}
}

// comment returns the first piece of a type, "" where there is none.
func comment(b []byte, typ byte) (s string) {
	eachUserdata(b, func(t byte, v []byte) {
		if t == typ && s == "" {
			s = cString(v)
		}
	})
	return s
}

func cString(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// attrs are the attributes of an expression by type; higher types are left out.
type attrs [24][]byte

func parse(data []byte) (a attrs) {
	for w := nl.Walk(data); w.Next(); {
		if int(w.Type()) < len(a) {
			a[w.Type()] = w.Data()
		}
	}
	return a
}

func (a *attrs) u8(typ int) byte {
	if len(a[typ]) < 1 {
		return 0
	}
	return a[typ][0]
}

func (a *attrs) u16(typ int) uint16 {
	if len(a[typ]) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(a[typ])
}

func (a *attrs) u32(typ int) uint32 {
	if len(a[typ]) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a[typ])
}

func (a *attrs) u64(typ int) uint64 {
	if len(a[typ]) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a[typ])
}

func (a *attrs) text(typ int) string { return cString(a[typ]) }

// value is the NFTA_DATA_VALUE in an attribute.
func (a *attrs) value(typ int) []byte { return valueOf(a[typ]) }

func valueOf(data []byte) []byte {
	a := parse(data)
	return a[unix.NFTA_DATA_VALUE]
}
