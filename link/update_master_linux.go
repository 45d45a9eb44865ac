package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/boxwire/boxwire/internal/fail"
	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/refuse"
)

// SetMaster makes the link a port of the bridge, bond or VRF. The zero Ref takes it
// out of its master. A master that is missing is os.ErrNotExist.
//
// If SetMaster fails, the link has the master that it had, with its settings, its
// VLANs and its static entries in the forwarding database there. (The kernel takes
// a link out of its bridge, and so removes these, before it looks at the new
// master.) Entries of the bridge's multicast database are not restored.
func (l Link) SetMaster(ctx context.Context, master Ref) error {
	const op = "link.SetMaster"
	err := l.bound()
	if err == nil {
		err = master.resolve(ctx, "master", l.ns)
	}
	if err == nil && master.Index == l.Index {
		err = refuse.Input("the link is its own master (index %d)", l.Index)
	}
	u := update{ctx: ctx, op: op, ns: l.ns, want: &Spec{Master: master}, setMaster: true}
	if err == nil {
		u.conn, err = route(l.ns)
	}
	if err == nil {
		err = u.read("", l.Index)
	}
	if err != nil {
		return fail.New(op, l.ns, l.subject(), err)
	}
	return u.run()
}

// leave finds out whether the link can leave its master for another, and what it
// leaves behind.
func (u *update) leave() error {
	if u.want.Master.Index != 0 {
		_, err := read(u.ctx, u.ns, u.conn, "", u.want.Master.Index)
		if errors.Is(err, os.ErrNotExist) {
			return notExist(fmt.Sprintf("master %s does not exist in netns %s", u.want.Master, u.ns), err)
		}
		if err != nil {
			return err
		}
	}
	if u.before.SlaveKind != "bridge" || u.want.Master.Index == u.before.Master {
		return nil
	}
	var err error
	u.tables, err = readPortTables(u.ctx, u.conn, u.before.Link)
	return err
}

// portTables is what a bridge knows of a port and forgets when it leaves, beside the port's
// settings.
type portTables struct {
	vlans *vlanSet // nil where the kernel has no VLANs
	fdb   []FDBEntry
}

func readPortTables(ctx context.Context, conn *nl.Conn, l Link) (*portTables, error) {
	k := &portTables{}
	var err error
	if k.vlans, err = vlansOf(ctx, conn, l.Index); errors.Is(err, errors.ErrUnsupported) {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	k.fdb, err = listFDB(ctx, l.ns, FDBFilter{Link: l.Ref()})
	k.fdb = slices.DeleteFunc(k.fdb, func(e FDBEntry) bool { return e.Self || e.Type == FDBDynamic && e.Flags&(FDBExtLearned|FDBSticky) == 0 })
	return k, err
}

// restore gives them back to a port that has come back.
func (k *portTables) restore(ctx context.Context, l Link, conn *nl.Conn) error {
	var errs []error
	if k.vlans != nil {
		now, err := vlansOf(ctx, conn, l.Index)
		if err == nil {
			err = l.sendVLANs(ctx, conn, now, k.vlans)
		}
		errs = append(errs, err)
	}
	// One by one as they were: an entry without a VLAN would be made in each.
	have, err := listFDB(ctx, l.ns, FDBFilter{Link: l.Ref()})
	errs = append(errs, err)
	var reqs []nl.Request
	entries := slices.Clone(k.fdb)
	slices.SortStableFunc(entries, func(a, b FDBEntry) int { return int(a.VLAN) - int(b.VLAN) }) // first those without
	for i := range entries {
		e := &entries[i]
		if !slices.ContainsFunc(have, func(h FDBEntry) bool { return h.key() == e.key() }) {
			reqs = append(reqs, encodeFDB(l.Index, e, editReplace))
		}
	}
	if len(reqs) > 0 {
		errs = append(errs, conn.Exec(ctx, reqs, nil))
	}
	return errors.Join(errs...)
}
