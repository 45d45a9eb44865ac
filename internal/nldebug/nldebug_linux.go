package nldebug

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

func init() {
	if slices.Contains(strings.Split(os.Getenv("BOXWIRE_DEBUG"), ","), "netlink") {
		nl.LogAll(Logger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	}
}

// headerLen is the size of struct nlmsghdr.
const headerLen = 16

// Logger returns a logger that writes to l.
func Logger(l *slog.Logger) nl.Logger {
	return func(family int, request bool, m nl.Message) {
		what := "netlink answer"
		if request {
			what = "netlink request"
		}
		attrs := []slog.Attr{
			slog.String("type", typeName(family, m.Type)),
			slog.String("flags", flagNames(family, m.Type, m.Flags)),
			slog.Uint64("seq", uint64(m.Seq)),
			slog.Int("length", headerLen+len(m.Body)),
		}
		if (m.Type == unix.NLMSG_ERROR || m.Type == unix.NLMSG_DONE) && len(m.Body) >= 4 {
			errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Body)))
			name := unix.ErrnoName(errno)
			if name == "" {
				name = strconv.Itoa(int(errno)) // 0 is success
			}
			attrs = append(attrs, slog.String("errno", name))
		}
		l.LogAttrs(context.Background(), slog.LevelDebug, what, attrs...)
	}
}

// Names of linux/rtnetlink.h: four types for each thing, by their number.
var (
	rtVerbs  = [...]string{"NEW", "DEL", "GET", "SET"}
	rtThings = [...]string{
		"LINK", "ADDR", "ROUTE", "NEIGH", "RULE", "QDISC", "TCLASS", "TFILTER", "ACTION", "PREFIX", "MULTICAST", "ANYCAST", "NEIGHTBL",
		"NDUSEROPT", "ADDRLABEL", "DCB", "NETCONF", "MDB", "NSID", "STATS", "CACHEREPORT", "CHAIN", "NEXTHOP", "LINKPROP", "VLAN",
		"NEXTHOPBUCKET", "TUNNEL",
	}
)

// Names of linux/netfilter/nf_tables.h and nfnetlink_conntrack.h, by their number.
var (
	nftTypes = [...]string{
		"NEWTABLE", "GETTABLE", "DELTABLE", "NEWCHAIN", "GETCHAIN", "DELCHAIN", "NEWRULE", "GETRULE", "DELRULE", "NEWSET", "GETSET", "DELSET",
		"NEWSETELEM", "GETSETELEM", "DELSETELEM", "NEWGEN", "GETGEN", "TRACE", "NEWOBJ", "GETOBJ", "DELOBJ", "GETOBJ_RESET",
		"NEWFLOWTABLE", "GETFLOWTABLE", "DELFLOWTABLE", "GETRULE_RESET", "DESTROYTABLE", "DESTROYCHAIN", "DESTROYRULE", "DESTROYSET",
		"DESTROYSETELEM", "DESTROYOBJ", "DESTROYFLOWTABLE", "GETSETELEM_RESET",
	}
	ctTypes = [...]string{"NEW", "GET", "DELETE", "GET_CTRZERO", "GET_STATS_CPU", "GET_STATS", "GET_DYING", "GET_UNCONFIRMED"}
)

// typeName is the uapi name of a message type, or its number.
func typeName(family int, typ uint16) string {
	low := int(typ & 0xff)
	switch {
	case typ == unix.NLMSG_ERROR:
		return "NLMSG_ERROR"
	case typ == unix.NLMSG_DONE:
		return "NLMSG_DONE"
	case family == unix.NETLINK_ROUTE && typ >= unix.RTM_BASE && int(typ-unix.RTM_BASE)/4 < len(rtThings):
		return "RTM_" + rtVerbs[typ%4] + rtThings[(typ-unix.RTM_BASE)/4]
	case family != unix.NETLINK_NETFILTER:
	case typ == unix.NFNL_MSG_BATCH_BEGIN:
		return "NFNL_MSG_BATCH_BEGIN"
	case typ == unix.NFNL_MSG_BATCH_END:
		return "NFNL_MSG_BATCH_END"
	case typ>>8 == unix.NFNL_SUBSYS_NFTABLES && low < len(nftTypes):
		return "NFT_MSG_" + nftTypes[low]
	case typ>>8 == unix.NFNL_SUBSYS_CTNETLINK && low < len(ctTypes):
		return "IPCTNL_MSG_CT_" + ctTypes[low]
	}
	return fmt.Sprintf("%#x", typ)
}

// flagNames joins the names NLM_F_* of linux/netlink.h, without their prefix. What
// the bits from 0x100 on are called depends on the type.
func flagNames(family int, typ, flags uint16) string {
	names := []string{"REQUEST", "MULTI", "ACK", "ECHO", "DUMP_INTR", "DUMP_FILTERED", "0x40", "0x80", "REPLACE", "EXCL", "CREATE", "APPEND"}
	switch {
	case typ < unix.NLMSG_MIN_TYPE:
		names = append(names[:8], "CAPPED", "ACK_TLVS")
	case flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP:
		names[8], names[9] = "ROOT", "MATCH"
	case family == unix.NETLINK_ROUTE && typ%4 == 1: // RTM_DEL*
		names[8], names[9] = "NONREC", "BULK"
	}
	var set []string
	for i, name := range names {
		if flags&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, "|")
}
