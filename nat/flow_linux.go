package nat

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/boxwire/boxwire/internal/ct"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// ListFlows lists the flows from or to the addresses of boxes, sorted by protocol and original
// addresses. Without addresses, it lists all flows of the namespace. The list is no snapshot: it
// may lack or have a flow that begins or ends meanwhile.
//
// Errors: os.ErrInvalid for an address that is missing, unspecified or IPv4 in IPv6 form;
// errors.ErrUnsupported where the kernel lacks nf_conntrack_netlink.
func (n *NAT) ListFlows(ctx context.Context, boxes ...netip.Addr) ([]Flow, error) {
	const op = "nat.ListFlows"
	wanted := make(map[netip.Addr]bool, len(boxes))
	for _, a := range boxes {
		if !a.IsValid() || a.IsUnspecified() || a.Is4In6() {
			return nil, n.fail(op, "flows", refuse.Input("the address %v is no box's", a))
		}
		wanted[a] = true
	}
	table, err := n.flows()
	if err != nil {
		return nil, n.fail(op, "flows", err)
	}
	all, err := table.List(ctx, func(f *ct.Flow) bool {
		return len(boxes) == 0 || wanted[f.Orig.Src.Addr()] || wanted[f.Orig.Dst.Addr()] || wanted[f.Reply.Src.Addr()]
	})
	if err != nil {
		return nil, n.fail(op, "flows", err)
	}
	flows := make([]Flow, len(all))
	for i := range all {
		flows[i] = newFlow(&all[i])
	}
	slices.SortFunc(flows, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Original.Src.Compare(b.Original.Src), a.Original.Dst.Compare(b.Original.Dst))
	})
	return flows, nil
}

func newFlow(f *ct.Flow) Flow {
	state := stateName(f.Orig.Proto, f.State)
	if f.Offloaded() {
		state = ""
	}
	return Flow{
		Proto:     Proto(f.Orig.Proto),
		Original:  Tuple{f.Orig.Src, f.Orig.Dst},
		Reply:     Tuple{f.Reply.Src, f.Reply.Dst},
		State:     state,
		Answered:  f.Answered(),
		Offloaded: f.Offloaded(),
		Timeout:   f.Timeout,
		Mark:      f.Mark,
		Counted:   f.Counted,
		Sent:      Traffic(f.Sent),
		Received:  Traffic(f.Received),
	}
}

// States by number (linux/netfilter/nf_conntrack_tcp.h, nf_conntrack_sctp.h).
var (
	tcpStates = []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT",
		"LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}
	sctpStates = []string{"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED",
		"SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT", "HEARTBEAT_ACKED"}
)

func stateName(proto, state uint8) string {
	var names []string
	switch proto {
	case unix.IPPROTO_TCP:
		names = tcpStates
	case unix.IPPROTO_SCTP:
		names = sctpStates
	default:
		return ""
	}
	if int(state) < len(names) {
		return names[state]
	}
	return fmt.Sprintf("state %d", state)
}
