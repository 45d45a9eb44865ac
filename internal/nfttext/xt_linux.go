package nfttext

import (
	"fmt"

	"github.com/boxwire/boxwire/internal/xtables"
)

// Attributes of the expressions that carry a match or a target of iptables (NFTA_MATCH_* and
// NFTA_TARGET_*).
const (
	xtName     = 1
	xtRevision = 2
	xtInfo     = 3
)

func (r *rule) xtMatch(a *attrs) { r.xt("match", a, xtables.MatchText) }

func (r *rule) xtTarget(a *attrs) { r.xt("target", a, xtables.TargetText) }

// xt writes a match or a target with what it says, or else its revision and size.
func (r *rule) xt(word string, a *attrs, text func(string, uint32, byte, []byte, func(string) string) (string, bool)) {
	name, revision, info := a.text(xtName), a.u32(xtRevision), a[xtInfo]
	s, ok := text(name, revision, r.network, info, quoted)
	if !ok {
		s = fmt.Sprintf("(rev %d, %d bytes)", revision, len(info))
	}
	if s != "" {
		s = " " + s
	}
	r.add("xt %s %s%s", word, quoted(name), s)
}
