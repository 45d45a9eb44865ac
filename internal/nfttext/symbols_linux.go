package nfttext

// Names of values, as `nft describe` lists them. They are no maps, which would be built when the program
// starts: most programs never write a rule as text.

// symbols are the names of a type's values.
type symbols []struct {
	value uint64
	name  string
}

// name returns the name of a value.
func (s symbols) name(value uint64) (string, bool) {
	for i := range s {
		if s[i].value == value {
			return s[i].name, true
		}
	}
	return "", false
}

// text is name, "" for a value without one.
func (s symbols) text(value uint64) string {
	name, _ := s.name(value)
	return name
}

var protocols = symbols{
	{0, "ip"}, {1, "icmp"}, {2, "igmp"}, {4, "ipencap"}, {6, "tcp"}, {17, "udp"}, {33, "dccp"}, {41, "ipv6"}, {43, "ipv6-route"}, {44, "ipv6-frag"}, {47, "gre"},
	{50, "esp"}, {51, "ah"}, {58, "ipv6-icmp"}, {59, "ipv6-nonxt"}, {60, "ipv6-opts"}, {88, "eigrp"}, {89, "ospf"}, {94, "ipip"}, {97, "etherip"},
	{98, "encap"}, {103, "pim"}, {108, "ipcomp"}, {112, "vrrp"}, {115, "l2tp"}, {132, "sctp"}, {135, "mobility-header"}, {136, "udplite"}, {137, "mpls-in-ip"},
}

var etherTypes = symbols{{0x0800, "ip"}, {0x0806, "arp"}, {0x86dd, "ip6"}, {0x8100, "8021q"}, {0x88a8, "8021ad"}}

var nfprotos = symbols{{2, "ipv4"}, {10, "ipv6"}}

var packetTypes = symbols{{0, "host"}, {1, "broadcast"}, {2, "multicast"}, {3, "other"}}

var icmpTypes = symbols{
	{0, "echo-reply"}, {3, "destination-unreachable"}, {4, "source-quench"}, {5, "redirect"}, {8, "echo-request"}, {9, "router-advertisement"},
	{10, "router-solicitation"}, {11, "time-exceeded"}, {12, "parameter-problem"}, {13, "timestamp-request"}, {14, "timestamp-reply"},
	{15, "info-request"}, {16, "info-reply"}, {17, "address-mask-request"}, {18, "address-mask-reply"},
}

var icmp6Types = symbols{
	{1, "destination-unreachable"}, {2, "packet-too-big"}, {3, "time-exceeded"}, {4, "parameter-problem"}, {128, "echo-request"}, {129, "echo-reply"},
	{130, "mld-listener-query"}, {131, "mld-listener-report"}, {132, "mld-listener-done"}, {133, "nd-router-solicit"}, {134, "nd-router-advert"},
	{135, "nd-neighbor-solicit"}, {136, "nd-neighbor-advert"}, {137, "nd-redirect"}, {138, "router-renumbering"}, {141, "ind-neighbor-solicit"},
	{142, "ind-neighbor-advert"}, {143, "mld2-listener-report"},
}

var icmpCodes = symbols{
	{0, "net-unreachable"}, {1, "host-unreachable"}, {2, "prot-unreachable"}, {3, "port-unreachable"}, {4, "frag-needed"},
	{9, "net-prohibited"}, {10, "host-prohibited"}, {13, "admin-prohibited"},
}

var icmp6Codes = symbols{
	{0, "no-route"}, {1, "admin-prohibited"}, {3, "addr-unreachable"}, {4, "port-unreachable"}, {5, "policy-fail"}, {6, "reject-route"},
}

var icmpxCodes = symbols{{0, "no-route"}, {1, "port-unreachable"}, {2, "host-unreachable"}, {3, "admin-prohibited"}}

var igmpTypes = symbols{
	{17, "membership-query"}, {18, "membership-report-v1"}, {22, "membership-report-v2"}, {34, "membership-report-v3"}, {23, "leave-group"},
}

var ctStates = symbols{{1, "invalid"}, {2, "established"}, {4, "related"}, {8, "new"}, {64, "untracked"}}

var ctDirections = symbols{{0, "original"}, {1, "reply"}}

var ctStatus = symbols{
	{1, "expected"}, {2, "seen-reply"}, {4, "assured"}, {8, "confirmed"}, {16, "snat"}, {32, "dnat"}, {512, "dying"},
}

var ctEvents = symbols{
	{1, "new"}, {2, "related"}, {4, "destroy"}, {8, "reply"}, {16, "assured"}, {32, "protoinfo"}, {64, "helper"}, {128, "mark"}, {256, "seqadj"}, {512, "secmark"}, {1024, "label"},
}

var tcpFlags = symbols{{1, "fin"}, {2, "syn"}, {4, "rst"}, {8, "psh"}, {16, "ack"}, {32, "urg"}, {64, "ecn"}, {128, "cwr"}}

var dscps = symbols{
	{0x00, "cs0"}, {0x08, "cs1"}, {0x10, "cs2"}, {0x18, "cs3"}, {0x20, "cs4"}, {0x28, "cs5"}, {0x30, "cs6"}, {0x38, "cs7"}, {0x01, "lephb"},
	{0x0a, "af11"}, {0x0c, "af12"}, {0x0e, "af13"}, {0x12, "af21"}, {0x14, "af22"}, {0x16, "af23"}, {0x1a, "af31"}, {0x1c, "af32"}, {0x1e, "af33"},
	{0x22, "af41"}, {0x24, "af42"}, {0x26, "af43"}, {0x2c, "va"}, {0x2e, "ef"},
}

var ecns = symbols{{0, "not-e" + "ct"}, {1, "ect1"}, {2, "ect0"}, {3, "ce"}}

var addrTypes = symbols{
	{0, "unspec"}, {1, "unicast"}, {2, "local"}, {3, "broadcast"}, {4, "anycast"}, {5, "multicast"}, {6, "blackhole"}, {7, "unreachable"}, {8, "prohibit"},
}

var booleans = symbols{{0, "missing"}, {1, "exists"}}

var linkTypes = symbols{{1, "ether"}, {512, "ppp"}, {768, "ipip"}, {769, "ipip6"}, {772, "loopback"}, {776, "sit"}, {778, "ipgre"}}

var arpOps = symbols{{1, "request"}, {2, "reply"}, {3, "rrequest"}, {4, "rreply"}, {8, "inrequest"}, {9, "inreply"}, {10, "nak"}}

var days = symbols{{0, `"Sunday"`}, {1, `"Monday"`}, {2, `"Tuesday"`}, {3, `"Wednesday"`}, {4, `"Thursday"`}, {5, `"Friday"`}, {6, `"Saturday"`}}

var dccpTypes = symbols{
	{0, "request"}, {1, "response"}, {2, "data"}, {3, "ack"}, {4, "dataack"}, {5, "closereq"}, {6, "close"}, {7, "reset"}, {8, "sync"}, {9, "syncack"},
}

var logLevels = symbols{{0, "emerg"}, {1, "alert"}, {2, "crit"}, {3, "err"}, {4, "warn"}, {5, "notice"}, {6, "info"}, {7, "debug"}, {8, "audit"}}

var objectNames = symbols{
	{1, "counter"}, {2, "quota"}, {3, "ct helper"}, {4, "limit"}, {5, "ct count"}, {6, "tunnel"}, {7, "ct timeout"}, {8, "secmark"}, {9, "ct expectation"}, {10, "synproxy"},
}
