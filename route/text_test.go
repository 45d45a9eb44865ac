package route

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"testing"
)

// Enums are words in JSON, and are read back.
func TestEnumsAsText(t *testing.T) {
	type all struct {
		Route  Event[Route]
		Rule   Rule
		Mode   Seg6Mode
		Action Seg6Action
	}
	in := all{
		Route:  Event[Route]{EventChanged, Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Type: TypeBlackhole, Scope: ScopeLink, Table: TableMain, Protocol: ProtoBGP, Pref: PrefHigh}},
		Rule:   Rule{Family: IPv6, Action: ActionGoto, Goto: 7},
		Mode:   Seg6ModeL2EncapRed,
		Action: Seg6ActionEndDT46,
	}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var words struct {
		Route struct {
			Kind string
			Item struct{ Type, Scope, Table, Protocol, Pref string }
		}
		Rule         struct{ Family, Action string }
		Mode, Action string
	}
	if err := json.Unmarshal(b, &words); err != nil {
		t.Fatal(err)
	}
	if r := words.Route; r.Kind != "changed" || r.Item.Type != "blackhole" || r.Item.Scope != "link" || r.Item.Table != "main" ||
		r.Item.Protocol != "bgp" || r.Item.Pref != "high" || words.Rule.Family != "IPv6" || words.Rule.Action != "goto" ||
		words.Mode != "l2encap.red" || words.Action != "End.DT46" {
		t.Errorf("%s", b)
	}
	var out all
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if !out.Route.Item.Equal(in.Route.Item) || out.Route.Kind != in.Route.Kind || !out.Rule.Equal(in.Rule) || out.Mode != in.Mode || out.Action != in.Action {
		t.Errorf("read back: %+v\nwant %+v", out, in)
	}
	var typ Type
	if err := json.Unmarshal([]byte(`"no-such"`), &typ); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("an unknown type: %v, %v", typ, err)
	}
}
