package link

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
	"golang.org/x/sys/unix"
)

// SetRate limits what leaves through the link (egress) and what comes in through it
// (ingress). The directions are those of the link's own namespace: for the host's
// end of a box's veth, egress is what the box downloads.
//
//	err := web0.SetRate(ctx, link.Limit{Rate: 100 * link.Mbit}, link.Limit{Rate: 20 * link.Mbit})
//
// SetRate may be repeated. A zero Limit removes a limit and restores the kernel's
// default. If SetRate fails, both limits are what they were. [Link.Update] and
// [Ensure] refuse an MTU whose frames a limit's burst would not hold. Limits do not
// follow a link into another namespace; remove them before [Link.Move].
//
// For egress, a token bucket (tc-tbf(8)) becomes the link's root qdisc. It delays
// what is above the rate and drops what would wait longer than Latency. Ingress is
// redirected to a link of kind ifb, named "bwifb" and the link's index, which has
// such a token bucket. [Link.Delete] and [DeleteAll] remove it with the link. It
// stays if the kernel itself removes the limited link, as it does at the end of the
// namespace of a veth's other end. Without ifb, ingress gets a policer, which drops
// what is above the rate and ignores Latency.
//
// A root or ingress qdisc of another program is os.ErrExist, and so is one of
// SetRate with filters of another program. Without the kernel's modules sch_tbf,
// sch_ingress, cls_u32, and act_mirred or act_police, the error is
// errors.ErrUnsupported.
func (l Link) SetRate(ctx context.Context, egress, ingress Limit) error {
	err := l.bound()
	if err == nil {
		err = errors.Join(egress.check("egress"), ingress.check("ingress"))
	}
	if err == nil {
		err = l.setRate(ctx, egress, ingress, l.shapeIngress)
	}
	return fail.New("link.SetRate", l.ns, l.subject(), err)
}

// Rates returns the limits that [Link.SetRate] has set; the zero Limit is none. The
// kernel keeps a burst as a time in steps of 64 ns, so its bytes may be rounded.
func (l Link) Rates(ctx context.Context) (egress, ingress Limit, err error) {
	err = l.bound()
	var s rateState
	if err == nil {
		s, err = l.rateState(ctx)
	}
	if err != nil {
		return Limit{}, Limit{}, fail.New("link.Rates", l.ns, l.subject(), err)
	}
	return s.egress, s.ingress, nil
}

// rateState is what SetRate has made of a link.
type rateState struct {
	conn            *nl.Conn
	egress, ingress Limit
	limited         bool // ingress is limited
	ifb             int  // index of the ifb link, or 0
	otherRoot       string
	otherIngress    string
}

func ifbName(index int) string { return fmt.Sprintf("bwifb%d", index) }

// findIFB returns the ifb link of the link's limits, or the zero Link.
func (l Link) findIFB(ctx context.Context) (Link, error) {
	ifb, err := get(ctx, l.ns, ifbName(l.Index), 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return Link{}, nil
	case err == nil && (ifb.Kind != "ifb" || ifb.Name != ifbName(l.Index)): // or by an alternative name
		return Link{}, nil
	}
	return ifb, err
}

// rateState reads qdiscs and filters.
func (l Link) rateState(ctx context.Context) (s rateState, err error) {
	if s.conn, err = route(l.ns); err != nil {
		return s, err
	}
	root, err := readQdisc(ctx, s.conn, l.Index, tcRoot)
	if err != nil {
		return s, err
	}
	switch {
	case root.handle == rateHandle && root.kind == "tbf":
		s.egress = root.limit
	case root.handle != 0: // the default ones have none
		s.otherRoot = root.kind
	}
	in, err := readQdisc(ctx, s.conn, l.Index, tcIngress)
	if err != nil || in.kind == "" {
		return s, err
	}
	if in.kind != "ingress" {
		s.otherIngress = in.kind
		return s, nil
	}
	var filter tcObject
	err = s.conn.Dump(ctx, getFilters(l.Index), func() { s.otherIngress, s.limited = "", false }, func(m nl.Message) error {
		var o tcObject
		if m.Type != unix.RTM_NEWTFILTER {
			return nil
		}
		if err := decodeTC(&o, m.Body); err != nil {
			return err
		}
		switch {
		case o.info>>16 != ratePrio:
			s.otherIngress = "filters of another"
		case o.acts:
			filter, s.limited = o, true
		}
		return nil
	})
	if err != nil || !s.limited {
		if err == nil && s.otherIngress == "" {
			s.otherIngress = "an empty one"
		}
		return s, err
	}
	s.ingress = filter.limit
	if filter.to != 0 {
		s.ifb = filter.to
		tbf, err := readQdisc(ctx, s.conn, s.ifb, tcRoot)
		if err != nil {
			return s, err
		}
		s.ingress = tbf.limit
	}
	return s, nil
}

