package route

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/netns"
)

// An order is the rules of both families as the kernel holds them: by priority,
// the younger behind the older.
//
// A request to delete a rule cannot say which field has to be empty, so that the
// kernel may find another one of that priority first (mayPick). The first rule of
// a priority is what it finds for a copy of that rule. So the others that stand
// before one are moved behind it one by one, each added again before it is
// deleted: no rule is missing at any moment, and in the end the order is as it
// was.
type order []Rule

// A rotation is the steps that delete one rule.
type rotation []turn

// A turn adds or deletes a rule. Extra turns leave the rules as they were.
type turn struct {
	rule  Rule
	verb  verb
	extra bool
}

// delete returns the steps that delete the rule, and takes it out. Of a rule that
// is not there in every respect, they delete the first that the kernel finds.
func (o *order) delete(r *Rule) rotation {
	plain := rotation{{rule: *r, verb: verbDelete}}
	at := -1 // of several that are equal, the youngest
	for i := range *o {
		if have := &(*o)[i]; r.as(have).Equal(*have) && (r.Priority != 0 || r.First || at < 0) {
			at = i
		}
	}
	if at < 0 {
		if i := slices.IndexFunc(*o, func(have Rule) bool { return r.mayPick(&have) }); i >= 0 {
			*o = slices.Delete(*o, i, i+1)
		}
		return plain
	}
	target := (*o)[at]
	first := slices.IndexFunc(*o, func(have Rule) bool { return have.Family == target.Family && have.Priority == target.Priority })
	hidden := slices.ContainsFunc((*o)[first:at], func(have Rule) bool { return target.mayPick(&have) && !target.Equal(have) })
	steps := rotation{{rule: target, verb: verbDelete}}
	if hidden {
		end := first
		for end < len(*o) && (*o)[end].Family == target.Family && (*o)[end].Priority == target.Priority {
			end++
		}
		steps = nil
		for i := first; i < end; i++ {
			have := (*o)[i]
			if i != at {
				steps = append(steps, turn{rule: have, verb: verbAppend, extra: true})
			}
			steps = append(steps, turn{rule: have, verb: verbDelete, extra: i != at})
		}
	}
	*o = slices.Delete(*o, at, at+1)
	return steps
}

// send carries the steps out one by one: what could not be added again is not
// deleted. Once begun it does not end with the context.
func (r rotation) send(ctx context.Context, conn *nl.Conn) error {
	for i := range r {
		err := conn.Call(ctx, r.request(nil, i), nil)
		if r[i].extra && errors.Is(err, fs.ErrNotExist) {
			err = nil // it went meanwhile
		}
		if err != nil {
			return err
		}
		ctx = context.WithoutCancel(ctx)
	}
	return nil
}

func (r rotation) request(b []byte, i int) nl.Request { return r[i].rule.request(b, r[i].verb) }

// deleteExactly deletes rules as they were listed, and no others like them. One
// that is gone is no error.
func deleteExactly(ctx context.Context, ns *netns.NS, rules []Rule) error {
	if len(rules) == 0 {
		return ctx.Err()
	}
	conn, err := open(ns)
	if err != nil {
		return err
	}
	listed, err := listRules(ctx, ns, 0)
	if err != nil {
		return err
	}
	left := order(listed)
	var plain rotation
	flush := func() error {
		err := sendAll(ctx, conn, len(plain), true, plain.request, nil)
		plain = plain[:0]
		return err
	}
	for i := range rules {
		if !slices.ContainsFunc(left, rules[i].Equal) {
			continue
		}
		steps := left.delete(&rules[i])
		if len(steps) == 1 {
			plain = append(plain, steps...)
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		if err := steps.send(ctx, conn); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return flush()
}
