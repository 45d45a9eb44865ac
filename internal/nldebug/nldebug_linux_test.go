package nldebug

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/nl"
	"github.com/boxwire/boxwire/internal/nsconn"
	"github.com/boxwire/boxwire/netns/netnstest"
	"golang.org/x/sys/unix"
)

// logged returns the lines that run makes the connection write, without their times
// and with sequence numbers that count from the first.
func logged(t *testing.T, c *nl.Conn, run func()) []string {
	t.Helper()
	var b bytes.Buffer
	var first uint64
	c.Log(Logger(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.TimeKey, slog.LevelKey:
			return slog.Attr{}
		case "seq":
			if first == 0 {
				first = a.Value.Uint64()
			}
			return slog.Uint64("seq", a.Value.Uint64()-first+1)
		}
		return a
	}}))))
	run()
	c.Log(nil)
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestLines(t *testing.T) {
	t.Parallel()
	c, err := nsconn.Shared(netnstest.New(t), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	alias := func(value string) nl.Request { // a body that must not be in the lines
		b := make([]byte, unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(b[4:], 1)
		return nl.Request{Type: unix.RTM_NEWLINK, Body: nl.AppendString(b, unix.IFLA_IFALIAS, value)}
	}
	gone := nl.Request{Type: unix.RTM_DELADDR, Body: []byte{unix.AF_INET, 32, 0, 0, 0, 0, 0, 0}}
	got := logged(t, c, func() {
		if err := c.Exec(t.Context(), []nl.Request{alias("secret"), gone}, nil); err == nil {
			t.Error("an address without a link went")
		}
		if err := c.Call(t.Context(), alias("secret2"), nil); err != nil {
			t.Error(err)
		}
		if err := c.Dump(t.Context(), nl.Request{Type: unix.RTM_GETADDR, Body: make([]byte, unix.SizeofIfAddrmsg)}, nil, func(nl.Message) error { return nil }); err != nil {
			t.Error(err)
		}
	})
	for i, want := range []string{
		`msg="netlink request" type=RTM_NEWLINK flags=REQUEST seq=1 length=44`,
		`msg="netlink request" type=RTM_DELADDR flags=REQUEST\|ACK seq=2 length=24`,
		`msg="netlink answer" type=NLMSG_ERROR flags=(""|ACK_TLVS) seq=2 length=[0-9]+ errno=ENODEV`,
		`msg="netlink request" type=RTM_NEWLINK flags=REQUEST\|ACK seq=3 length=44`,
		`msg="netlink answer" type=NLMSG_ERROR flags=CAPPED seq=3 length=36 errno=0`,
		`msg="netlink request" type=RTM_GETADDR flags=REQUEST\|ROOT\|MATCH seq=4 length=24`,
		`msg="netlink answer" type=RTM_NEWADDR flags=MULTI.* seq=4 length=[0-9]+`,
	} {
		if i >= len(got) || !regexp.MustCompile("^"+want+"$").MatchString(got[i]) {
			t.Errorf("line %d is not %s", i+1, want)
		}
	}
	if last := got[len(got)-1]; !strings.Contains(last, "type=NLMSG_DONE flags=MULTI seq=4 length=20 errno=0") {
		t.Errorf("the last line is %s", last)
	}
	if t.Failed() || strings.Contains(strings.Join(got, ""), "secret") {
		t.Errorf("the lines are\n%s", strings.Join(got, "\n"))
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		family     int
		typ, flags uint16
		want       string
	}{
		{unix.NETLINK_ROUTE, unix.RTM_DELNEIGH, unix.NLM_F_REQUEST | unix.NLM_F_ECHO, "RTM_DELNEIGH REQUEST|ECHO"},
		{unix.NETLINK_ROUTE, unix.RTM_NEWNEXTHOP, unix.NLM_F_REPLACE | unix.NLM_F_APPEND, "RTM_NEWNEXTHOP REPLACE|APPEND"},
		{unix.NETLINK_ROUTE, unix.RTM_DELLINK, 0x200, "RTM_DELLINK BULK"},
		{unix.NETLINK_ROUTE, unix.RTM_GETNSID, 0, "RTM_GETNSID "},
		{unix.NETLINK_ROUTE, 5000, 0x8000, "0x1388 "},
		{unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, "NFT_MSG_GETSETELEM ROOT|MATCH"},
		{unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELFLOWTABLE, 0, "NFT_MSG_DELFLOWTABLE "},
		{unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE, "NFT_MSG_NEWRULE CREATE"},
		{unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_CTNETLINK<<8 | 5, 0, "IPCTNL_MSG_CT_GET_STATS "},
		{unix.NETLINK_NETFILTER, unix.NFNL_MSG_BATCH_BEGIN, 1, "NFNL_MSG_BATCH_BEGIN REQUEST"},
		{unix.NETLINK_NETFILTER, unix.NLMSG_ERROR, 0x300, "NLMSG_ERROR CAPPED|ACK_TLVS"},
	} {
		if got := typeName(c.family, c.typ) + " " + flagNames(c.family, c.typ, c.flags); got != c.want {
			t.Errorf("%#x, %#x: %q, want %q", c.typ, c.flags, got, c.want)
		}
	}
}