// readQdisc reads one qdisc. It returns the zero value if there is none.
func readQdisc(ctx context.Context, conn *nl.Conn, index int, parent uint32) (o tcObject, err error) {
	err = conn.Call(ctx, getQdisc(index, parent), func(m nl.Message) error {
		if m.Type != unix.RTM_NEWQDISC {
			return nil
		}
		return decodeTC(&o, m.Body)
	})
	// ENOENT: there is none. EINVAL: the kernel does not show it (noqueue).
	if _, e, ok := refused(err); ok && (e.Errno == unix.ENOENT || e.Errno == unix.EINVAL) {
		return tcObject{}, nil
	}
	return o, err
}

// setRate sets the limits. shape limits ingress.
func (l Link) setRate(ctx context.Context, egress, ingress Limit, shape func(context.Context, *rateState, Limit) error) error {
	now, err := get(ctx, l.ns, "", l.Index)
	if err != nil {
		return err
	}
	egress, ingress = egress.filled(now.MTU), ingress.filled(now.MTU)
	if err := errors.Join(egress.checkFor("egress", now.MTU), ingress.checkFor("ingress", now.MTU)); err != nil {
		return err
	}
	if ctx, err = changeContext(ctx); err != nil {
		return err
	}
	before, err := l.rateState(ctx)
	if err != nil {
		return err
	}
	switch {
	case before.otherRoot != "" && egress.Rate != 0:
		return taken("the link has a root qdisc that is not of this library: %s", before.otherRoot)
	case before.otherIngress != "" && (ingress.Rate != 0 || before.limited):
		return taken("the link has an ingress qdisc that is not of this library, or not alone: %s", before.otherIngress)
	}
	if err := l.setEgress(ctx, &before, egress); err != nil {
		return err // one message: nothing was changed
	}
	if err = l.setIngress(ctx, before, ingress, shape); err == nil {
		return nil
	}
	after := before
	after.egress = egress
	if uerr := l.setEgress(ctx, &after, before.egress); uerr != nil {
		err = errors.Join(err, fmt.Errorf("undoing the egress limit: %w", uerr))
	}
	return err
}

func (l Link) setEgress(ctx context.Context, s *rateState, m Limit) error {
	switch {
	case m.Rate != 0:
		return tcCause(s.conn.Call(ctx, newTBF(l.Index, m), nil), "tbf (sch_tbf)")
	case s.egress.Rate != 0:
		return s.conn.Call(ctx, delQdisc(l.Index, tcRoot), nil)
	}
	return nil
}

// setIngress sets the ingress limit, or restores what was there.
func (l Link) setIngress(ctx context.Context, s rateState, m Limit, shape func(context.Context, *rateState, Limit) error) error {
	switch {
	case m.Rate == 0 && !s.limited:
		return nil
	case m.Rate == 0:
		return l.clearIngress(ctx, &s)
	case s.ifb != 0: // one message
		return s.conn.Call(ctx, newTBF(s.ifb, m), nil)
	}
	was := s.ingress
	if s.limited { // by a policer, or an ifb that was deleted: it is made again
		if err := l.clearIngress(ctx, &s); err != nil {
			return err
		}
	}
	err := tcCause(s.conn.Call(ctx, newIngress(l.Index), nil), "ingress (sch_ingress)")
	if err == nil {
		err = shape(ctx, &s, m)
	}
	if err == nil {
		return nil
	}
	if cerr := l.clearIngress(ctx, &s); cerr != nil {
		return errors.Join(err, fmt.Errorf("undoing the ingress limit: %w", cerr))
	}
	if was.Rate != 0 {
		uerr := s.conn.Exec(ctx, []nl.Request{newIngress(l.Index), police(l.Index, was)}, nil)
		err = errors.Join(err, uerr)
	}
	return err
}

