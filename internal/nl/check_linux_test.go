package nl_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"golang.org/x/sys/unix"
)

// ifInfo is an empty struct ifinfomsg.
var ifInfo = make([]byte, unix.SizeofIfInfomsg)

// An attribute that is too long is refused by its name, and nothing of the call is
// sent: not what stands before it, either.
func TestTooLongAttributeIsRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := route(t)
	before := addresses(t, c)
	for _, n := range []struct {
		what string
		body func() []byte
		typ  uint16
		name string
	}{
		{"payload", func() []byte { return nl.AppendAttr(ifInfo, 20, make([]byte, 1<<16)) }, unix.RTM_NEWLINK, "attribute 20 "},
		{"one byte more than possible", func() []byte { return nl.AppendAttr(ifInfo, 20, make([]byte, 65532)) }, unix.RTM_NEWLINK, "attribute 20 "},
		{"text", func() []byte { return nl.AppendString(ifInfo, 3, strings.Repeat("x", 1<<17)) }, unix.RTM_NEWLINK, "attribute 3 "},
		{"behind others", func() []byte {
			return nl.AppendAttr(nl.AppendU8(nl.AppendU32(ifInfo, 4, 1500), 5, 1), 20, make([]byte, 1<<16))
		}, unix.RTM_NEWLINK, "attribute 20 "},
		{"many in one", func() []byte {
			b, at := nl.Begin(ifInfo, 18)
			b, in := nl.Begin(b, 2)
			b = nl.AppendAttr(b, 1, make([]byte, 40000))
			b = nl.AppendAttr(b, 1, make([]byte, 40000))
			nl.End(b, in)
			b = nl.AppendU32(b, 3, 0)
			nl.End(b, at)
			return b
		}, unix.RTM_NEWLINK, "attribute 18 "},
		{"next hop", func() []byte { return nl.AppendAttr(nl.AppendU32(make([]byte, 8), 1, 7), 2, make([]byte, 72000)) }, unix.RTM_NEWNEXTHOP, "attribute 2 "},
	} {
		bad := nl.Request{Type: n.typ, Flags: unix.NLM_F_CREATE, Body: n.body()}
		for how, err := range map[string]error{
			"Call":        c.Call(ctx, bad, nil),
			"Exec":        c.Exec(ctx, []nl.Request{address(unix.RTM_NEWADDR, 1), bad}, nil),
			"Find":        c.Find(ctx, []nl.Request{address(unix.RTM_NEWADDR, 1), bad}, nil),
			"Transaction": c.Transaction(ctx, address(unix.RTM_NEWADDR, 1), []nl.Request{bad}, bad),
			"Dump":        c.Dump(ctx, bad, nil, func(nl.Message) error { return nil }),
		} {
			if !errors.Is(err, os.ErrInvalid) || !strings.Contains(err.Error(), n.name) {
				t.Errorf("%s, %s: %v", n.what, how, err)
			}
		}
	}
	if n := addresses(t, c); n != before {
		t.Errorf("calls that were refused have made %d addresses", n-before)
	}
}

// What fits to the byte is sent, in a message that is longer than an attribute.
func TestLongAttributesThatFit(t *testing.T) {
	t.Parallel()
	c := route(t)
	b := append(bytes.Clone(ifInfo), 0)[:len(ifInfo)]
	b[4] = 1 // lo
	for range 3 {
		b = nl.AppendAttr(b, 1000, make([]byte, 65531))
	}
	err := c.Call(t.Context(), nl.Request{Type: unix.RTM_NEWLINK, Body: b}, nil)
	if errors.Is(err, os.ErrInvalid) && !errors.As(err, new(*nl.Error)) {
		t.Errorf("refused before it was sent: %v", err)
	}
}
