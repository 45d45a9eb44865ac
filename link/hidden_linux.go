package link

import (
	"github.com/boxwire/boxwire/internal/kernel"
	"github.com/boxwire/boxwire/internal/nl"
)

// hidden adds to what the kernel shows of a link what it keeps to itself, so that
// its silence is not taken for a refusal.

// The kernel takes IFLA_VXLAN_MC_ROUTE from Linux 6.17 on and does not report it.
func (k VXLAN) hidden(have *attrs) {
	if kernel.AtLeast(6, 17) {
		fillIn(k, have, 34)
	}
}

// The kernel reports IFLA_BOND_AD_ACTOR_SYS_PRIO, _AD_USER_PORT_KEY and
// _AD_ACTOR_SYSTEM only to who has CAP_NET_ADMIN in the first user namespace.
func (k Bond) hidden(have *attrs) { fillIn(k, have, 24, 25, 26) }

// fillIn adds those of the attributes that have lacks, with the values of k.
func fillIn(k Kind, have *attrs, types ...uint16) {
	var only attrSet
	for _, t := range types {
		if have[t] == nil {
			only.add(t)
		}
	}
	o := options{do: encode, only: &only, peerFD: -1}
	k.options(&o)
	for w := nl.Walk(o.b); w.Next(); {
		have[w.Type()] = w.Data()
	}
}
