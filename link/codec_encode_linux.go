package link

import (
	"encoding/binary"
	"slices"

	"github.com/boxwire/boxwire/internal/linkname"
	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// appendIfInfo appends a struct ifinfomsg.
func appendIfInfo(b []byte, index int, flags, change uint32) []byte {
	b = slices.Grow(b, unix.SizeofIfInfomsg)
	b = append(b, unix.AF_UNSPEC, 0, 0, 0) // family, padding, ifi_type
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// setFlags builds the message that brings a link up or down.
func setFlags(index int, up bool) nl.Request {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	return nl.Request{Type: unix.RTM_NEWLINK, Body: appendIfInfo(nil, index, flags, unix.IFF_UP), Names: linkNames}
}

func delLink(index int) nl.Request {
	return nl.Request{Type: unix.RTM_DELLINK, Body: appendIfInfo(nil, index, 0, 0), Names: linkNames}
}

func delName(name string) nl.Request {
	b := nl.AppendString(appendIfInfo(nil, 0, 0, 0), unix.IFLA_IFNAME, name)
	return nl.Request{Type: unix.RTM_DELLINK, Body: b, Names: linkNames}
}

// getLink asks for one link, by name or, with an empty name, by index, without
// the statistics that make up a fifth of the answer.
func getLink(name string, index int) nl.Request {
	b := appendIfInfo(make([]byte, 0, 48), index, 0, 0)
	b = nl.AppendU32(b, unix.IFLA_EXT_MASK, extMaskSkipStat)
	switch {
	case len(name) > linkname.Max:
		b = nl.AppendString(b, unix.IFLA_ALT_IFNAME, name)
	case name != "":
		b = nl.AppendString(b, unix.IFLA_IFNAME, name) // or an alternative one
	}
	return nl.Request{Type: unix.RTM_GETLINK, Body: b, Names: linkNames}
}

// withStats turns what getLink returns into a question for the statistics, too.
func withStats(r nl.Request) nl.Request {
	binary.NativeEndian.PutUint32(r.Body[unix.SizeofIfInfomsg+4:], 0) // IFLA_EXT_MASK
	return r
}

// getLinks asks for the links that a filter chooses; the kernel filters when the
// socket is strict (>= 4.20).
func getLinks(f Filter) nl.Request {
	r := getLink("", 0)
	if f.Master.Index != 0 {
		r.Body = nl.AppendU32(r.Body, unix.IFLA_MASTER, uint32(f.Master.Index))
	}
	if f.Kind != "" {
		b, at := nl.Begin(r.Body, unix.IFLA_LINKINFO)
		b = nl.AppendString(b, unix.IFLA_INFO_KIND, f.Kind)
		nl.End(b, at)
		r.Body = b
	}
	return r
}
