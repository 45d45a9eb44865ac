package link

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/boxwire/boxwire/internal/enum"
)

func TestTextOfEnums(t *testing.T) {
	t.Parallel()
	for _, n := range []int{
		texts(t, operStates), texts(t, map[EventKind]string{
			EventPresent: "present", EventSynced: "synced", EventChanged: "changed", EventDeleted: "deleted", EventResync: "resync",
		}),
		texts(t, topicNames), texts(t, portStates), texts(t, multicastRouters), texts(t, bridgeSTPModes),
		texts(t, bondModes), texts(t, bondARPValidates), texts(t, bondReselects), texts(t, bondMACs), texts(t, bondHashes), texts(t, bondADSelects),
		texts(t, macvlanModes), texts(t, ipvlanModes), texts(t, netkitModes), texts(t, netkitPolicies), texts(t, netkitScrubs), texts(t, tunnelDFs),
		texts(t, vlanProtocols), texts(t, addrGenModes), texts(t, xdpModes), texts(t, addrScopes), texts(t, addrProtocols), texts(t, fdbTypes),
		texts(t, neighbourStates),
	} {
		if n < 2 {
			t.Errorf("%d names", n)
		}
	}
	if s := BondMode(99).String(); s != "BondMode(99)" {
		t.Errorf("a mode without a name is %q", s)
	}
	for v, want := range map[NeighbourState]string{0: "0", NeighbourStale | NeighbourPermanent: "STALE|PERMANENT", NeighbourDelay | 0x100: "DELAY|256"} {
		var back NeighbourState
		if err := back.UnmarshalText([]byte(v.String())); err != nil || v.String() != want || back != v {
			t.Errorf("%#x is %s, read as %#x, %v", uint16(v), v, uint16(back), err)
		}
	}
	k := Bond{Mode: new(Bond8023AD), ADSelect: new(BondADSelect(77))}
	b, err := json.Marshal(k)
	var back Bond
	if err := errors.Join(err, json.Unmarshal(b, &back)); err != nil || *back.Mode != *k.Mode || *back.ADSelect != *k.ADSelect {
		t.Errorf("%s is read as %+v, %v", b, back, err)
	}
}

// texts reads each text back.
func texts[T enum.Number, P interface {
	*T
	encoding.TextUnmarshaler
}](t *testing.T, names map[T]string) int {
	for v, name := range names {
		text, err := any(v).(encoding.TextMarshaler).MarshalText()
		var back T
		if err := errors.Join(err, P(&back).UnmarshalText(text)); err != nil || back != v || string(text) != name || fmt.Sprint(v) != name {
			t.Errorf("%T %d: %s is read as %d, %v", v, v, text, back, err)
		}
	}
	var v T
	for _, bad := range []string{"", "no such name", "-1", "4294967296"} {
		if err := P(&v).UnmarshalText([]byte(bad)); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%T %q is %v, error %v", v, bad, v, err)
		}
	}
	return len(names)
}
