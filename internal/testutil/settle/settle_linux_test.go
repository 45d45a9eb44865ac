package settle_test

import (
	"errors"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil/settle"
	"github.com/boxwire/boxwire/link"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// The kernel removes a veth pair with the namespace of one end, some time after that has ended.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	host, ctx := netnstest.New(t), t.Context()
	box, err := netns.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	if _, err := link.Create(ctx, host, link.Spec{Name: "box0", Kind: link.Veth{Peer: link.Spec{NS: box, Name: "eth0"}}}); err != nil {
		t.Fatal(err)
	}
	if err := box.Close(); err != nil {
		t.Fatal(err)
	}
	if err := settle.Namespaces(ctx, host); err != nil {
		t.Fatal(err)
	}
	if _, err := link.Get(ctx, host, "box0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link to a namespace that has ended: %v, want %v", err, os.ErrNotExist)
	}
}
