package nfttext

import (
	"context"
	"errors"
	"os"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// Read reads the ruleset over c, of the family unix.NETLINK_NETFILTER. It takes several dumps:
// if another program changes the ruleset meanwhile, they may be of different states. Where the
// kernel has no nftables, or the user may not read it, the error is a *nl.Error.
func Read(ctx context.Context, c *nl.Conn) (*Ruleset, error) {
	r := &Ruleset{}
	g := reading{ctx: ctx, c: c, tables: make(map[tableID]*Table)}
	steps := []struct {
		msg  uint16
		take func(family byte, body []byte) error
	}{
		{unix.NFT_MSG_GETTABLE, func(_ byte, b []byte) error {
			t, err := decodeTable(b)
			r.Tables = append(r.Tables, t)
			g.tables[tableID{t.Family, t.Name}] = t
			return err
		}},
		{unix.NFT_MSG_GETSET, g.set},
		{unix.NFT_MSG_GETCHAIN, g.chain},
		{unix.NFT_MSG_GETOBJ, g.object},
		{unix.NFT_MSG_GETFLOWTABLE, g.flowTable},
		{unix.NFT_MSG_GETRULE, g.rule},
	}
	for i, s := range steps {
		if err := g.dump(unix.AF_UNSPEC, s.msg, nil, s.take); err != nil {
			return nil, err
		}
		if i == 0 && len(r.Tables) == 0 {
			return r, nil
		}
	}
	return r, g.elements()
}

type tableID struct {
	family byte
	name   string
}

// reading is a ruleset that is being read.
type reading struct {
	ctx    context.Context
	c      *nl.Conn
	tables map[tableID]*Table
}

// dump hands the messages of a dump to take, once the dump is complete.
func (g *reading) dump(family byte, msg uint16, attrs []byte, take func(family byte, body []byte) error) error {
	body := append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...)
	var all [][]byte
	err := g.c.Dump(g.ctx, nl.Request{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | msg, Body: body}, func() { all = nil }, func(m nl.Message) error {
		if len(m.Body) < genHeader {
			return errShort
		}
		all = append(all, append([]byte(nil), m.Body...))
		return nil
	})
	if err != nil {
		return err
	}
	for _, b := range all {
		if err := take(b[0], b); err != nil {
			return err
		}
	}
	return nil
}

// table is a table that was read; one that has appeared since is left out.
func (g *reading) table(family byte, name string, found func(*Table)) {
	if t := g.tables[tableID{family, name}]; t != nil {
		found(t)
	}
}

func (g *reading) set(family byte, b []byte) error {
	s, err := decodeSet(b)
	g.table(family, s.Table, func(t *Table) {
		t.sets[s.Name] = s
		if s.Flags&unix.NFT_SET_ANONYMOUS == 0 {
			t.Sets = append(t.Sets, s)
		}
	})
	return err
}

func (g *reading) chain(family byte, b []byte) error {
	c, err := DecodeChain(b)
	g.table(family, c.Table, func(t *Table) {
		t.Chains = append(t.Chains, c)
		t.chains[c.Name] = c
	})
	return err
}

func (g *reading) object(family byte, b []byte) error {
	o, err := decodeObject(b)
	g.table(family, o.Table, func(t *Table) { t.Objects = append(t.Objects, o) })
	return err
}

func (g *reading) flowTable(family byte, b []byte) error {
	f, err := decodeFlowTable(b)
	g.table(family, f.Table, func(t *Table) { t.FlowTables = append(t.FlowTables, f) })
	return err
}

func (g *reading) rule(family byte, b []byte) error {
	_, r, err := DecodeRule(b)
	g.table(family, r.Table, func(t *Table) {
		if c := t.chains[r.Chain]; c != nil {
			c.Rules = append(c.Rules, r)
		}
	})
	return err
}

// elements reads the elements of all sets.
func (g *reading) elements() error {
	for _, t := range g.tables {
		for _, s := range t.sets {
			m := nl.AppendString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
			m = nl.AppendString(m, unix.NFTA_SET_ELEM_LIST_SET, s.Name)
			err := g.dump(t.Family, unix.NFT_MSG_GETSETELEM, m, func(_ byte, b []byte) error {
				return decodeElements(b, func(e Element) { s.Elements = append(s.Elements, e) })
			})
			if err != nil && !errors.Is(err, os.ErrNotExist) { // else it was removed meanwhile
				return err
			}
		}
	}
	return nil
}
