package link

import "slices"

// settings are what a spec sets by attributes: declarations that point to its values.
// Checks, requests and comparisons work on them.
type settings struct {
	list [13]field // common, and then alias; an array, for room on the caller's stack

	// The kernel ignores these in the message that makes a link, or refuses them
	// there. What is all zero has no fields.
	ipv4, ipv6 []field
	sysctls    []field // of IPv6: what has no attribute
	bondPort   []field
}

func (s *Spec) settings() settings {
	mac := codec(hardware{})
	if hasOwnMAC(s.Kind) {
		mac = sureMAC
	}
	t := settings{list: [...]field{
		{3, "IFLA_IFNAME", &s.Name, sureText},
		{4, "IFLA_MTU", &s.MTU, u32},
		{1, "IFLA_ADDRESS", &s.MAC, mac},
		{27, "IFLA_GROUP", &s.Group, u32},
		{13, "IFLA_TXQLEN", &s.TxQueueLen, u32},
		{31, "IFLA_NUM_TX_QUEUES", &s.TxQueues, sureU32},
		{32, "IFLA_NUM_RX_QUEUES", &s.RxQueues, sureU32},
		{41, "IFLA_GSO_MAX_SIZE", &s.GSOMaxSize, u32},
		{40, "IFLA_GSO_MAX_SEGS", &s.GSOMaxSegs, u32},
		{58, "IFLA_GRO_MAX_SIZE", &s.GROMaxSize, u32},
		{63, "IFLA_GSO_IPV4_MAX_SIZE", &s.GSOIPv4MaxSize, u32},
		{64, "IFLA_GRO_IPV4_MAX_SIZE", &s.GROIPv4MaxSize, u32},
		{20, "IFLA_IFALIAS", &s.Alias, sureAlias},
	}}
	if s.IPv4 != (IPv4Conf{}) {
		t.ipv4 = s.IPv4.fields()
	}
	if s.IPv6 != (IPv6Conf{}) {
		t.ipv6, t.sysctls = s.IPv6.attributes(), s.IPv6.sysctls()
	}
	if s.BondPort != (BondPort{}) {
		t.bondPort = s.BondPort.fields()
	}
	return t
}

// common returns what a message to make or to change a link has for either end of a
// pair. The kernel reads the attributes in no particular order.
func (t *settings) common() []field {
	n := len(t.list) - 1
	return t.list[:n:n]
}

// alias returns what the kernel accepts in the message that makes a link and then
// ignores.
func (t *settings) alias() []field { return t.list[len(t.list)-1:] }

// late returns what the message that makes a link does not set.
func (t *settings) late() [5][]field {
	return [...][]field{t.alias(), t.bondPort, t.ipv4, t.ipv6, t.sysctls}
}

// checkLate returns the first value of late that is out of range.
func (t *settings) checkLate() error {
	for _, list := range t.late() {
		if err := checkFields(list); err != nil {
			return err
		}
	}
	return nil
}

// haveLate reports whether there is a value of late to send.
func (t *settings) haveLate() bool {
	for _, list := range t.late() {
		if anySet(list) {
			return true
		}
	}
	return false
}

// anySet reports whether there is a value to send.
func anySet(list []field) bool {
	return slices.ContainsFunc(list, func(f field) bool { return f.form.isSet(f.value, false) })
}

// without returns a copy of the list without the fields of those types.
func without(list []field, types ...uint16) []field {
	return slices.DeleteFunc(slices.Clone(list), func(f field) bool { return slices.Contains(types, f.attrType()) })
}

// The forms of attributes that every kernel takes or refuses. If a new link has no
// others, it need not be compared with its spec.
var (
	sureText  = &special{codec: text{}, sure: true}
	sureAlias = &special{codec: alias{}, sure: true}
	sureU8    = &special{codec: u8, sure: true}
	sureU32   = &special{codec: u32, sure: true}
	sureMAC   = &special{codec: hardware{}, sure: true}
)
