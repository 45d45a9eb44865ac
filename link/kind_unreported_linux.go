package link

import (
	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/nl"
)

// unreporter is a kind with options that the kernel accepts and does not report.
type unreporter interface {
	// addUnreported adds these options to what the kernel reports, so that a
	// missing report does not count as a refusal.
	addUnreported(have *attrs)
}

// The kernel accepts IFLA_VXLAN_MC_ROUTE from Linux 6.17 on and does not report it.
func (k VXLAN) addUnreported(have *attrs) {
	if kernel.AtLeast(6, 17) {
		fillIn(k, have, 34)
	}
}

// The kernel reports IFLA_BOND_AD_ACTOR_SYS_PRIO, _AD_USER_PORT_KEY and
// _AD_ACTOR_SYSTEM only to callers with CAP_NET_ADMIN in the first user namespace.
func (k Bond) addUnreported(have *attrs) { fillIn(k, have, 24, 25, 26) }

// Which attributes of another kind the kernel does not report is unknown. A gtp's
// descriptors and a macsec's port are examples.
func (k Other) addUnreported(have *attrs) {
	for _, a := range k.Data {
		if t := a.Type &^ 0xc000; have[t] == nil {
			if have[t] = a.Data; have[t] == nil {
				have[t] = []byte{}
			}
		}
	}
}

// fillIn adds those of the attributes that have lacks, with the values of k.
func fillIn(k Kind, have *attrs, types ...uint16) {
	var only fields
	for _, t := range types {
		if have[t] == nil {
			only[placeData].add(t)
		}
	}
	_, list := k.fields()
	m := message{only: &only}
	m.put(placeData, list)
	for w := nl.Walk(m.b); w.Next(); {
		have[w.Type()] = w.Data()
	}
}
