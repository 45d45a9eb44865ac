package route

import (
	"context"
	"errors"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// AddRules adds rules to the namespace, all of them or none. A rule that is there
// already, with the same Priority and Protocol, is os.ErrExist; where the kernel
// chooses the priority, another one like it is added.
//
// Kernels ignore selectors that are younger than they are, so that a rule for one
// DSCP would take every packet. AddRules finds that out first, once in a program,
// by a rule that does nothing; the error is errors.ErrUnsupported then, as it is
// for DeleteRules, and nothing is changed.
func AddRules(ctx context.Context, ns *netns.NS, rules ...Rule) error {
	const op = "route.AddRules"
	many, err := execRules(ctx, op, ns, rules, verbAdd)
	if many == nil {
		return err
	}
	return undo(ctx, op, ns, err, undone(many, len(rules)), func(b []byte, i int) nl.Request { return rules[i].request(b, verbDelete) })
}

// DeleteRules deletes rules. A zero field matches any value; of several rules
// that match, the kernel deletes the first. A rule that is not there is
// os.ErrNotExist; it does not keep those sent along with it, up to 99, from being
// deleted, and the error names each that was not.
func DeleteRules(ctx context.Context, ns *netns.NS, rules ...Rule) error {
	_, err := execRules(ctx, "route.DeleteRules", ns, rules, verbDelete)
	return err
}

func execRules(ctx context.Context, op string, ns *netns.NS, rules []Rule, v verb) (*nl.ExecError, error) {
	for i := range rules {
		if err := rules[i].check(v == verbDelete); err != nil {
			return nil, fail.New(op, ns, "rule "+rules[i].String(), err)
		}
	}
	conn, err := open(ns)
	if err != nil {
		return nil, fail.New(op, ns, "rules", err)
	}
	for i := range rules {
		if err := checkKept(ctx, conn, &rules[i]); err != nil {
			return nil, fail.New(op, ns, "rule "+rules[i].String(), err)
		}
	}
	return exec(ctx, op, ns, "rule", rules, func(b []byte, i int) nl.Request { return rules[i].request(b, v) })
}

// ListRules returns the rules of a family, or with 0 of both, IPv4 first, in the
// order in which they are asked. The list is complete: when rules change while it
// is read, it is read again, up to 50 times; then it is [ErrInterrupted].
func ListRules(ctx context.Context, ns *netns.NS, f Family) ([]Rule, error) {
	rules, err := listRules(ctx, ns, f)
	if err != nil {
		return nil, fail.New("route.ListRules", ns, "rules", err)
	}
	return rules, nil
}

func listRules(ctx context.Context, ns *netns.NS, f Family) ([]Rule, error) {
	conn, err := open(ns)
	if err != nil {
		return nil, err
	}
	var rules []Rule
	err = eachFamily(Filter{Family: f}, func(af uint8) error {
		begin := len(rules)
		req := nl.Request{Type: unix.RTM_GETRULE, Body: header{family: af}.append(nil, 0), Names: ruleNames}
		return conn.Dump(ctx, req, func() { rules = rules[:begin] }, func(m nl.Message) error {
			var r Rule
			ok, err := decodeRule(m.Body, &r)
			if ok {
				rules = append(rules, r)
			}
			return err
		})
	})
	return rules, err
}

// SyncRules makes the rules of an owner, a protocol number that nobody else uses,
// be those given and no others, in both families. It touches only what differs,
// adds before it deletes, and may be repeated. The desired rules have the owner's
// Protocol, or 0; a Priority of 0 is content with any. Rules of other protocols are
// left alone. When a rule is refused, those added before it are taken back, and
// none is deleted.
func SyncRules(ctx context.Context, ns *netns.NS, owner Protocol, desired ...Rule) (Changes, error) {
	const op = "route.SyncRules"
	if err := checkOwner(owner); err != nil {
		return Changes{}, fail.New(op, ns, "rules", err)
	}
	want := slices.Clone(desired)
	for i := range want {
		if err := errors.Join(own(&want[i].Protocol, owner), want[i].check(false)); err != nil {
			return Changes{}, fail.New(op, ns, "rule "+want[i].String(), err)
		}
	}
	stale, err := listRules(ctx, ns, 0)
	if err != nil {
		return Changes{}, fail.New(op, ns, "rules", err)
	}
	stale = slices.DeleteFunc(stale, func(r Rule) bool { return r.Protocol != owner })
	want = slices.DeleteFunc(want, func(w Rule) bool {
		i := slices.IndexFunc(stale, func(have Rule) bool { return w.as(&have).Equal(have) })
		if i >= 0 {
			stale = slices.Delete(stale, i, i+1)
		}
		return i >= 0
	})
	many, err := execRules(ctx, op, ns, want, verbAdd)
	if many != nil {
		return Changes{}, undo(ctx, op, ns, err, undone(many, len(want)), func(b []byte, i int) nl.Request { return want[i].request(b, verbDelete) })
	}
	if err != nil {
		return Changes{}, err
	}
	conn, err := open(ns)
	if err == nil {
		err = sendAll(ctx, conn, len(stale), true, func(b []byte, i int) nl.Request { return stale[i].request(b, verbDelete) })
	}
	if _, err := explain(op, ns, "rule", stale, err); err != nil {
		return Changes{}, err
	}
	return Changes{Added: len(want), Deleted: len(stale)}, nil
}

// as returns the wanted rule with what the kernel has filled in.
func (r Rule) as(have *Rule) Rule {
	if r.Priority == 0 {
		r.Priority = have.Priority
	}
	return r
}
