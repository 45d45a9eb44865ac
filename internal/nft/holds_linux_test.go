package nft

import (
	"context"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

func guarded() *Batch {
	b := table("ours")
	b.AddChain(Chain{Name: "in", Type: "filter", Hook: unix.NF_INET_LOCAL_IN, Priority: 5})
	b.AddChain(Chain{Name: "more"})
	b.AddSet(Set{Name: "s", Key: []Field{{Type: 7, Len: 4, Order: 2}}})
	name, id := b.AddAnonymous(Set{Key: []Field{{Type: 26, Len: 4, Order: 1}}, Verdicts: true}, Element{Key: []byte{2, 0, 0, 0}, Verdict: VerdictAccept})
	b.AddRule("in", &expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: name, SetID: id})
	b.AddRule("in", &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: "s"}, &expr.Verdict{Kind: expr.VerdictGoto, Chain: "more"})
	b.AddRule("in", &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{6}}, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
	b.AddRule("more", &expr.Verdict{Kind: expr.VerdictAccept})
	return b
}

func TestHoldsSeesEveryChange(t *testing.T) {
	t.Parallel()
	for _, change := range []string{
		"", // none
		"add element inet ours s { 10.0.0.1 }; add table inet other; add chain inet other in", // none of ours
		"flush table inet ours",
		"flush chain inet ours more",
		"flush chain inet ours in; delete chain inet ours more",
		"add rule inet ours more drop",
		"insert rule inet ours in accept",
		"add chain inet ours third",
		"add table inet ours { flags dormant; }",
		"add chain inet ours in { policy drop; }",
		"flush chain inet ours more; add rule inet ours more drop",
		"flush chain inet ours more; add rule inet ours more counter accept",
		"flush chain inet ours in; " +
			"add rule inet ours in ct state vmap { established : accept }; add rule inet ours in ip saddr @s goto more; add rule inet ours in meta l4proto udp counter drop",
		"flush chain inet ours in; " +
			"add rule inet ours in ip saddr @s goto more; add rule inet ours in ct state vmap { established : accept }; add rule inet ours in meta l4proto tcp counter drop",
	} {
		ns := netnstest.New(t)
		c := conn(t, ns)
		if err := c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) { return guarded(), nil })); err != nil {
			t.Fatal(err)
		}
		if change != "" {
			testutil.Run(t, ns, "nft", change)
		}
		want := change == "" || strings.Contains(change, "table inet other")
		if got, err := c.Holds(t.Context(), guarded()); err != nil || got != want {
			t.Errorf("after %q: %v, %v, want %v\n%s", change, got, err, want, testutil.Run(t, ns, "nft", "list", "ruleset"))
		}
	}
	// Of no table there is nothing.
	if got, err := conn(t, netnstest.New(t)).Holds(t.Context(), guarded()); err != nil || got {
		t.Errorf("without a table: %v, %v", got, err)
	}
}
