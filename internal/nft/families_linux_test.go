package nft

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns/netnstest"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// bridged adds a table of the bridge family to a batch of the inet family.
func bridged(b *Batch) *Batch {
	b.In(unix.NFPROTO_BRIDGE)
	b.AddTable("ports")
	b.AddChain(Chain{Name: "pre", Type: "filter", Hook: unix.NF_INET_PRE_ROUTING, Priority: -300})
	b.AddSet(Set{Name: "ports", Key: []Field{{Type: 41, Len: unix.IFNAMSIZ, Order: 1}}})
	b.AddElements("ports", Element{Key: append([]byte("web0"), make([]byte, 12)...)})
	b.AddRule("pre", &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: "ports"}, &expr.Verdict{Kind: expr.VerdictDrop})
	return b
}

func TestTablesOfTwoFamiliesChangeInOneTransaction(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	c := conn(t, ns)
	commit := func(b *Batch) error {
		return c.Commit(t.Context(), "ours", BuildFunc(func(context.Context) (*Batch, error) { return b, nil }))
	}
	// What the second table cannot do, the first one does not.
	bad := bridged(guarded())
	bad.DeleteElements("ports", Element{Key: make([]byte, 16)})
	if err := commit(bad); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a missing element: %v", err)
	}
	if out := testutil.Run(t, ns, "nft", "list", "ruleset"); out != "" {
		t.Errorf("a transaction that failed left\n%s", out)
	}
	if err := commit(bridged(guarded())); err != nil {
		t.Fatal(err)
	}
	out := testutil.Run(t, ns, "nft", "list", "ruleset")
	for _, want := range []string{"table inet ours", "table bridge ours", "hook prerouting", `elements = { "web0" }`, "iifname @ports drop"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	br := c.In(unix.NFPROTO_BRIDGE)
	for what, read := range map[string]func() (bool, error){
		"the inet table":   func() (bool, error) { return c.Holds(t.Context(), guarded()) },
		"the bridge table": func() (bool, error) { return br.Holds(t.Context(), bridged(NewBatch("ours"))) },
		"its comment": func() (bool, error) {
			comment, err := br.TableComment(t.Context(), "ours")
			return comment == "ports", err
		},
		"its set": func() (bool, error) { return br.HasSet(t.Context(), "ours", "ports") },
		"its element": func() (bool, error) {
			found, err := br.Lookup(t.Context(), "ours", Query{Set: "ports", Key: append([]byte("web0"), make([]byte, 12)...)})
			return err == nil && found[0] != nil, err
		},
	} {
		if ok, err := read(); err != nil || !ok {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	if there, err := c.HasSet(t.Context(), "ours", "ports"); err != nil || there {
		t.Errorf("the bridge table's set in the inet table: %v, %v", there, err)
	}
	testutil.Run(t, ns, "nft", "flush chain bridge ours pre")
	if ok, err := br.Holds(t.Context(), bridged(NewBatch("ours"))); err != nil || ok {
		t.Errorf("without its rule: %v, %v", ok, err)
	}
	b := NewBatch("ours")
	b.DeleteTable()
	b.In(unix.NFPROTO_BRIDGE)
	b.DeleteTable()
	if err := commit(b); err != nil {
		t.Error(err)
	}
	if out := testutil.Run(t, ns, "nft", "list", "ruleset"); out != "" {
		t.Errorf("left:\n%s", out)
	}
}
