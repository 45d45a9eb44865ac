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

// AddRules adds rules to the namespace, all of them or none. An existing rule with the same
// Priority and Protocol is os.ErrExist. To decide that, the kernel ignores Not, Goto and
// the fields that the rule leaves open (fib_rules.c: rule_exists). A rule without a
// Priority is added even if there is one like it.
//
// A kernel ignores selectors that are newer than it is: a rule for one DSCP would match
// every packet. AddRules therefore tests such a selector with a rule that does nothing,
// once in a program. If the kernel ignores it, AddRules and [DeleteRules] change nothing
// and return errors.ErrUnsupported.
func AddRules(ctx context.Context, ns *netns.NS, rules ...Rule) error {
	return addRules(ctx, "route.AddRules", ns, rules)
}

func addRules(ctx context.Context, op string, ns *netns.NS, rules []Rule) error {
	conn, err := openRules(ctx, op, ns, rules, verbAdd)
	if err != nil {
		return err
	}
	made := slices.Clone(rules) // with the priority that the kernel chose
	err = sendAll(ctx, conn, len(rules), false, func(b []byte, i int) nl.Request {
		req := rules[i].request(b, verbAdd)
		req.Flags |= unix.NLM_F_ECHO
		return req
	}, func(i int, m nl.Message) error {
		var r Rule
		if ok, err := decodeRule(m.Body, &r); ok && err == nil {
			made[i] = r
		}
		return nil
	})
	many, err := explain(op, ns, "rule", rules, err)
	if many == nil {
		return err
	}
	var took []Rule
	for _, i := range undone(many, len(rules)) {
		took = append(took, made[i])
	}
	return undo(ctx, op, ns, err, func(ctx context.Context) error { return deleteExactly(ctx, ns, took) })
}

// DeleteRules deletes rules. If a rule equals an existing one, that one is deleted and no
// other. Otherwise a zero field matches any value, the kernel ignores Not and Goto, and the
// first rule that matches is deleted. A rule that matches every rule is os.ErrInvalid, as
// the first one is the kernel's own; that one has First set.
//
// A missing rule is os.ErrNotExist. Rules are sent a hundred at a time. If one cannot be
// deleted, those sent with it still are; the error names each that was not.
func DeleteRules(ctx context.Context, ns *netns.NS, rules ...Rule) error {
	const op = "route.DeleteRules"
	conn, err := openRules(ctx, op, ns, rules, verbDelete)
	if err != nil {
		return err
	}
	listed, err := listRules(ctx, ns, 0)
	if err != nil {
		return fail.New(op, ns, "rules", err)
	}
	plans := make([]rotation, len(rules))
	var left order = listed
	n := 0
	for i := range rules {
		plans[i] = left.delete(&rules[i])
		n += len(plans[i])
	}
	if n == len(rules) { // each is the first that the kernel finds
		err = sendAll(ctx, conn, len(rules), false, func(b []byte, i int) nl.Request { return plans[i].request(b, 0) }, nil)
		_, err = explain(op, ns, "rule", rules, err)
		return err
	}
	var errs []error
	for i := range rules {
		if err := plans[i].send(ctx, conn); err != nil {
			var refused *nl.Error
			if errors.As(err, &refused) {
				err = inWords("rule", refused)
			}
			errs = append(errs, fail.New(op, ns, "rule "+rules[i].String(), err))
		}
	}
	return errors.Join(errs...)
}

// openRules checks the rules and returns the connection.
func openRules(ctx context.Context, op string, ns *netns.NS, rules []Rule, v verb) (*nl.Conn, error) {
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
	return conn, nil
}

// ListRules returns the rules of a family, or with 0 those of both, IPv4 first, in the
// order in which the kernel tries them. The list is complete: if rules change during the
// dump, it is read again, up to 50 times, and then the error is [ErrInterrupted].
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

// SyncRules makes the rules of an owner exactly those given, in both families. An owner is
// a protocol number that no other program uses. SyncRules touches only what differs, adds
// before it deletes, and may be repeated. Rules of other protocols are left alone.
//
// The desired rules have the owner's Protocol, or 0. One with a Priority of 0 equals an
// existing one with any priority. If a rule is refused, or ctx ends before all are added,
// SyncRules deletes those that it has added, and deletes no others.
func SyncRules(ctx context.Context, ns *netns.NS, owner Protocol, desired ...Rule) (Changes, error) {
	const op = "route.SyncRules"
	if err := checkOwner(owner); err != nil {
		return Changes{}, fail.New(op, ns, "rules", err)
	}
	want := slices.Clone(desired)
	for i := range want {
		// What is listed is no error, even if it would not be added.
		if err := errors.Join(own(&want[i].Protocol, owner), want[i].check(true)); err != nil {
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
	if err := addRules(ctx, op, ns, want); err != nil {
		return Changes{}, err
	}
	// What is wanted is there: the rest is done whether or not ctx ends.
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	if err := deleteExactly(rest, ns, stale); err != nil {
		return Changes{}, fail.New(op, ns, "rules that are not wanted", err)
	}
	return Changes{Added: len(want), Deleted: len(stale)}, nil
}

// as returns the wanted rule with what the kernel has filled in.
func (r Rule) as(have *Rule) Rule {
	if r.Priority == 0 && !r.First {
		r.Priority, r.First = have.Priority, have.First
	}
	return r
}
