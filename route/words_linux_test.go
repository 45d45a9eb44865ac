package route

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/testutil"
	"github.com/boxwire/boxwire/netns"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// An error says what is wrong in words that do not need the errno.
func TestErrorsInWords(t *testing.T) {
	t.Parallel()
	netnstest.NeedIPv6(t)
	ns := box(t)
	for _, cmd := range []string{
		"route add 10.50.0.0/16 via 10.1.0.9 proto bgp", "-6 route add fd50::/64 via fd01::9 proto bgp", "route add blackhole 10.51.0.0/16",
		"route add prohibit 10.52.0.0/16", "route add unreachable 10.53.0.0/16", "-6 route add blackhole fd51::/64", "-6 route add prohibit fd52::/64",
		"-6 route add unreachable fd53::/64", "-6 rule add pref 9 to fd54::/64 blackhole", "rule add pref 9 to 10.54.0.0/16 blackhole",
	} {
		testutil.Run(t, ns, "ip", strings.Fields(cmd)...)
	}
	lookup := func(dst string) error {
		_, err := Lookup(t.Context(), ns, Query{Dst: addr(dst)})
		return err
	}
	_, sync4 := Sync(t.Context(), ns, 77, Route{Dst: prefix("10.50.0.0/16"), Via: addr("10.1.0.3")})
	_, sync6 := Sync(t.Context(), ns, 77, Route{Dst: prefix("fd60::/64"), Via: addr("fd01::3")}, Route{Dst: prefix("fd50::/64"), Via: addr("fd01::3")})
	_, parse := Parse("10.0.0.0/8 via nowhere")
	_, table := TableNamed("no-such-table")
	_, hop := GetNextHop(t.Context(), ns, 99)
	for name, c := range map[string]struct {
		err  error
		is   error
		says string
	}{
		"delete":            {Delete(t.Context(), ns, Route{Dst: prefix("10.9.0.0/16")}), os.ErrNotExist, "there is no such route"},
		"delete of IPv6":    {Delete(t.Context(), ns, Route{Dst: prefix("fd09::/64")}), os.ErrNotExist, "there is no such route"},
		"change":            {Change(t.Context(), ns, To(prefix("10.9.0.0/16"), addr("10.1.0.3"))), os.ErrNotExist, "there is no such route"},
		"change of IPv6":    {Change(t.Context(), ns, To(prefix("fd09::/64"), addr("fd01::3"))), os.ErrNotExist, "route fd09::/64"}, // with the kernel's own words,
		"rule":              {DeleteRules(t.Context(), ns, Rule{Family: IPv4, Priority: 77}), os.ErrNotExist, "there is no such rule"},
		"next hop":          {DeleteNextHops(t.Context(), ns, 99), os.ErrNotExist, "there is no such next hop"},
		"get a next hop":    {hop, os.ErrNotExist, "there is no such next hop"},
		"gateway":           {Add(t.Context(), ns, To(prefix("fd09::/64"), addr("fd77::1"))), unix.EHOSTUNREACH, "the gateway is on no link"},
		"next hop gateway":  {AddNextHops(t.Context(), ns, NextHop{ID: 7, Via: addr("fd77::1"), Dev: 100}), unix.EHOSTUNREACH, "gateway"},
		"sync":              {sync4, os.ErrExist, "the route 10.50.0.0/16 via 10.1.0.9 dev 100 proto bgp has the same place"},
		"sync of IPv6":      {sync6, os.ErrExist, "the route fd50::/64 via fd01::9 dev 100 proto bgp metric 1024 has the same place"},
		"parse":             {parse, os.ErrInvalid, `route.Parse "10.0.0.0/8 via nowhere": via "nowhere" is no address`},
		"table":             {table, os.ErrInvalid, `route.TableNamed table "no-such-table"`},
		"blackhole":         {lookup("10.51.0.1"), unix.EINVAL, "a blackhole drops it"},
		"blackhole of IPv6": {lookup("fd51::1"), unix.EINVAL, "a blackhole drops it"},
		"prohibit":          {lookup("10.52.0.1"), os.ErrPermission, "prohibits it"},
		"prohibit of IPv6":  {lookup("fd52::1"), os.ErrPermission, "prohibits it"},
		"unreachable":       {lookup("10.53.0.1"), unix.EHOSTUNREACH, "unreachable"},
		"unreachable IPv6":  {lookup("fd53::1"), unix.EHOSTUNREACH, "unreachable"},
		"a rule":            {lookup("10.54.0.1"), unix.EINVAL, "a blackhole drops it"},
		"a rule of IPv6":    {lookup("fd54::1"), unix.EINVAL, "a blackhole drops it"},
		"no route":          {lookup("192.0.2.1"), unix.ENETUNREACH, "no route leads there"},
	} {
		var e *netns.Error
		if !errors.Is(c.err, c.is) || !errors.As(c.err, &e) || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, c.err, c.says)
		}
	}
}