// clearIngress removes the ingress qdisc with its filter, and the ifb.
func (l Link) clearIngress(ctx context.Context, s *rateState) error {
	err := s.conn.Call(ctx, delQdisc(l.Index, tcIngress), nil)
	if _, e, ok := refused(err); ok && (e.Errno == unix.ENOENT || e.Errno == unix.EINVAL) {
		err = nil
	}
	if s.ifb != 0 {
		if derr := s.conn.Call(ctx, delLink(s.ifb), nil); derr != nil && !errors.Is(derr, os.ErrNotExist) {
			err = errors.Join(err, derr)
		}
	}
	return err
}

// shapeIngress limits ingress through an ifb, or by a policer if the kernel has no
// ifb.
func (l Link) shapeIngress(ctx context.Context, s *rateState, m Limit) error {
	err := l.redirectIngress(ctx, s, m)
	if errors.Is(err, errors.ErrUnsupported) && s.ifb == 0 {
		return l.policeIngress(ctx, s, m)
	}
	return err
}

func (l Link) redirectIngress(ctx context.Context, s *rateState, m Limit) error {
	// An ifb that an earlier link with the same index has left is reused.
	ifb, err := read(ctx, l.ns, s.conn, ifbName(l.Index), 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if ifb, err = l.makeIFB(ctx, s.conn); err != nil {
			return err
		}
		s.ifb = ifb.Index
	case err != nil:
		return err
	case ifb.Kind != "ifb":
		return taken("the name %s is taken by a link of kind %q", ifbName(l.Index), ifb.Kind)
	}
	return tcCause(s.conn.Exec(ctx, []nl.Request{setFlags(ifb.Index, true), newTBF(ifb.Index, m), redirect(l.Index, ifb.Index)}, nil), "u32 and mirred (cls_u32, act_mirred)")
}

// makeIFB makes the ifb of the link.
func (l Link) makeIFB(ctx context.Context, conn *nl.Conn) (Link, error) {
	b := appendIfInfo(nil, 0, 0, 0)
	b = nl.AppendString(b, unix.IFLA_IFNAME, ifbName(l.Index))
	b = nl.AppendU32(b, unix.IFLA_NUM_TX_QUEUES, 1)
	b, at := nl.Begin(b, unix.IFLA_LINKINFO)
	b = nl.AppendString(b, unix.IFLA_INFO_KIND, "ifb")
	nl.End(b, at)
	create := nl.Request{Type: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: b, Names: linkNames}
	if err := conn.Call(ctx, create, nil); err != nil {
		return Link{}, err
	}
	ifb, err := read(ctx, l.ns, conn, ifbName(l.Index), 0)
	if err != nil {
		b := nl.AppendString(appendIfInfo(nil, 0, 0, 0), unix.IFLA_IFNAME, ifbName(l.Index))
		err = errors.Join(err, conn.Call(ctx, nl.Request{Type: unix.RTM_DELLINK, Body: b, Names: linkNames}, nil))
	}
	return ifb, err
}

func (l Link) policeIngress(ctx context.Context, s *rateState, m Limit) error {
	return tcCause(s.conn.Call(ctx, police(l.Index, m), nil), "u32 and police (cls_u32, act_police)")
}

// tcCause says what the kernel lacks. The kernel answers ENOENT for an unknown
// qdisc, classifier or action.
func tcCause(err error, what string) error {
	if _, e, ok := refused(err); ok && e.Errno == unix.ENOENT {
		return refuse.As(errors.ErrUnsupported, "the kernel has no %s: %v", what, e)
	}
	return err
}

// taken returns an os.ErrExist with a text.
func taken(format string, args ...any) error {
	return refuse.As(os.ErrExist, format, args...)
}
