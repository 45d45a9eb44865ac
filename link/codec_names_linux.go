package link

import (
	"cmp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Constants that golang.org/x/sys/unix lacks.
const (
	extMaskSkipStat = 8 // RTEXT_FILTER_SKIP_STATS, linux/rtnetlink.h, >= 4.5
)

// linkAttrs and the tables after it name the attributes of link and address
// messages for errors; the list is of what this package sends.
var linkAttrs = map[uint16]string{
	unix.IFLA_ADDRESS:       "IFLA_ADDRESS",
	unix.IFLA_BROADCAST:     "IFLA_BROADCAST",
	unix.IFLA_IFNAME:        "IFLA_IFNAME",
	unix.IFLA_MTU:           "IFLA_MTU",
	unix.IFLA_LINK:          "IFLA_LINK",
	unix.IFLA_MASTER:        "IFLA_MASTER",
	unix.IFLA_TXQLEN:        "IFLA_TXQLEN",
	unix.IFLA_LINKINFO:      "IFLA_LINKINFO",
	unix.IFLA_NET_NS_PID:    "IFLA_NET_NS_PID",
	unix.IFLA_NET_NS_FD:     "IFLA_NET_NS_FD",
	unix.IFLA_IFALIAS:       "IFLA_IFALIAS",
	unix.IFLA_AF_SPEC:       "IFLA_AF_SPEC",
	unix.IFLA_GROUP:         "IFLA_GROUP",
	unix.IFLA_EXT_MASK:      "IFLA_EXT_MASK",
	unix.IFLA_ALT_IFNAME:    "IFLA_ALT_IFNAME",
	unix.IFLA_NUM_TX_QUEUES: "IFLA_NUM_TX_QUEUES",
	unix.IFLA_NUM_RX_QUEUES: "IFLA_NUM_RX_QUEUES",

	unix.IFLA_GSO_MAX_SEGS:      "IFLA_GSO_MAX_SEGS",
	unix.IFLA_GSO_MAX_SIZE:      "IFLA_GSO_MAX_SIZE",
	unix.IFLA_GRO_MAX_SIZE:      "IFLA_GRO_MAX_SIZE",
	unix.IFLA_GSO_IPV4_MAX_SIZE: "IFLA_GSO_IPV4_MAX_SIZE",
	unix.IFLA_GRO_IPV4_MAX_SIZE: "IFLA_GRO_IPV4_MAX_SIZE",
	unix.IFLA_NEW_IFINDEX:       "IFLA_NEW_IFINDEX",
	unix.IFLA_PROP_LIST:         "IFLA_PROP_LIST",
}

var infoAttrs = map[uint16]string{
	unix.IFLA_INFO_KIND:       "IFLA_INFO_KIND",
	unix.IFLA_INFO_DATA:       "IFLA_INFO_DATA",
	unix.IFLA_INFO_SLAVE_KIND: "IFLA_INFO_SLAVE_KIND",
	unix.IFLA_INFO_SLAVE_DATA: "IFLA_INFO_SLAVE_DATA",
}

var familyAttrs = map[uint16]string{unix.AF_INET: "AF_INET", unix.AF_INET6: "AF_INET6"}

var addrAttrs = map[uint16]string{
	unix.IFA_ADDRESS:   "IFA_ADDRESS",
	unix.IFA_LOCAL:     "IFA_LOCAL",
	unix.IFA_LABEL:     "IFA_LABEL",
	unix.IFA_BROADCAST: "IFA_BROADCAST",
	unix.IFA_ANYCAST:   "IFA_ANYCAST",
	unix.IFA_CACHEINFO: "IFA_CACHEINFO",
	unix.IFA_FLAGS:     "IFA_FLAGS",

	unix.IFA_RT_PRIORITY: "IFA_RT_PRIORITY",
	ifaProto:             "IFA_PROTO",
}

// linkNames names an attribute of a link message: "IFLA_LINKINFO/IFLA_INFO_KIND".
func linkNames(path []uint16) string {
	return join(path, func(depth int) map[uint16]string {
		switch {
		case depth == 0:
			return linkAttrs
		case depth == 1 && path[0] == unix.IFLA_LINKINFO:
			return infoAttrs
		case depth == 1 && path[0] == unix.IFLA_AF_SPEC:
			return familyAttrs
		}
		return nil
	})
}

// namesOf does the same where IFLA_INFO_DATA is that of a kind.
func namesOf(k Kind) func([]uint16) string {
	return func(path []uint16) string {
		if len(path) < 3 || path[0] != unix.IFLA_LINKINFO || path[1] != unix.IFLA_INFO_DATA {
			return linkNames(path)
		}
		o := declare(k)
		s := linkNames(path[:2]) + "/" + cmp.Or(nameOf(o.fields, path[2]), strconv.Itoa(int(path[2])))
		if len(path) > 3 && o.other != nil {
			s += "/" + linkNames(path[3:])
		}
		return s
	}
}

func addrNames(path []uint16) string {
	return join(path, func(depth int) map[uint16]string {
		if depth == 0 {
			return addrAttrs
		}
		return nil
	})
}

// join puts the names of a path together; what no table has is given as its number.
func join(path []uint16, table func(depth int) map[uint16]string) string {
	var b strings.Builder
	for i, t := range path {
		if i > 0 {
			b.WriteByte('/')
		}
		if name, ok := table(i)[t]; ok {
			b.WriteString(name)
		} else {
			b.WriteString(strconv.Itoa(int(t)))
		}
	}
	return b.String()
}
