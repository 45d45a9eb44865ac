package netnstest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// nftLines lists the nftables ruleset: chains with their rules as the names of
// their expressions, and sets with their elements in hexadecimal, which is how the
// kernel has them.
func (d *dumper) nftLines() ([]string, error) {
	lines, err := d.nft(unix.NFT_MSG_GETTABLE, func(f string, a nl.Walker) (string, error) {
		name := ""
		for a.Next() {
			if a.Type() == unix.NFTA_TABLE_NAME {
				name = a.String()
			}
		}
		return fmt.Sprintf("table %s %s", f, name), a.Err()
	})
	if err != nil || len(lines) == 0 {
		var refused *nl.Error
		if errors.As(err, &refused) { // the kernel has no nftables, or this user no say
			err = nil
		}
		return lines, err
	}
	chains, err := d.nft(unix.NFT_MSG_GETCHAIN, chainLine)
	rules, rerr := d.nft(unix.NFT_MSG_GETRULE, ruleLine)
	var sets []set
	_, serr := d.nft(unix.NFT_MSG_GETSET, func(f string, a nl.Walker) (string, error) {
		s := set{family: f}
		for a.Next() {
			switch a.Type() {
			case unix.NFTA_SET_TABLE:
				s.table = a.String()
			case unix.NFTA_SET_NAME:
				s.name = a.String()
			}
		}
		sets = append(sets, s)
		return "", a.Err()
	})
	lines = slices.Concat(lines, chains, rules)
	for _, s := range sets {
		elems, err := d.elements(s)
		if err != nil {
			elems = append(elems, err.Error())
		}
		lines = append(lines, fmt.Sprintf("set %s %s %s { %s }", s.family, s.table, s.name, strings.Join(elems, ", ")))
	}
	return lines, errors.Join(err, rerr, serr)
}

type set struct{ family, table, name string }

// nfgenmsg is the size of the header of netfilter's messages.
const nfgenmsg = 4

var nftFamilies = map[byte]string{
	unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6",
	unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

func (d *dumper) nft(typ uint16, line func(family string, a nl.Walker) (string, error)) ([]string, error) {
	req := nl.Request{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | typ, Body: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}}
	return d.read(unix.NETLINK_NETFILTER, req, nfgenmsg, func(m nl.Message, a nl.Walker) (string, error) {
		return line(nftFamilies[m.Body[0]], a)
	})
}

func chainLine(family string, a nl.Walker) (string, error) {
	var table, name, kind, hook, policy string
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_CHAIN_TABLE:
			table = a.String()
		case unix.NFTA_CHAIN_NAME:
			name = a.String()
		case unix.NFTA_CHAIN_TYPE:
			kind = " type " + a.String()
		case unix.NFTA_CHAIN_POLICY:
			policy = " policy accept"
			if a.BE32() == 0 { // NF_DROP, linux/netfilter.h
				policy = " policy drop"
			}
		case unix.NFTA_CHAIN_HOOK:
			var num uint32
			var prio int32
			for h := a.Nested(); h.Next(); {
				switch h.Type() {
				case unix.NFTA_HOOK_HOOKNUM:
					num = h.BE32()
				case unix.NFTA_HOOK_PRIORITY:
					prio = int32(h.BE32())
				}
			}
			names := [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
			hook = fmt.Sprintf(" hook %d", num)
			if int(num) < len(names) && family != "netdev" && family != "arp" {
				hook = " hook " + names[num]
			}
			hook += fmt.Sprintf(" priority %d", prio)
		}
	}
	return fmt.Sprintf("chain %s %s %s%s%s%s", family, table, name, kind, hook, policy), a.Err()
}

func ruleLine(family string, a nl.Walker) (string, error) {
	var table, chain string
	var exprs []string
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_RULE_TABLE:
			table = a.String()
		case unix.NFTA_RULE_CHAIN:
			chain = a.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			for list := a.Nested(); list.Next(); {
				exprs = append(exprs, exprText(list.Nested()))
			}
		}
	}
	return fmt.Sprintf("rule %s %s %s: %s", family, table, chain, strings.Join(exprs, ", ")), a.Err()
}

// exprText is an expression's name, and of a counter its packets.
func exprText(e nl.Walker) string {
	name, packets := "", ""
	for e.Next() {
		switch e.Type() {
		case unix.NFTA_EXPR_NAME:
			name = e.String()
		case unix.NFTA_EXPR_DATA:
			for c := e.Nested(); name == "counter" && c.Next(); {
				if c.Type() == unix.NFTA_COUNTER_PACKETS {
					packets = fmt.Sprintf(" %d", c.BE64())
				}
			}
		}
	}
	return name + packets
}

// elements lists the elements of a set: key, or key: data.
func (d *dumper) elements(s set) ([]string, error) {
	family := byte(unix.AF_UNSPEC)
	for f, name := range nftFamilies {
		if name == s.family {
			family = f
		}
	}
	body := []byte{family, unix.NFNETLINK_V0, 0, 0}
	body = nl.AppendString(body, unix.NFTA_SET_ELEM_LIST_TABLE, s.table)
	body = nl.AppendString(body, unix.NFTA_SET_ELEM_LIST_SET, s.name)
	var elems []string
	req := nl.Request{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Body: body}
	_, err := d.read(unix.NETLINK_NETFILTER, req, nfgenmsg, func(_ nl.Message, a nl.Walker) (string, error) {
		for a.Next() {
			if a.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for list := a.Nested(); list.Next(); {
				if len(elems) < maxLines {
					elems = append(elems, elementText(list.Nested()))
				}
			}
		}
		return "", a.Err()
	})
	return elems, err
}

func elementText(e nl.Walker) string {
	text := ""
	for e.Next() {
		switch e.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			text = dataText(e.Nested())
		case unix.NFTA_SET_ELEM_DATA:
			text += ": " + dataText(e.Nested())
		}
	}
	return text
}

// dataText is a value, or a verdict.
func dataText(v nl.Walker) string {
	for v.Next() {
		if v.Type() == unix.NFTA_DATA_VALUE {
			return fmt.Sprintf("%x", v.Data())
		}
	}
	return "verdict"
}
