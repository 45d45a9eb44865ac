package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
	"github.com/boxwire/boxwire/netns"
)

// Claim gives the prefixes of a node, one of each family that the fleet has pools of, IPv4 first. Those that the node has claimed
// before stay its own. The others it claims now, all in one transaction: it gets all of them or none. It tries first what it prefers,
// which is what it had when the store lost everything, and then what depends on its ID alone.
//
// The error is a *PoolFullError if nothing is left.
func (s *Store) Claim(ctx context.Context, id state.ID, cfg state.Config, prefer ...netip.Prefix) ([]netip.Prefix, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("claim prefixes: %w", err)
	}
	if id == (state.ID{}) {
		return nil, fmt.Errorf("claim prefixes: %w", invalid("no node id"))
	}
	c := claimer{Store: s, id: id, cfg: cfg, prefer: prefer}
	var prefixes []netip.Prefix
	err := s.call(ctx, "claim prefixes", func(ctx context.Context) error {
		var err error
		prefixes, err = c.claim(ctx)
		return err
	})
	return prefixes, err
}

// claimer claims the prefixes of one node.
type claimer struct {
	*Store
	id     state.ID
	cfg    state.Config
	prefer []netip.Prefix
	taken  map[netip.Prefix]*mvccpb.KeyValue // also by values that cannot be read
	mine   []netip.Prefix                    // those of taken that are the node's
}

// rereadAfter is how many conflicts it takes until all claims are read again. One conflict says who has one prefix, and costs about
// a tenth of what it costs to read the claims of a thousand nodes.
const rereadAfter = 16

func (c *claimer) claim(ctx context.Context) ([]netip.Prefix, error) {
	for conflicts := 0; ; conflicts++ {
		if conflicts%rereadAfter == 0 {
			if err := c.readClaims(ctx); err != nil {
				return nil, err
			}
		}
		chosen, err := c.choose()
		if err != nil {
			return nil, c.named(ctx, err)
		}
		done, err := c.try(ctx, chosen)
		if done || err != nil {
			return chosen, err
		}
	}
}

// readClaims reads who has what.
func (c *claimer) readClaims(ctx context.Context) error {
	const prefix = "claim/"
	kvs, _, err := c.read(ctx, c.key(prefix))
	if err != nil {
		return err
	}
	c.taken, c.mine = make(map[netip.Prefix]*mvccpb.KeyValue, len(kvs)), nil
	for _, kv := range kvs {
		if p, err := state.ParseClaimKey(string(kv.Key)[len(c.root):]); err == nil {
			c.learn(p, kv)
		}
	}
	return nil
}

// learn notes who has a prefix, nil for nobody.
func (c *claimer) learn(p netip.Prefix, kv *mvccpb.KeyValue) {
	c.mine = slices.DeleteFunc(c.mine, func(q netip.Prefix) bool { return q == p })
	if kv == nil {
		delete(c.taken, p)
		return
	}
	c.taken[p] = kv
	// The first condition is for speed: most claims are of others.
	if bytes.Contains(kv.Value, []byte(c.id.String())) && holder(kv) == c.id {
		c.mine = append(c.mine, p)
	}
}

// holder is the node of a claim, zero if the value cannot be read.
func holder(kv *mvccpb.KeyValue) state.ID {
	var v state.Claim
	if json.Unmarshal(kv.Value, &v) != nil {
		return state.ID{}
	}
	return v.Node
}

// choose gives the prefixes that the node has or should claim next.
func (c *claimer) choose() ([]netip.Prefix, error) {
	var chosen []netip.Prefix
	for _, f := range c.cfg.Families() {
		p, ok := c.own(f)
		if !ok {
			p, ok = c.free(f)
		}
		if !ok {
			return nil, c.full(f)
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// own is the prefix of a family that the node has. If it has more than one, for whatever reason, it is always the same.
func (c *claimer) own(f netns.Family) (own netip.Prefix, ok bool) {
	for _, p := range c.mine {
		if p.Addr().Is4() == (f == netns.IPv4) && c.cfg.Contains(p) && (!ok || p.Compare(own) < 0) {
			own, ok = p, true
		}
	}
	return own, ok
}

// free is the first of the node's choices that nobody has.
func (c *claimer) free(f netns.Family) (netip.Prefix, bool) {
	for _, p := range c.prefer {
		if _, taken := c.taken[p]; !taken && p.Addr().Is4() == (f == netns.IPv4) && c.cfg.Contains(p) {
			return p, true
		}
	}
	for p := range c.cfg.Choices(c.id, f) {
		if _, taken := c.taken[p]; !taken {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// try claims the prefixes in one transaction. It is not done if somebody else was faster; taken says then who has them.
func (c *claimer) try(ctx context.Context, prefixes []netip.Prefix) (done bool, err error) {
	var guards []clientv3.Cmp
	var puts, gets []clientv3.Op
	value := string(state.Encode(state.Claim{Version: state.Version, Node: c.id}))
	for _, p := range prefixes {
		key := c.key(state.ClaimKey(p))
		gets = append(gets, clientv3.OpGet(key))
		if own, ok := c.taken[p]; ok {
			guards = append(guards, clientv3.Compare(clientv3.ModRevision(key), "=", own.ModRevision))
		} else {
			guards = append(guards, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
			puts = append(puts, clientv3.OpPut(key, value))
		}
	}
	if len(puts) == 0 {
		return true, nil // it has all
	}
	resp, err := c.client.Txn(ctx).If(guards...).Then(puts...).Else(gets...).Commit()
	if err != nil || resp.Succeeded {
		return err == nil, err
	}
	for i, p := range prefixes {
		c.learn(p, nil)
		for _, kv := range resp.Responses[i].GetResponseRange().GetKvs() {
			c.learn(p, kv)
		}
	}
	return false, nil
}

// full is the error of a family without a free prefix.
func (c *claimer) full(f netns.Family) *PoolFullError {
	e := &PoolFullError{Family: f, Pools: c.cfg.PoolsOf(f), Size: c.cfg.Size(f)}
	for p, kv := range c.taken {
		if p.Addr().Is4() == (f == netns.IPv4) && c.cfg.Contains(p) {
			e.Holders = append(e.Holders, Holder{Prefix: p, Node: holder(kv)})
		}
	}
	slices.SortFunc(e.Holders, func(a, b Holder) int { return a.Prefix.Compare(b.Prefix) })
	return e
}

// named adds the names of the nodes to a PoolFullError.
func (c *claimer) named(ctx context.Context, err error) error {
	e, ok := err.(*PoolFullError)
	if !ok {
		return err
	}
	kvs, revision, err := c.read(ctx, c.root)
	if err != nil {
		return err
	}
	snapshot := state.Decode(revision, c.pairs(kvs))
	for i, h := range e.Holders {
		e.Holders[i].Name = snapshot.Name(h.Node)
		if h.Node == (state.ID{}) {
			e.Holders[i].Name = "a claim that cannot be read"
		}
	}
	return e
}

// sortedClaims are the claims of a node, by prefix.
func sortedClaims(s *state.Snapshot, id state.ID) []netip.Prefix {
	var prefixes []netip.Prefix
	for p := range maps.Keys(s.Claims) {
		if s.Claims[p] == id {
			prefixes = append(prefixes, p)
		}
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
	return prefixes
}
