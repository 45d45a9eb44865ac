package route

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// A selector is one that kernels before it ignore without a word: they would
// take the rule, and it would select far more than it says.
type selector struct {
	name   string
	kernel string
	used   func(*Rule) bool
	try    Rule
	known  atomic.Int32 // 1 that the kernel keeps it, -1 that it does not, 0 not tried yet
}

var selectors = []*selector{
	{name: "a DSCP", kernel: "6.12", used: func(r *Rule) bool { return r.DSCP != nil },
		try: Rule{Family: IPv4, DSCP: new(uint8(1))}},
	{name: "the mask of a DSCP", kernel: "6.15", used: func(r *Rule) bool { return r.DSCPMask != nil && *r.DSCPMask != 63 },
		try: Rule{Family: IPv4, DSCP: new(uint8(8)), DSCPMask: new(uint8(0x38))}},
	{name: "a flow label", kernel: "6.14", used: func(r *Rule) bool { return r.FlowLabel != 0 || r.FlowLabelMask != 0 },
		try: Rule{Family: IPv6, FlowLabel: 1}},
	{name: "the mask of a port", kernel: "6.15", used: func(r *Rule) bool { return r.SrcPorts.masked() || r.DstPorts.masked() },
		try: Rule{Family: IPv4, IPProto: 17, DstPorts: Ports{First: 80, Mask: 0xfff0}}},
}

func (p Ports) masked() bool { return p.Mask != 0 && p.Mask != 1<<16-1 }

// checkKept refuses a rule with a selector that the kernel ignores.
func checkKept(ctx context.Context, conn *nl.Conn, r *Rule) error {
	for _, s := range selectors {
		if !s.used(r) {
			continue
		}
		if s.known.Load() == 0 {
			if err := s.probe(ctx, conn); err != nil {
				return err
			}
		}
		if s.known.Load() < 0 {
			return refuse.As(errors.ErrUnsupported, "%s in a rule needs Linux %s, and this kernel would ignore it", s.name, s.kernel)
		}
	}
	return nil
}

// probe finds out whether the kernel keeps the selector: it adds a rule that does
// nothing, behind all others, has it echoed, and deletes it. It is done once.
func (s *selector) probe(ctx context.Context, conn *nl.Conn) error {
	want := s.try
	want.Action, want.Priority, want.Protocol = ActionNop, 1<<32-1, ProtoStatic
	req := want.request(nil, verbAdd)
	req.Flags = unix.NLM_F_CREATE | unix.NLM_F_ECHO // without EXCL: two may try at once
	var got Rule
	err := conn.Call(ctx, req, func(m nl.Message) error {
		_, err := decodeRule(m.Body, &got)
		return err
	})
	var refused *nl.Error
	switch {
	case errors.As(err, &refused) && (refused.Errno == unix.EINVAL || refused.Errno == unix.EOPNOTSUPP || refused.Errno == unix.ERANGE):
		s.known.Store(-1)
		return nil
	case err != nil:
		return err
	}
	if err := conn.Call(context.WithoutCancel(ctx), got.request(nil, verbDelete), nil); err != nil {
		return fmt.Errorf("taking back the rule that tried %s: %w", s.name, err)
	}
	if got.Equal(want) {
		s.known.Store(1)
	} else {
		s.known.Store(-1)
	}
	return nil
}
